//! Digests of large files: each is read once, and again when it looks different.

mod index;

pub use index::{Fingerprint, Index};

use crate::{fsx, paths};
use atelier_sdk::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

/// The SHA-256 of a file, in lower case.
///
/// # Errors
/// The file cannot be read.
pub fn of_file(path: &Path) -> Result<String> {
    let failed = |e| Error::io(format!("cannot read {}", path.display()), e);
    let real = path.canonicalize().map_err(failed)?;
    let mut file = File::open(&real).map_err(failed)?;
    let before = Fingerprint::of(&file.metadata().map_err(failed)?);
    let folder = paths::cache_dir().map(|cache| cache.join("digests"));
    let mut index = folder.as_deref().map(Index::load);
    if let Some(sha256) = index.as_ref().and_then(|index| index.find(&real, &before)) {
        return Ok(sha256.into());
    }
    let (sha256, _) = read(&mut file).map_err(failed)?;
    let after = Fingerprint::of(&file.metadata().map_err(failed)?);
    if let (Some(index), Some(folder)) = (&mut index, &folder)
        && after == before
        && fsx::private_folder(folder).is_ok()
    {
        index.remember(&real, before, &sha256, SystemTime::now());
        index.save();
    }
    Ok(sha256)
}

/// The SHA-256 of a file and its length, read now whatever is remembered.
///
/// # Errors
/// The file cannot be read.
pub fn read_anew(path: &Path) -> Result<(String, u64)> {
    let failed = |e| Error::io(format!("cannot read {}", path.display()), e);
    read(&mut File::open(path).map_err(failed)?).map_err(failed)
}

fn read(file: &mut File) -> std::io::Result<(String, u64)> {
    let (mut hasher, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hex(&hasher.finalize()), length)),
            n => {
                hasher.update(&buffer[..n]);
                length += n as u64;
            }
        }
    }
}

/// Bytes as digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_digest_of_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_file(&path).unwrap(), abc);
        assert_eq!(read_anew(&path).unwrap(), (abc.to_string(), 3));
        std::fs::write(&path, b"abd").unwrap();
        assert_ne!(of_file(&path).unwrap(), abc);
        assert!(of_file(&dir.path().join("b")).is_err());
    }
}
