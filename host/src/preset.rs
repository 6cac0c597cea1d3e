//! Presets: YAML files that hold a request, sparse over the defaults.

use crate::config::check_version;
use crate::layers::Source;
use crate::paths::Paths;
use crate::{fsx, json, yaml};
use atelier_sdk::registry::nearest;
use atelier_sdk::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The newest version of the format that is understood.
pub const SCHEMA_VERSION: u64 = 1;
/// Longest chain of `extends:`.
const MAX_CHAIN: usize = 16;

const FIELDS: [&str; 8] =
    ["schema_version", "title", "description", "extends", "task", "engine", "model", "params"];

#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    extends: Option<String>,
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    engine: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    params: Map<String, Value>,
}

/// One file of a preset's chain: its parameters and where each was set.
#[derive(Debug, Clone)]
pub struct PresetLayer {
    /// Name of the preset.
    pub name: String,
    /// Its parameters.
    pub params: Map<String, Value>,
    text: String,
}

impl PresetLayer {
    /// The source of the parameter at `pointer`.
    pub fn source(&self, pointer: &str) -> Source {
        let mut path = vec!["params"];
        path.extend(pointer.split('/').skip(1));
        Source::Preset { name: self.name.clone(), line: yaml::line_of(&self.text, &path) }
    }
}

/// A preset with everything it extends.
#[derive(Debug, Clone)]
pub struct Preset {
    /// Name: path below `presets/` without the ending, or the path given.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// A few words.
    pub title: Option<String>,
    /// More words.
    pub description: Option<String>,
    /// The task.
    pub task: Option<String>,
    /// The engine.
    pub engine: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// Parameters, from the farthest ancestor to the preset itself.
    pub layers: Vec<PresetLayer>,
}

impl Preset {
    /// Loads a preset by name (`txt2img/basic`) or by path (anything that ends in `.yaml` or `.yml`).
    ///
    /// # Errors
    /// Unknown name (with the nearest), unreadable file, wrong fields, a newer version, a circle of `extends`.
    pub fn load(name: &str, paths: &Paths) -> Result<Self> {
        let mut preset = read(&resolve(name, None, paths)?, name)?;
        let mut seen = vec![preset.0.file.clone()];
        while let Some(parent) = preset.1.take() {
            let said = format!("preset `{}` extends `{parent}`", preset.0.name);
            let file = resolve(&parent, seen.last().map(PathBuf::as_path), paths)
                .map_err(|e| e.context(said.clone()))?;
            if seen.contains(&file) || seen.len() >= MAX_CHAIN {
                return Err(Error::invalid(format!("{said}, which leads in a circle"))
                    .hint("remove one of the `extends:` lines"));
            }
            let (base, next) = read(&file, &parent).map_err(|e| e.context(said))?;
            seen.push(file);
            preset.0.rest_upon(base);
            preset.1 = next;
        }
        Ok(preset.0)
    }

    /// All parameters of the chain, merged.
    pub fn params(&self) -> Map<String, Value> {
        let mut out = Map::new();
        for layer in &self.layers {
            json::merge(&mut out, &layer.params);
        }
        out
    }

    fn rest_upon(&mut self, mut base: Self) {
        self.task = self.task.take().or(base.task);
        self.engine = self.engine.take().or(base.engine);
        self.model = self.model.take().or(base.model);
        base.layers.append(&mut self.layers);
        self.layers = base.layers;
    }
}

