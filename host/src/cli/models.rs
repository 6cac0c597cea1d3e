//! `atelier models`.

use super::args::{ModelAction, ModelConvert, Models};
use super::{Studio, lists, model_import, model_inspect, model_pull, model_verify, say, say_json, tool};
use crate::machine::human_bytes;
use crate::model_store;
use atelier_sdk::{ModelSpec, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// `atelier models ...`.
pub fn run(args: &Models, studio: &Studio) -> Result<()> {
    match &args.action {
        ModelAction::List { json } => list(*json, studio),
        ModelAction::Pull(args) => model_pull::run(args, studio),
        ModelAction::Inspect(args) => model_inspect::run(args, studio),
        ModelAction::Import(args) => model_import::run(args, studio),
        ModelAction::Verify(args) => model_verify::run(args, studio),
        ModelAction::Convert(args) => convert(args, studio),
    }
}

fn convert(args: &ModelConvert, studio: &Studio) -> Result<()> {
    let params = json!({"input": args.input, "to": args.to, "dtype": args.dtype, "out": args.out,
        "overwrite": args.overwrite});
    let facts = tool::run("model-convert", map(params), args.json, studio)?;
    if args.json {
        return say_json(&facts);
    }
    let size = human_bytes(facts["bytes"].as_u64().unwrap_or_default());
    say(format_args!("wrote {} ({} tensors, {size})", args.out, facts["tensors"]))
}

/// The members of a JSON object.
pub fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
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
