//! What the encoders gave, kept on disk under a digest of everything that it depends on.

use super::folder::Remark;
use super::lots::{Parts, hex};
use super::record::Record;
use atelier_sdk::{Error, ErrorKind, Result, files};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts up whenever the same inputs would give other values: resizing, cutting, cleaning of captions.
const VERSION: &str = "1";
/// No record is larger.
const MAX_FILE: u64 = 1 << 30;

/// Under what something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    fn new(what: &str, parts: &[&str]) -> Self {
        Self(parts.iter().fold(Parts::default().with(what).with(VERSION), |d, p| d.with(p)).finish())
    }
}

/// What a latent depends on.
#[derive(Debug, Clone, Copy)]
pub struct LatentKey<'a> {
    /// Digest of the image's file: [`super::Opened::sha256`].
    pub image: &'a str,
    /// Width and height in pixels.
    pub resolution: (u32, u32),
    /// Whether it is mirrored.
    pub flip: bool,
    /// Digest of the encoder's weights.
    pub encoder: &'a str,
    /// The numbers that it computes in: `f32`, ...
    pub format: &'a str,
}

impl LatentKey<'_> {
    /// The key.
    pub fn key(&self) -> Key {
        let (w, h) = self.resolution;
        let parts =
            [self.image, &format!("{w}x{h}"), if self.flip { "flip" } else { "" }, self.encoder, self.format];
        Key::new("latent", &parts)
    }
}

/// What a text's embedding depends on.
#[derive(Debug, Clone, Copy)]
pub struct TextKey<'a> {
    /// The text.
    pub caption: &'a str,
    /// Digest of the tokenizer's files.
    pub tokenizer: &'a str,
    /// Digest of the encoder's weights.
    pub encoder: &'a str,
    /// Layers from the last that are left out.
    pub clip_skip: u32,
    /// The numbers that it computes in: `f32`, ...
    pub format: &'a str,
}

impl TextKey<'_> {
    /// The key.
    pub fn key(&self) -> Key {
        let skip = self.clip_skip.to_string();
        Key::new("text", &[self.caption, self.tokenizer, self.encoder, &skip, self.format])
    }
}

/// How a cache served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Found.
    pub hits: u64,
    /// Not found, or not trusted.
    pub misses: u64,
    /// Files that were not trusted, by name.
    pub remarks: Vec<Remark>,
}

/// A cache in a folder, or none. Any number of threads and processes may use one folder at once.
#[derive(Debug, Default)]
pub struct Cache {
    folder: Option<PathBuf>,
    hits: AtomicU64,
    misses: AtomicU64,
    remarks: Mutex<Vec<Remark>>,
}

impl Cache {
    /// The cache in `folder`, which is made if need be; `None` keeps nothing.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(folder: Option<&Path>) -> Result<Self> {
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(|e| cannot_keep(files::cannot_write(folder, e)))?;
        }
        Ok(Self { folder: folder.map(Path::to_path_buf), ..Self::default() })
    }

    fn path(&self, key: &Key) -> Option<PathBuf> {
        let name = hex(&key.0);
        Some(self.folder.as_ref()?.join(&name[..2]).join(format!("{name}.bin")))
    }

    /// Whether there is something under a key, not whether it can be trusted: to estimate work by.
    pub fn has(&self, key: &Key) -> bool {
        self.path(key).is_some_and(|p| p.is_file())
    }

    /// What is kept under a key. A file that is damaged or foreign is as good as none, and remarked on.
    pub fn get(&self, key: &Key) -> Option<Record> {
        let found = self.path(key).and_then(|path| self.read(&path, key));
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn read(&self, path: &Path, key: &Key) -> Option<Record> {
        let refused = |reason: String| {
            let file = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            let remark = Remark { file, text: format!("is made again: {reason}") };
            self.remarks.lock().unwrap_or_else(PoisonError::into_inner).push(remark);
        };
        let bytes = match std::fs::metadata(path).map(|m| m.is_file() && m.len() <= MAX_FILE) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
            Ok(false) => {
                refused("it is no file of this cache".into());
                return None;
            }
            _ => std::fs::read(path),
        };
        let record = bytes.map_err(|e| e.to_string());
        let record = record.and_then(|b| Record::from_bytes(&b, &key.0).map_err(String::from));
        record.map_err(refused).ok()
    }

    /// Keeps a record under a key.
    ///
    /// # Errors
    /// The disk is full, or the folder not writable.
    pub fn put(&self, key: &Key, record: &Record) -> Result<()> {
        let Some(path) = self.path(key) else { return Ok(()) };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| cannot_keep(files::cannot_write(folder, e)))?;
        }
        files::write_atomic(&path, &record.to_bytes(&key.0)).map_err(cannot_keep)
    }

    /// What is kept under a key, or what `compute` gives, which is kept then.
    ///
    /// # Errors
    /// Those of `compute`, and of [`Self::put`].
    pub fn get_or(&self, key: &Key, compute: impl FnOnce() -> Result<Record>) -> Result<Record> {
        if let Some(found) = self.get(key) {
            return Ok(found);
        }
        let record = compute()?;
        self.put(key, &record)?;
        Ok(record)
    }

    /// How it has served so far.
    pub fn report(&self) -> Report {
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        remarks.sort();
        Report {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            remarks,
        }
    }
}