fn is_path(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// The file of a preset; a path in `extends:` is relative to the file that says it.
fn resolve(name: &str, from: Option<&Path>, paths: &Paths) -> Result<PathBuf> {
    if is_path(name) {
        let base = from.and_then(Path::parent).unwrap_or(Path::new(""));
        let file = base.join(name);
        return file
            .canonicalize()
            .map_err(|e| Error::io(format!("cannot read preset {}", file.display()), e));
    }
    let all = paths.yaml_files("presets");
    if let Some((_, file)) = all.iter().find(|(n, _)| n == name) {
        return file
            .canonicalize()
            .map_err(|e| Error::io(format!("cannot read preset {}", file.display()), e));
    }
    let names = || all.iter().map(|(n, _)| n.as_str());
    let err = Error::new(ErrorKind::NotFound, format!("there is no preset named `{name}`"));
    let err = match nearest(name, names()) {
        Some(near) => err.hint(format!("did you mean `{near}`?")),
        None => err,
    };
    Err(match all.is_empty() {
        true => err.hint("no config folder was found; name one with `--configs` or `ATELIER_CONFIGS`"),
        false => err.hint(format!("there are: {}", names().collect::<Vec<_>>().join(", "))),
    })
}

fn read(file: &Path, name: &str) -> Result<(Preset, Option<String>)> {
    let here = || format!("in preset {}", file.display());
    let text = fsx::read_text("preset", file)?;
    let document = parse(&text).map_err(|e| e.context(here()))?;
    let preset = Preset {
        name: name.to_string(),
        file: file.to_path_buf(),
        title: document.title,
        description: document.description,
        task: document.task,
        engine: document.engine,
        model: document.model,
        layers: vec![PresetLayer { name: name.to_string(), params: document.params, text }],
    };
    Ok((preset, document.extends))
}

fn parse(text: &str) -> Result<Document> {
    let value = yaml::parse(text)?;
    check_version("preset", &value, SCHEMA_VERSION)?;
    for key in value.as_object().into_iter().flat_map(|m| m.keys()) {
        if !FIELDS.contains(&key.as_str()) {
            return Err(unknown_field(key, text));
        }
    }
    serde_json::from_value(value).map_err(|e| Error::invalid(format!("wrong type of a field: {e}")))
}

fn unknown_field(key: &str, text: &str) -> Error {
    let line = yaml::line_of(text, &[key]).map(|l| format!(" (line {l})")).unwrap_or_default();
    let err = Error::invalid(format!("a preset has no field `{key}`{line}"));
    match nearest(key, FIELDS) {
        Some(near) => err.hint(format!("did you mean `{near}`?")),
        None => err.hint("fields of the task belong under `params:`"),
    }
    .hint(format!("there are: {}", FIELDS.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join("presets").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let paths = Paths { configs: vec![dir.path().to_path_buf()] };
        (dir, paths)
    }

    #[test]
    fn a_preset_lies_over_what_it_extends() {
        let (_dir, paths) = folder(&[
            ("a/base.yaml", "schema_version: 1\ntask: t\nmodel: m\nparams:\n  steps: 20\n  cfg: 7\n"),
            ("a/top.yaml", "schema_version: 1\nextends: a/base\nmodel: n\nparams:\n  steps: 5\n"),
        ]);
        let p = Preset::load("a/top", &paths).unwrap();
        assert_eq!((p.task.as_deref(), p.model.as_deref()), (Some("t"), Some("n")));
        assert_eq!(p.params()["steps"], 5);
        assert_eq!(p.params()["cfg"], 7);
        let line = Source::Preset { name: "a/base".into(), line: Some(6) };
        assert_eq!(p.layers[0].source("/cfg"), line);
    }

    #[test]
    fn a_circle_of_extends_is_refused() {
        let (_dir, paths) = folder(&[
            ("a.yaml", "schema_version: 1\nextends: b\n"),
            ("b.yaml", "schema_version: 1\nextends: a\n"),
        ]);
        assert!(Preset::load("a", &paths).unwrap_err().message().contains("circle"));
    }

    #[test]
    fn a_newer_version_is_told_before_its_unknown_fields() {
        let (_dir, paths) = folder(&[("a.yaml", "schema_version: 2\nnovelty: 1\n")]);
        let e = Preset::load("a", &paths).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.chain()[1].contains("reads up to 1"), "{:?}", e.chain());
    }

    #[test]
    fn wrong_documents_say_what_and_where() {
        for (text, expected) in [
            ("steps: 1", "`schema_version` is missing"),
            ("schema_version: '1'", "`schema_version` is \"1\""),
            ("- 1", "mapping"),
            ("schema_version: 1\nparms: {}", "no field `parms` (line 2)"),
            ("schema_version: 1\nparams: 3", "wrong type"),
            ("schema_version: 1\nparams: {a: .nan}", "/params/a"),
        ] {
            let (_dir, paths) = folder(&[("a.yaml", text)]);
            let e = Preset::load("a", &paths).unwrap_err();
            assert!(e.chain().join(" | ").contains(expected), "{text}: {:?}", e.chain());
        }
    }

    #[test]
    fn an_unknown_preset_names_the_nearest() {
        let (_dir, paths) = folder(&[("txt2img/basic.yaml", "schema_version: 1")]);
        let e = Preset::load("txt2img/basik", &paths).unwrap_err();
        assert!(e.hints()[0].contains("`txt2img/basic`"), "{e:?}");
    }
}
