//! Files: nothing is ever half-written.

use atelier_sdk::{Error, ErrorKind, Result};
use std::path::Path;

pub use atelier_sdk::files::{cannot_write, sync_folder, write_atomic, write_private};

/// Largest text file (preset, manifest, parameters) that is read.
pub const MAX_TEXT: u64 = 4 << 20;

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

/// Makes the folder of a file that is to be written later, and looks whether it can be.
///
/// # Errors
/// Why not.
pub fn folder_for(file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    if !folder.as_os_str().is_empty() {
        std::fs::create_dir_all(folder).map_err(|e| cannot_write(folder, e))?;
    }
    check_writable(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_not_text_is_refused_with_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, b"ok \xff").unwrap();
        let e = read_text("preset", &path).unwrap_err();
        assert!(e.message().contains("byte 3"), "{e}");
    }
}
