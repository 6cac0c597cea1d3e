//! Which digest a file had when it was last read, so that big files are not read at every start.
//!
//! Nothing is trusted because of the index: what is loaded of a plugin is always the copy, and that is checked against
//! its digest. A wrong entry can only name another digest, which then has to be a trusted one. A damaged index
//! is therefore no error; it is written anew.

use crate::fsx;
use crate::plugins::manifest::is_sha256;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const SCHEMA_VERSION: u64 = 1;
const FILE: &str = "index.json";
/// A file may change once more within one tick of its file system's clock without looking changed. The coarsest
/// clock, FAT's, ticks every two seconds.
const TICK: i64 = 2;

/// What changes whenever a file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
}

impl Fingerprint {
    /// Of a file that is open, or was just looked at.
    #[cfg(unix)]
    pub fn of(meta: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            len: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
        }
    }

    /// Of a file that is open, or was just looked at.
    #[cfg(not(unix))]
    pub fn of(meta: &Metadata) -> Self {
        let modified = meta.modified().unwrap_or(UNIX_EPOCH);
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified = (since.as_secs() as i64, i64::from(since.subsec_nanos()));
        Self { len: meta.len(), modified, changed: modified, inode: 0 }
    }

    /// Whether the last change is long enough ago that a further one would show.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default();
        let last = self.modified.0.max(self.changed.0);
        i64::try_from(now).is_ok_and(|now| last.saturating_add(TICK) < now)
    }

    /// Bytes in the file.
    pub fn size(&self) -> u64 {
        self.len
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    fingerprint: Fingerprint,
    sha256: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    schema_version: u64,
    files: BTreeMap<String, Entry>,
}

/// The index of a cache folder.
#[derive(Debug)]
pub struct Index {
    file: PathBuf,
    document: Document,
}

impl Index {
    /// Reads the index of a folder; without one, or with a damaged one, it is empty.
    pub fn load(folder: &Path) -> Self {
        let file = folder.join(FILE);
        let text = fsx::read_text("index of digests", &file).unwrap_or_default();
        let mut document: Document = serde_json::from_str(&text).unwrap_or_default();
        if document.schema_version != SCHEMA_VERSION {
            document = Document { schema_version: SCHEMA_VERSION, files: BTreeMap::new() };
        }
        // Digests become file names.
        document.files.retain(|_, entry| is_sha256(&entry.sha256));
        Self { file, document }
    }

    /// The digest of a file, if it was read when it looked like this.
    pub fn find(&self, real: &Path, fingerprint: &Fingerprint) -> Option<&str> {
        let entry = self.document.files.get(real.to_str()?)?;
        (entry.fingerprint == *fingerprint).then_some(entry.sha256.as_str())
    }

    /// Remembers the digest of a file, unless it changed too recently to tell a further change.
    pub fn remember(&mut self, real: &Path, fingerprint: Fingerprint, sha256: &str, now: SystemTime) {
        if let Some(path) = real.to_str().filter(|_| fingerprint.is_settled(now)) {
            self.document.files.insert(path.into(), Entry { fingerprint, sha256: sha256.into() });
        }
    }

    /// Forgets files that are gone, and writes what is left. A failure costs only time later on.
    pub fn save(&mut self) {
        self.document.files.retain(|path, _| Path::new(path).exists());
        let text = serde_json::to_vec_pretty(&self.document).unwrap_or_default();
        if let Err(e) = fsx::write_private(&self.file, &text) {
            tracing::debug!(error = ?e, "the index of digests is not written");
        }
    }

    /// All digests in it.
    pub fn digests(&self) -> BTreeSet<&str> {
        self.document.files.values().map(|e| e.sha256.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    fn place() -> (tempfile::TempDir, PathBuf, Fingerprint) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.so");
        std::fs::write(&file, "abc").unwrap();
        let print = Fingerprint::of(&std::fs::metadata(&file).unwrap());
        (dir, file, print)
    }

    #[test]
    fn a_file_is_found_until_it_looks_different() {
        let (dir, file, print) = place();
        let sha = "a".repeat(64);
        let mut index = Index::load(dir.path());
        index.remember(&file, print, &sha, later());
        index.save();
        let index = Index::load(dir.path());
        assert_eq!(index.find(&file, &print), Some(sha.as_str()));
        assert_eq!(index.find(&file, &Fingerprint { inode: print.inode + 1, ..print }), None);
        assert_eq!(index.find(&dir.path().join("b.so"), &print), None);
    }

    #[test]
    fn a_file_that_changed_just_now_is_not_remembered() {
        let (dir, file, print) = place();
        let mut index = Index::load(dir.path());
        index.remember(&file, print, &"a".repeat(64), SystemTime::now());
        assert_eq!(index.find(&file, &print), None);
    }

    #[test]
    fn files_that_are_gone_are_forgotten() {
        let (dir, file, print) = place();
        let mut index = Index::load(dir.path());
        index.remember(&file, print, &"a".repeat(64), later());
        std::fs::remove_file(&file).unwrap();
        index.save();
        assert!(Index::load(dir.path()).digests().is_empty());
    }

    #[test]
    fn a_damaged_index_is_an_empty_one() {
        let (dir, file, print) = place();
        let mut index = Index::load(dir.path());
        index.remember(&file, print, "../../x", later());
        index.save();
        let with_wrong_digest = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let newer = "{\"schema_version\": 2, \"files\": {}}";
        for text in [with_wrong_digest.as_str(), "", "{", "[1]", newer, &with_wrong_digest[..40]] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(Index::load(dir.path()).find(&file, &print), None, "{text}");
        }
    }
}
