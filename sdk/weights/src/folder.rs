//! Models on disk in the layout of diffusers: a folder with a `model_index.json` and a folder for each component.

use crate::config::ConfigFile;
use crate::error::{Error, Result};
use crate::weights::Weights;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The names in a folder, sorted; at most twenty.
pub(crate) fn listing(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).take(1000).collect();
    names.sort();
    names.truncate(20);
    names
}

/// A diffusers folder.
#[derive(Clone, Debug)]
pub struct DiffusersFolder {
    root: PathBuf,
    index: ConfigFile,
}

impl DiffusersFolder {
    /// Opens the folder at `root`.
    ///
    /// Errors: no such folder, no readable `model_index.json` in it.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let path = root.join("model_index.json");
        if !path.is_file() {
            return Err(Error::MissingFile {
                folder: root.into(),
                expected: "a diffusers model with model_index.json".into(),
                found: listing(root),
            });
        }
        Ok(Self { root: root.into(), index: ConfigFile::read(path)? })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The pipeline class that wrote the folder, such as `StableDiffusionPipeline`, if it says so.
    pub fn pipeline(&self) -> Option<&str> {
        self.index.get("_class_name").and_then(Value::as_str)
    }

    /// Name, library and class of each component that is there, in the file's order.
    pub fn components(&self) -> Vec<(&str, &str, &str)> {
        let class = |name| match self.index.get(name) {
            Some(Value::Array(pair)) => match pair.as_slice() {
                [Value::String(library), Value::String(class)] => {
                    Some((name, library.as_str(), class.as_str()))
                }
                _ => None,
            },
            _ => None,
        };
        self.index.fields().filter_map(class).collect()
    }

    /// The folder of a component, such as `unet`.
    ///
    /// Errors: the model has none of this name, or its folder is missing.
    pub fn component(&self, name: &str) -> Result<ComponentFolder> {
        if !self.components().iter().any(|(known, ..)| *known == name) {
            let names: Vec<_> = self.components().iter().map(|(known, ..)| *known).collect();
            return Err(self
                .index
                .error(name, format!("expected a component, found none; there are: {}", names.join(", "))));
        }
        ComponentFolder::open(self.root.join(name))
    }
}

/// The folder of one component: its configuration, and its weights if it has any.
#[derive(Clone, Debug)]
pub struct ComponentFolder {
    path: PathBuf,
}

impl ComponentFolder {
    /// The folder at `path`. Errors: no such folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Err(Error::MissingFile {
                folder: path.parent().unwrap_or(path).into(),
                expected: format!("a folder {:?}", path.file_name().unwrap_or_default().to_string_lossy()),
                found: path.parent().map(listing).unwrap_or_default(),
            });
        }
        Ok(Self { path: path.into() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its `config.json`. Errors: missing, or not a JSON object.
    pub fn config(&self) -> Result<ConfigFile> {
        self.json("config.json")
    }

    /// One of its JSON files. Errors: missing, or not a JSON object.
    pub fn json(&self, name: &str) -> Result<ConfigFile> {
        let path = self.path.join(name);
        if !path.is_file() {
            return Err(Error::MissingFile {
                folder: self.path.clone(),
                expected: name.into(),
                found: listing(&self.path),
            });
        }
        ConfigFile::read(path)
    }

    /// Its weights: `diffusion_pytorch_model` or `model`, whole or in shards, else the fp16 variant.
    ///
    /// Errors: none there, or see [`Weights::open`].
    pub fn weights(&self) -> Result<Weights> {
        Weights::open(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_index_says_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("unet")).unwrap();
        let message = DiffusersFolder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("model_index.json, found unet"), "{message}");
        let message = DiffusersFolder::open(dir.path().join("no")).unwrap_err().to_string();
        assert!(message.contains("found nothing"), "{message}");
    }

    #[test]
    fn components_are_those_with_a_class() {
        let dir = tempfile::tempdir().unwrap();
        let index = r#"{"_class_name":"StableDiffusionPipeline","safety_checker":[null,null],
            "unet":["diffusers","UNet2DConditionModel"],"vae":["diffusers","AutoencoderKL"],"x":1}"#;
        std::fs::write(dir.path().join("model_index.json"), index).unwrap();
        std::fs::create_dir(dir.path().join("unet")).unwrap();
        let folder = DiffusersFolder::open(dir.path()).unwrap();
        assert_eq!(folder.pipeline(), Some("StableDiffusionPipeline"));
        let names: Vec<_> = folder.components().iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, ["unet", "vae"]);
        assert!(folder.component("unet").is_ok());
        assert!(folder.component("safety_checker").unwrap_err().to_string().contains("unet, vae"));
        assert!(folder.component("vae").unwrap_err().to_string().contains("a folder \"vae\""));
        let unet = folder.component("unet").unwrap();
        assert!(unet.config().unwrap_err().to_string().contains("config.json, found nothing"));
    }
}
