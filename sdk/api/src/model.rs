//! Models: named sets of weights that an engine can load.

use crate::registry::Keyed;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

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
}

impl ModelSpec {
    /// The names of its fields.
    pub const FIELDS: [&str; 11] = [
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
    ];
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
        };
        let value = serde_json::to_value(spec).unwrap();
        assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ModelSpec::FIELDS);
    }
}
