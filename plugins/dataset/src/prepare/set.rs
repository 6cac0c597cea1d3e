//! A prepared set on disk: its list of files, and what belongs to it.

use super::{MANIFEST, PROTOTYPE};
use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The version of manifests that is written and read.
pub const VERSION: u32 = 1;

/// An image of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Digest of the file.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// What it was made of: content, settings, version.
    pub key: String,
    /// The name of the photo.
    pub source: String,
    /// Digest of the photo's file.
    pub source_sha256: String,
    /// The id of the first photo that shows the same.
    pub group: String,
}

/// The list of a set's files: written last, so that a set that has one is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub schema_version: u32,
    /// Side of the squares.
    pub size: u32,
    /// Parts in order, without the prototype.
    pub parts: Vec<String>,
    /// Fields that the parts were stratified by.
    pub stratify: Vec<String>,
    /// Images by their place below the set's folder.
    pub images: BTreeMap<String, ImageFile>,
    /// Other files, with digests.
    pub files: BTreeMap<String, String>,
}

impl Manifest {
    /// The manifest of a set.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let bytes = std::fs::read(&path).map_err(|e| {
            Error::io(format!("cannot read {}", path.display()), e)
                .hint("is this a prepared set? `dataset prepare` writes the manifest last: run it again")
        })?;
        let what = || format!("{} is damaged", path.display());
        let manifest: Self = serde_json::from_slice(&bytes).kind(ErrorKind::Corrupt, what)?;
        if manifest.schema_version != VERSION {
            let what = format!("{} has version {}", path.display(), manifest.schema_version);
            return Err(
                Error::new(ErrorKind::Unsupported, what).hint(format!("this build reads version {VERSION}"))
            );
        }
        if let Some(bad) = manifest.images.keys().chain(manifest.files.keys()).find(|f| !stays_inside(f)) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{} names {bad:?}, which is outside", path.display()),
            ));
        }
        Ok(manifest)
    }

    /// All folders with images.
    pub fn folders(&self) -> Vec<&str> {
        self.parts.iter().map(String::as_str).chain([PROTOTYPE]).collect()
    }
}

/// Whether a relative path with `/` stays below its folder.
pub fn stays_inside(file: &str) -> bool {
    !file.is_empty()
        && file
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_leads_outside_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["../a.png", "/etc/passwd", "train/../../b.png", "a\\b", "C:/x", ""] {
            assert!(!stays_inside(file), "{file}");
        }
        let text = r#"{"schema_version":1,"size":8,"parts":["train"],"stratify":[],"images":{},"files":{"../x":"00"}}"#;
        std::fs::write(dir.path().join(MANIFEST), text).unwrap();
        assert!(Manifest::read(dir.path()).unwrap_err().message().contains("outside"));
        std::fs::write(dir.path().join(MANIFEST), text.replace("../x", "x")).unwrap();
        assert!(Manifest::read(dir.path()).is_ok());
        std::fs::write(dir.path().join(MANIFEST), &text[..40]).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
