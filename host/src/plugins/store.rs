//! What is loaded is never the file that was found but a copy of the bytes that were hashed.
//!
//! ```text
//! libheun.so ─ read once ─┬▶ sha256 ─▶ trusted?
//!                         └▶ <cache>/plugins/<sha256>.so ─ verify ─▶ load
//! ```
//!
//! So nothing can change between the look and the load, and a library that is replaced while it is in use
//! (which macOS punishes by killing the process) never is: the copy keeps its content and its name.

use super::manifest::is_sha256;
use super::safety;
use crate::digests::{Fingerprint, Index, hex};
use crate::fsx;
use atelier_sdk::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::env::consts;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Largest library that is taken.
pub const MAX_LIBRARY: u64 = 1 << 30;
const CHUNK: u64 = 1 << 16;
/// Copies that no file in the index has any more are kept this long.
const KEEP: Duration = Duration::from_secs(7 * 86_400);

/// A library whose bytes are in the cache under their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The digest, in lower case.
    pub sha256: String,
    /// The copy. Others may have damaged the cache since: [`verify`] it when it is used.
    pub copy: PathBuf,
}

/// The digest of a library, without a copy of it.
///
/// # Errors
/// Unreadable, larger than [`MAX_LIBRARY`], or not a shared library.
pub fn digest(library: &Path, cache: &Path) -> Result<String> {
    let (real, mut source) = open(library)?;
    let before = fingerprint(&source, library)?;
    if before.size() > MAX_LIBRARY {
        return Err(too_large(library));
    }
    let folder = cache_folder(cache)?;
    let mut index = Index::load(&folder);
    if let Some(sha256) = index.find(&real, &before) {
        return Ok(sha256.into());
    }
    let sha256 = hash(&mut source, library, |_| Ok(()))?;
    if fingerprint(&source, library)? == before {
        index.remember(&real, before, &sha256, SystemTime::now());
        index.save();
    }
    Ok(sha256)
}

/// Copies a library into the cache, under its digest.
///
/// A file that looks as it did when it was last read is not read again if its copy is still there.
///
/// # Errors
/// Unreadable, larger than [`MAX_LIBRARY`], not a shared library, or the cache cannot be written.
pub fn take(library: &Path, cache: &Path) -> Result<Stored> {
    take_at(library, cache, SystemTime::now())
}

fn take_at(library: &Path, cache: &Path, now: SystemTime) -> Result<Stored> {
    let (real, mut source) = open(library)?;
    let before = fingerprint(&source, library)?;
    if before.size() > MAX_LIBRARY {
        return Err(too_large(library));
    }
    let folder = cache_folder(cache)?;
    let mut index = Index::load(&folder);
    if let Some(sha256) = index.find(&real, &before) {
        let copy = copy_path(&folder, sha256);
        if std::fs::symlink_metadata(&copy).is_ok_and(|m| m.is_file() && m.len() == before.size()) {
            return Ok(Stored { sha256: sha256.into(), copy });
        }
    }
    let stored = copy_into(&folder, &mut source, library)?;
    if fingerprint(&source, library)? == before {
        index.remember(&real, before, &stored.sha256, now);
        index.save();
    }
    sweep(&folder, &index, now);
    Ok(stored)
}

fn open(library: &Path) -> Result<(PathBuf, File)> {
    let failed = |e| Error::io(format!("cannot read {}", library.display()), e);
    let real = library.canonicalize().map_err(failed)?;
    let mut options = OpenOptions::new();
    options.read(true);
    // A pipe would otherwise wait for someone to write into it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(&real).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::new(ErrorKind::Corrupt, format!("{} is not a regular file", library.display()))
            .hint("name the library itself"));
    }
    Ok((real, file))
}

fn fingerprint(file: &File, library: &Path) -> Result<Fingerprint> {
    let meta = file.metadata().map_err(|e| Error::io(format!("cannot look at {}", library.display()), e))?;
    Ok(Fingerprint::of(&meta))
}

fn too_large(library: &Path) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{} is larger than {MAX_LIBRARY} bytes", library.display()))
        .hint("no plugin is that large; is this the right file?")
}

