//! Where pulled models are, and what is known of their files.
//!
//! ```text
//! $ATELIER_MODELS or <user's data>/models/<key>/
//!   v1-5.safetensors ─▶ <hub cache>/models--owner--name/snapshots/<commit>/v1-5.safetensors
//!   .pulled.json        digest, length and source of each file
//! ```

use crate::{fsx, paths};
use atelier_sdk::{Error, ErrorKind, ModelSpec, Result, ResultExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::env;
use std::path::{Component, Path, PathBuf};

/// The variable that names another folder for pulled models.
pub const VARIABLE: &str = "ATELIER_MODELS";
const RECORD: &str = ".pulled.json";
const SCHEMA_VERSION: u32 = 1;

/// The folder of a pulled model.
///
/// # Errors
/// The user has no data folder.
pub fn folder(key: &str) -> Result<PathBuf> {
    let named = env::var_os(VARIABLE).map(PathBuf::from).filter(|p| p.is_absolute());
    named.or_else(|| paths::user_data_dir().map(|d| d.join("models"))).map(|d| d.join(key)).ok_or_else(|| {
        Error::new(ErrorKind::Environment, "there is no place for pulled models")
            .hint(format!("set {VARIABLE}, HOME or XDG_DATA_HOME"))
    })
}

/// Where a model with files to pull is: the file if there is one, else the folder.
///
/// # Errors
/// The user has no data folder.
pub fn place(spec: &ModelSpec) -> Result<PathBuf> {
    let folder = folder(&spec.key)?;
    Ok(match spec.files.as_slice() {
        [one] => folder.join(&one.path),
        _ => folder,
    })
}

/// Whether all files of a model are there; for one with files to pull, whether each of those is.
pub fn is_complete(spec: &ModelSpec) -> bool {
    let Some(path) = spec.path.as_deref().filter(|p| p.exists()) else { return false };
    match folder(&spec.key) {
        Ok(folder) if path.starts_with(&folder) => spec.files.iter().all(|f| folder.join(&f.path).is_file()),
        _ => true,
    }
}

/// Whether a path of a description stays below the folder it is meant for.
pub fn stays_inside(path: &str) -> bool {
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
    !path.is_empty() && !path.contains('\\') && Path::new(path).components().all(plain)
}

/// What was pulled.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    schema_version: u32,
    /// By the path in the model's folder.
    pub files: BTreeMap<String, Pulled>,
}

/// A file that was pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// Its digest, in lower case.
    pub sha256: String,
    /// Its length in bytes.
    pub size: u64,
    /// Where it came from.
    pub from: String,
}

impl Record {
    /// Reads the record of a model's folder; there is none before the first pull.
    ///
    /// # Errors
    /// Unreadable, or not a record.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(RECORD);
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fsx::read_text("record of pulled files", &path)?;
        serde_json::from_str(&text)
            .kind(ErrorKind::Corrupt, || format!("{} is not a record of pulled files", path.display()))
            .map_err(|e| e.hint("remove it and pull the model again"))
    }

    /// Writes it.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&mut self, folder: &Path) -> Result<()> {
        self.schema_version = SCHEMA_VERSION;
        let text = serde_json::to_string_pretty(self).internal("a record that is not JSON")?;
        fsx::write_atomic(&folder.join(RECORD), text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_out_is_told() {
        for bad in ["", "/a", "../a", "a/../b", "./a", "a\\b"] {
            assert!(!stays_inside(bad), "{bad}");
        }
        assert!(stays_inside("unet/config.json"));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), Record::default());
        let mut record = Record::default();
        record.files.insert("a".into(), Pulled { sha256: "0".into(), size: 3, from: "u".into() });
        record.save(dir.path()).unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), record);
        std::fs::write(dir.path().join(RECORD), "[]").unwrap();
        assert_eq!(Record::load(dir.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
