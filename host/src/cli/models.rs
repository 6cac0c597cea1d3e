//! `atelier models`.

use super::args::{ModelAction, Models};
use super::{Studio, lists, model_pull, say_json};
use crate::machine::human_bytes;
use crate::model_store;
use atelier_sdk::{ModelSpec, Result};
use serde_json::{Value, json};
use std::path::Path;

/// `atelier models ...`.
pub fn run(args: &Models, studio: &Studio) -> Result<()> {
    match &args.action {
        ModelAction::List { json } => list(*json, studio),
        ModelAction::Pull(args) => model_pull::run(args, studio),
    }
}

/// Whether a model's files are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ready,
    /// They are not, and can be pulled.
    NotPulled,
    /// They are not, and must be put there.
    Missing,
    /// The model is a name for made-up weights.
    NoFiles,
}

fn state(spec: &ModelSpec) -> State {
    match (&spec.path, model_store::is_complete(spec)) {
        (Some(_), true) => State::Ready,
        (Some(_), false) if !spec.files.is_empty() => State::NotPulled,
        (Some(_), false) => State::Missing,
        (None, _) => State::NoFiles,
    }
}

/// Bytes of a file, or of all below a folder; links count as what they lead to.
fn size(path: &Path) -> u64 {
    let Ok(meta) = std::fs::metadata(path) else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| !p.is_symlink() || p.is_file()).map(|p| size(&p)).sum()
}

fn list(as_json: bool, studio: &Studio) -> Result<()> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for m in &studio.registries.models {
        let (spec, state) = (&m.spec, state(&m.spec));
        let here = spec.path.as_deref().map(|p| p.display().to_string()).unwrap_or_default();
        let listed: Option<u64> = spec.files.iter().map(|f| f.size).sum();
        let bytes = match state {
            State::Ready => spec.path.as_deref().map(size),
            _ => listed.filter(|_| !spec.files.is_empty()),
        };
        let words = match state {
            State::Ready => format!("ready: {here}"),
            State::NotPulled => format!("missing: atelier models pull {}", spec.key),
            State::Missing => format!("missing: {here}"),
            State::NoFiles => "no files: for benchmarks with random weights".to_string(),
        };
        let bytes_text = bytes.map_or("-".into(), human_bytes);
        rows.push(vec![spec.key.clone(), spec.architecture.clone(), bytes_text, spec.title.clone(), words]);
        let mut value: Value = json!(spec);
        value["present"] = json!(state == State::Ready);
        value["state"] = json!(state);
        value["bytes"] = json!(bytes);
        value["origin"] = json!(m.origin);
        values.push(value);
    }
    if as_json {
        return say_json(&Value::Array(values));
    }
    lists::table(&["MODEL", "ARCHITECTURE", "SIZE", "TITLE", "FILES"], rows)
}