/// The folder of the copies, made if it is missing, closed to everyone else.
fn cache_folder(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("plugins");
    fsx::private_folder(&folder)?;
    let folder = folder.canonicalize().map_err(|e| fsx::cannot_write(&folder, e))?;
    // First closed, then looked at: a folder of one's own that was open is put right.
    #[cfg(unix)]
    let _ = std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700));
    safety::folder(&folder)
        .map_err(|e| e.hint("set XDG_CACHE_HOME to a folder of your own to keep the cache there"))
}

fn copy_path(folder: &Path, sha256: &str) -> PathBuf {
    folder.join(format!("{sha256}.{}", consts::DLL_EXTENSION))
}

/// Reads a library once: its digest, and each part of it to `keep`.
fn hash(source: &mut File, library: &Path, mut keep: impl FnMut(&[u8]) -> Result<()>) -> Result<String> {
    let mut hash = Sha256::new();
    let mut total = 0u64;
    each_chunk(source, library, |chunk| {
        if total == 0
            && let Some(problem) = first_bytes_problem(chunk)
        {
            return Err(problem.context(format!("cannot use {}", library.display())));
        }
        total += chunk.len() as u64;
        if total > MAX_LIBRARY {
            return Err(too_large(library));
        }
        hash.update(chunk);
        keep(chunk)
    })?;
    Ok(hex(&hash.finalize()))
}

/// The bytes go to the copy as they are hashed: whatever happens to the file, the two agree. The copy is always
/// a new file put in the place of an older one, never written over it: that one may be in use.
fn copy_into(folder: &Path, source: &mut File, library: &Path) -> Result<Stored> {
    let failed = |e| fsx::cannot_write(folder, e);
    let mut temp = tempfile::Builder::new().prefix(".taking-").tempfile_in(folder).map_err(failed)?;
    let sha256 = hash(source, library, |chunk| temp.write_all(chunk).map_err(failed))?;
    let copy = copy_path(folder, &sha256);
    #[cfg(unix)]
    temp.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o500)).map_err(failed)?;
    temp.as_file().sync_all().map_err(failed)?;
    temp.persist(&copy).map_err(|e| failed(e.error))?;
    fsx::sync_folder(folder);
    Ok(Stored { sha256, copy })
}

/// Hands the content on in pieces: whole ones up to the last, and one that is empty for an empty file.
fn each_chunk(file: &mut File, path: &Path, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        let read = Read::take(&mut *file, CHUNK).read_to_end(&mut chunk);
        read.map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
        each(&chunk)?;
        if (chunk.len() as u64) < CHUNK {
            return Ok(());
        }
    }
}

