//! Files: nothing is ever half-written.

use atelier_sdk::{Error, ErrorKind, Result};
use std::io::Write;
use std::path::Path;

/// Largest text file (preset, manifest, parameters) that is read.
pub const MAX_TEXT: u64 = 4 << 20;

/// Writes a file as a whole: temporary file in the same folder, fsync, rename, fsync of the folder.
///
/// # Errors
/// The folder is not writable, the disk is full; the old file is untouched then and no temporary file stays.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    // Results are ordinary files: readable by whom the umask lets, unlike most temporary files.
    write_with_mode(path, content, 0o666)
}

/// Like [`write_atomic`], for a file that is nobody else's business (mode 0600).
///
/// # Errors
/// As for [`write_atomic`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    write_with_mode(path, content, 0o600)
}

fn write_with_mode(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e| cannot_write(path, e);
    let mut file = temporary(folder, mode).map_err(failed)?;
    file.write_all(content).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    sync_folder(folder);
    Ok(())
}

/// The error for a place that cannot be written: the machine's refusal, whatever its reason.
pub fn cannot_write(path: &Path, e: std::io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()), e).of_kind(ErrorKind::Environment)
}

fn temporary(folder: &Path, mode: u32) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".atelier-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder.tempfile_in(folder)
}

/// Makes a folder and those above it that are missing, for its owner alone (mode 0700).
///
/// # Errors
/// It cannot be made.
pub fn private_folder(folder: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| cannot_write(folder, e))
}

/// Makes a rename durable. Not every file system can, and the content is safe without it.
pub fn sync_folder(folder: &Path) {
    if let Ok(dir) = std::fs::File::open(folder) {
        let _ = dir.sync_all();
    }
}

/// Reads a text file of reasonable size.
///
/// # Errors
/// Missing, unreadable, larger than [`MAX_TEXT`], not UTF-8.
pub fn read_text(what: &str, path: &Path) -> Result<String> {
    let say = || format!("cannot read {what} {}", path.display());
    let size = std::fs::metadata(path).map_err(|e| Error::io(say(), e))?.len();
    if size > MAX_TEXT {
        return Err(Error::new(ErrorKind::Corrupt, format!("{what} {} has {size} bytes", path.display()))
            .hint(format!("at most {MAX_TEXT} are read; is this the right file?")));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(say(), e))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::new(ErrorKind::Corrupt, format!("{what} {} is not UTF-8 text (byte {at})", path.display()))
    })
}

/// Whether files can be made in `folder`, or in its nearest existing parent if it does not exist yet.
///
/// # Errors
/// Why not.
pub fn check_writable(folder: &Path) -> Result<()> {
    let existing = folder.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    tempfile::tempfile_in(existing).map(drop).map_err(|e| cannot_write(existing, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, b"one").unwrap();
        std::fs::create_dir(dir.path().join("b")).unwrap();
        // A folder cannot be replaced by a file.
        assert!(write_atomic(&dir.path().join("b"), b"two").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn text_that_is_not_text_is_refused_with_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, b"ok \xff").unwrap();
        let e = read_text("preset", &path).unwrap_err();
        assert!(e.message().contains("byte 3"), "{e}");
    }
}
