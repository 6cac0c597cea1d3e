//! Writing files: nothing is ever half-written.

use crate::error::{Error, ErrorKind, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes a file as a whole: temporary file in the same folder, fsync, rename, fsync of the folder.
///
/// # Errors
/// The folder is not writable, the disk is full; the old file is untouched then and no temporary file stays.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    AtomicFile::create(path)?.write_and_commit(content)
}

/// Like [`write_atomic`], for a file that is nobody else's business (mode 0600).
///
/// # Errors
/// As for [`write_atomic`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    AtomicFile::with_mode(path, 0o600)?.write_and_commit(content)
}

/// A file that stands under its name once it is whole, and not before: what is written goes to a temporary file
/// beside it, which [`AtomicFile::commit`] gives its name. Dropped without that, it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    named: bool,
}

impl AtomicFile {
    /// A file that is to stand at `path`, in place of what is there now.
    ///
    /// # Errors
    /// Its folder does not exist or is not writable.
    pub fn create(path: &Path) -> Result<Self> {
        // Results are ordinary files: readable by whom the umask lets.
        Self::with_mode(path, 0o666)
    }

    fn with_mode(path: &Path, mode: u32) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).read(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        loop {
            let temporary = folder_of(path).join(fresh_name());
            match options.open(&temporary) {
                Ok(file) => return Ok(Self { file, temporary, path: path.into(), named: false }),
                // Left by a process that was killed and had the number of this one.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(cannot_write(path, e)),
            }
        }
    }

    fn write_and_commit(mut self, content: &[u8]) -> Result<()> {
        self.file.write_all(content).map_err(|e| cannot_write(&self.path, e))?;
        self.commit()
    }

    /// The file that is written, for those who need more than [`Write`].
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the file its name, once its content is on the disk.
    ///
    /// # Errors
    /// The disk is full, or something that is no file has the name.
    pub fn commit(mut self) -> Result<()> {
        let failed = |e| cannot_write(&self.path, e);
        self.file.sync_all().map_err(failed)?;
        std::fs::rename(&self.temporary, &self.path).map_err(failed)?;
        self.named = true;
        sync_folder(folder_of(&self.path));
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.named {
            // Whatever went wrong before says more than this could.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Not the same for any two files of one process, nor of two processes that live at one time.
fn fresh_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!(".atelier-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The error for a place that cannot be written: the machine's refusal, whatever its reason.
pub fn cannot_write(path: &Path, e: io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()), e).of_kind(ErrorKind::Environment)
}

/// Makes a rename durable. Not every file system can, and the content is safe without it.
pub fn sync_folder(folder: &Path) {
    if let Ok(dir) = File::open(folder) {
        let _ = dir.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let dir = std::env::temp_dir().join(format!("files{}", fresh_name()));
            std::fs::create_dir(&dir).unwrap();
            Self(dir)
        }
        fn names(&self) -> Vec<String> {
            let names = std::fs::read_dir(&self.0).unwrap();
            names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let dir = Folder::new();
        let path = dir.0.join("a.txt");
        write_atomic(&path, b"one").unwrap();
        std::fs::create_dir(dir.0.join("b")).unwrap();
        // A folder cannot be replaced by a file.
        let e = write_atomic(&dir.0.join("b"), b"two").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Environment);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(dir.names().len(), 2);
    }

    #[test]
    fn a_file_that_is_given_up_leaves_the_old_one() {
        let dir = Folder::new();
        let path = dir.0.join("a.txt");
        write_atomic(&path, b"one").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half of").unwrap();
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(dir.names(), ["a.txt"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let e = write_atomic(Path::new("no/such/folder/a.txt"), b"one").unwrap_err();
        assert!(e.message().contains("no/such/folder/a.txt"), "{e}");
    }
}
