//! Locks between processes: what two of them want is fetched by one.

use super::pull::Watch;
use crate::fsx;
use atelier_sdk::{Error, Result};
use std::fs::{File, TryLockError};
use std::path::Path;

/// A file that is locked until this is dropped. It stays: removing it would let two hold "the" lock.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "closing it unlocks it")] File);

impl Lock {
    /// Waits for the lock at `path`. As huggingface_hub's, it is an advisory lock of the whole file.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub fn take(path: &Path, watch: &mut dyn Watch) -> Result<Self> {
        folder_of(path)?;
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|e| fsx::cannot_write(path, e))?;
        let failed = |e| {
            Error::io(format!("cannot lock {}", path.display()), e)
                .hint("is it on a network file system without locks?")
        };
        match file.try_lock() {
            Ok(()) => return Ok(Self(file)),
            Err(TryLockError::WouldBlock) => watch.note("waiting for another process that fetches this file"),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        file.lock().map_err(failed)?;
        Ok(Self(file))
    }
}

/// Makes the folder of a file.
///
/// # Errors
/// It cannot be made.
pub fn folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| fsx::cannot_write(folder, e))
}