fn cannot_keep(e: Error) -> Error {
    e.of_kind(ErrorKind::Environment).hint("name another folder for the cache, or train without one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Dir;

    fn record(v: f32) -> Record {
        Record::default().with("mean", &[1, 2], vec![v, 2.0]).unwrap()
    }

    fn key(caption: &str) -> Key {
        TextKey { caption, tokenizer: "t", encoder: "e", clip_skip: 0, format: "f32" }.key()
    }

    fn computed_again(cache: &Cache, key: &Key) -> bool {
        let mut ran = false;
        let found = cache.get_or(key, || {
            ran = true;
            Ok(record(1.0))
        });
        assert_eq!(found.unwrap(), record(1.0));
        ran
    }

    #[test]
    fn what_was_computed_once_is_found_also_by_the_next_process() {
        let dir = Dir::new();
        let cache = Cache::open(Some(dir.path())).unwrap();
        assert!(!cache.has(&key("a")));
        assert!(computed_again(&cache, &key("a")) && !computed_again(&cache, &key("a")));
        let next = Cache::open(Some(dir.path())).unwrap();
        assert!(next.has(&key("a")) && !computed_again(&next, &key("a")) && computed_again(&next, &key("b")));
        assert_eq!(next.report(), Report { hits: 1, misses: 1, remarks: vec![] });
    }

    #[test]
    fn a_damaged_or_foreign_file_is_made_again_and_told() {
        let dir = Dir::new();
        let cache = Cache::open(Some(dir.path())).unwrap();
        let path = cache.path(&key("a")).unwrap();
        let whole = record(1.0).to_bytes(&key("a").0);
        let mut flipped = whole.clone();
        flipped[90] ^= 1;
        let of_another = record(9.0).to_bytes(&key("b").0);
        for bad in [
            &whole[..50],
            &flipped,
            &of_another,
            b"",
            b"\x89PNG of somebody, and long enough for a head to be in it",
        ] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bad).unwrap();
            assert!(computed_again(&cache, &key("a")));
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        assert_eq!(cache.report().remarks.len(), 5);
    }

    #[test]
    fn a_failed_computation_leaves_nothing() {
        let dir = Dir::new();
        let cache = Cache::open(Some(dir.path())).unwrap();
        assert!(cache.get_or(&key("a"), || Err(Error::cancelled())).is_err());
        assert!(!cache.has(&key("a")));
    }

    #[test]
    fn no_cache_keeps_nothing() {
        let cache = Cache::open(None).unwrap();
        assert!(computed_again(&cache, &key("a")) && computed_again(&cache, &key("a")));
        assert_eq!((cache.report().misses, cache.has(&key("a"))), (2, false));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_in_words() {
        let dir = Dir::new();
        dir.put("file", "");
        let e = Cache::open(Some(&dir.path().join("file/cache"))).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Environment);
        assert!(e.hints().iter().any(|h| h.contains("train without")));
        let cache = Cache::open(Some(&dir.path().join("cache"))).unwrap();
        dir.put(&format!("cache/{}", &hex(&key("a").0)[..2]), "a file where a folder should be");
        let e = cache.get_or(&key("a"), || Ok(record(1.0))).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Environment);
    }

    #[test]
    fn everything_that_a_value_depends_on_is_in_its_key() {
        let latent =
            LatentKey { image: "i", resolution: (512, 256), flip: false, encoder: "e", format: "f32" };
        let text = TextKey { caption: "c", tokenizer: "t", encoder: "e", clip_skip: 0, format: "f32" };
        let keys = [
            latent.key(),
            LatentKey { image: "j", ..latent }.key(),
            LatentKey { resolution: (256, 512), ..latent }.key(),
            LatentKey { flip: true, ..latent }.key(),
            LatentKey { encoder: "f", ..latent }.key(),
            LatentKey { format: "f16", ..latent }.key(),
            text.key(),
            TextKey { caption: "d", ..text }.key(),
            TextKey { tokenizer: "u", ..text }.key(),
            TextKey { encoder: "f", ..text }.key(),
            TextKey { clip_skip: 1, ..text }.key(),
            TextKey { format: "f16", ..text }.key(),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }

    #[test]
    fn many_threads_may_want_the_same() {
        let dir = Dir::new();
        let cache = Cache::open(Some(dir.path())).unwrap();
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    (0..20).for_each(|i| {
                        let found = cache.get_or(&key(&(i % 5).to_string()), || Ok(record(1.0)));
                        assert_eq!(found.unwrap(), record(1.0));
                    })
                });
            }
        });
        assert!(cache.report().remarks.is_empty());
    }
}
