//! Files that appear together or not at all.

use atelier_sdk::files::{AtomicFile, cannot_write};
use atelier_sdk::{Error, ErrorKind, Result};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that is to be written.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) content: Vec<u8>,
}

/// Writes files, and before them the folders that are not there. All content is on the disk before the first file has
/// its name; if it cannot be, nothing is left, folders neither.
///
/// # Errors
/// A place is not writable or has something else than a file, the disk is full.
pub(super) fn write(folders: &[PathBuf], files: Vec<File>) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    let written = make(folders, &mut made).and_then(|()| name_all(&files));
    if written.is_err() {
        // Only empty ones can be removed, and whatever went wrong says more than this could.
        made.iter().rev().for_each(|folder| drop(fs::remove_dir(folder)));
    }
    written.map(|()| files.into_iter().map(|file| file.path).collect())
}

fn make(folders: &[PathBuf], made: &mut Vec<PathBuf>) -> Result<()> {
    for folder in folders.iter().filter(|folder| !folder.is_dir()) {
        fs::create_dir(folder).map_err(|e| failed(format!("cannot make {}", folder.display()), e))?;
        made.push(folder.clone());
    }
    Ok(())
}

fn failed(message: String, e: io::Error) -> Error {
    Error::io(message, e).of_kind(ErrorKind::Environment)
}

fn name_all(files: &[File]) -> Result<()> {
    let ready = files.iter().map(ready).collect::<Result<Vec<_>>>()?;
    ready.into_iter().try_for_each(AtomicFile::commit)
}

/// The file under another name, its content on the disk.
fn ready(file: &File) -> Result<AtomicFile> {
    refuse_folder(&file.path)?;
    let mut out = AtomicFile::create(&file.path)?;
    let written = out.write_all(&file.content).and_then(|()| out.file().sync_all());
    written.map_err(|e| cannot_write(&file.path, e))?;
    Ok(out)
}

/// A folder of that name would be found out by the last step, when others are done.
fn refuse_folder(path: &Path) -> Result<()> {
    match path.is_dir() {
        true => Err(cannot_write(path, io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"))),
        false => Ok(()),
    }
}