/// Removes old copies that no known file has any more; best effort.
fn sweep(folder: &Path, index: &Index, now: SystemTime) {
    let known = index.digests();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let stem = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
        let ours = is_sha256(stem) || name.starts_with(".taking-") || name.starts_with(".atelier-");
        let modified = entry.metadata().and_then(|m| m.modified()).unwrap_or(now);
        let is_old = now.duration_since(modified).is_ok_and(|age| age > KEEP);
        if ours && is_old && !known.contains(stem) {
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Checks that a copy still is what its digest says, and that nobody else can change it.
///
/// A copy that is not is removed, for the next [`take`] to make it again.
///
/// # Errors
/// Missing, unreadable, others can write it, or [`ErrorKind::Corrupt`] with both digests.
pub fn verify(copy: &Path, sha256: &str) -> Result<()> {
    safety::file(copy)?;
    let (_, mut file) = open(copy)?;
    let mut hash = Sha256::new();
    each_chunk(&mut file, copy, |chunk| {
        hash.update(chunk);
        Ok(())
    })?;
    let found = hex(&hash.finalize());
    if found == sha256 {
        return Ok(());
    }
    let is_copy = copy.file_stem().is_some_and(|stem| stem == sha256);
    let removed = is_copy && std::fs::remove_file(copy).is_ok();
    let err = Error::new(ErrorKind::Corrupt, format!("{} has been changed or is damaged", copy.display()))
        .because(format!("expected sha256 {sha256}, found {found}"));
    Err(err.hint(if removed { "it was only a copy and is removed; try again" } else { "remove it" }))
}

/// What a shared library begins with on an operating system, and what that is called.
fn magics(os: &str) -> (&'static [[u8; 4]], &'static str) {
    match os {
        // Little endian thin, then the two kinds of files for several processors, big endian by definition.
        "macos" | "ios" => (
            &[[0xcf, 0xfa, 0xed, 0xfe], [0xca, 0xfe, 0xba, 0xbe], [0xca, 0xfe, 0xba, 0xbf]],
            "a Mach-O library, for macOS",
        ),
        "windows" => (&[[b'M', b'Z', 0, 0]], "a DLL, for Windows"),
        _ => (&[[0x7f, b'E', b'L', b'F']], "an ELF library, for Linux"),
    }
}

fn begins_like(bytes: &[u8], os: &str) -> bool {
    let checked = if os == "windows" { 2 } else { 4 };
    magics(os).0.iter().any(|m| bytes.get(..checked) == Some(&m[..checked]))
}

/// What is wrong with the first bytes of a file that should be a shared library for this system.
pub fn first_bytes_problem(bytes: &[u8]) -> Option<Error> {
    problem_on(consts::OS, bytes)
}

fn is_text(c: char) -> bool {
    !c.is_control() || c.is_ascii_whitespace()
}

fn problem_on(os: &str, bytes: &[u8]) -> Option<Error> {
    if begins_like(bytes, os) {
        return None;
    }
    let (magics, name) = magics(os);
    let spaced = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    let wanted = &magics[0][..if os == "windows" { 2 } else { 4 }];
    let found = match &bytes[..bytes.len().min(8)] {
        [] => "an empty file".to_string(),
        head => match std::str::from_utf8(head).ok().filter(|t| t.chars().all(is_text)) {
            Some(text) => format!("{} (`{}`)", spaced(head), text.escape_debug()),
            None => spaced(head),
        },
    };
    let other = ["linux", "macos", "windows"].into_iter().find(|other| begins_like(bytes, other));
    let hint = match other {
        Some(other) => format!("it is {}; get the one for this system", self::magics(other).1),
        None => "build it as a cdylib, and name the library itself".to_string(),
    };
    let err = Error::new(ErrorKind::Corrupt, "not a shared library for this system")
        .because(format!("expected the first bytes {} ({name}), found {found}", spaced(wanted)));
    Some(err.hint(hint))
}

/// What a library of this system begins with, for tests that need one that is never loaded.
#[cfg(test)]
pub(crate) fn tests_magic() -> &'static [u8] {
    &magics(consts::OS).0[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something that begins like a library of this system.
    fn library(rest: &str) -> Vec<u8> {
        let mut bytes = tests_magic().to_vec();
        bytes.extend(rest.as_bytes());
        bytes
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            std::fs::write(place.file(), library("one")).unwrap();
            place
        }

        fn file(&self) -> PathBuf {
            self.0.path().join("libx.so")
        }

        fn cache(&self) -> PathBuf {
            self.0.path().join("cache")
        }

        /// Takes it long after it was changed.
        fn take(&self) -> Stored {
            take_at(&self.file(), &self.cache(), SystemTime::now() + Duration::from_secs(60)).unwrap()
        }
    }

    #[test]
    fn the_copy_holds_the_bytes_under_their_digest_for_the_user_alone() {
        let place = Place::new();
        let stored = place.take();
        assert_eq!(std::fs::read(&stored.copy).unwrap(), library("one"));
        assert_eq!(stored.sha256, hex(&Sha256::digest(library("one"))));
        assert!(stored.copy.ends_with(format!("{}.{}", stored.sha256, consts::DLL_EXTENSION)));
        verify(&stored.copy, &stored.sha256).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode(&stored.copy), 0o500);
            assert_eq!(mode(stored.copy.parent().unwrap()), 0o700);
        }
    }

    #[test]
    fn a_library_that_looks_the_same_is_not_read_again() {
        let place = Place::new();
        let first = place.take();
        // A copy of the same size that take() would put right if it read the file.
        let wrong = library("two");
        std::fs::remove_file(&first.copy).unwrap();
        std::fs::write(&first.copy, wrong).unwrap();
        assert_eq!(place.take(), first);
        let e = verify(&first.copy, &first.sha256).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt);
        assert!(e.chain()[1].contains(&first.sha256), "{:?}", e.chain());
        // It is gone now, so the next time the library is read.
        assert_eq!(place.take(), first);
        verify(&first.copy, &first.sha256).unwrap();
    }

    #[test]
    fn a_changed_library_gets_a_copy_of_its_own() {
        let place = Place::new();
        let first = place.take();
        std::fs::write(place.file(), library("three")).unwrap();
        let second = place.take();
        assert_ne!(first, second);
        verify(&first.copy, &first.sha256).unwrap();
        verify(&second.copy, &second.sha256).unwrap();
    }

    #[test]
    fn a_missing_or_short_copy_is_made_again() {
        let place = Place::new();
        let first = place.take();
        std::fs::remove_file(&first.copy).unwrap();
        assert_eq!(place.take(), first);
        std::fs::remove_file(&first.copy).unwrap();
        std::fs::write(&first.copy, "x").unwrap();
        assert_eq!(place.take(), first);
        verify(&first.copy, &first.sha256).unwrap();
    }

    #[test]
    fn old_copies_without_a_library_are_removed() {
        let place = Place::new();
        let first = place.take();
        std::fs::write(place.file(), library("three")).unwrap();
        take_at(&place.file(), &place.cache(), SystemTime::now() + KEEP * 2).unwrap();
        assert!(!first.copy.exists());
        assert!(place.take().copy.exists());
    }

    #[test]
    fn what_is_no_library_is_refused_and_leaves_nothing() {
        let place = Place::new();
        std::fs::write(place.file(), "I am a text").unwrap();
        let e = take(&place.file(), &place.cache()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt);
        let chain = e.chain().join(": ");
        assert!(chain.contains("49 20 61 6d 20 61 20 74 (`I am a t`)"), "{chain}");
        assert_eq!(std::fs::read_dir(place.cache().join("plugins")).unwrap().count(), 0);
        assert!(take(place.0.path(), &place.cache()).unwrap_err().message().contains("regular file"));
    }

    #[test]
    fn a_library_that_is_too_large_is_refused_without_being_read() {
        let place = Place::new();
        File::options().write(true).open(place.file()).unwrap().set_len(MAX_LIBRARY + 1).unwrap();
        assert!(take(&place.file(), &place.cache()).unwrap_err().message().contains("larger than"));
    }

    #[cfg(unix)]
    #[test]
    fn a_copy_that_everyone_can_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new();
        let stored = place.take();
        std::fs::set_permissions(&stored.copy, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(verify(&stored.copy, &stored.sha256).is_err());
    }

    #[test]
    fn the_first_bytes_decide_on_every_system() {
        let elf = b"\x7fELF\x02\x01";
        let thin = [0xcf, 0xfa, 0xed, 0xfe, 0];
        let fat = [0xca, 0xfe, 0xba, 0xbe, 0];
        assert!(problem_on("linux", elf).is_none());
        assert!(problem_on("macos", &thin).is_none() && problem_on("macos", &fat).is_none());
        assert!(problem_on("windows", b"MZ\x90\0").is_none());
        let e = problem_on("macos", elf).unwrap();
        assert!(e.hints()[0].contains("Linux"), "{:?}", e.hints());
        for (os, bytes) in [("linux", &b""[..]), ("linux", b"\x7fEL"), ("windows", b"M"), ("linux", &thin)] {
            assert!(problem_on(os, bytes).is_some(), "{os} {bytes:?}");
        }
        assert!(problem_on("linux", b"hi\n").unwrap().chain()[1].ends_with("68 69 0a (`hi\\n`)"));
        assert!(problem_on("linux", b"").unwrap().chain()[1].contains("an empty file"));
    }
}
