//! `atelier presets`.

use super::args::{PresetAction, Presets};
use super::lists::table;
use super::{Studio, say, say_json};
use crate::preset::{Preset, SCHEMA_VERSION};
use crate::request::{self, Request};
use atelier_sdk::{Error, ErrorKind, Result};
use serde_json::{Value, json};

/// Runs the command.
pub fn run(args: &Presets, studio: &Studio) -> Result<()> {
    match &args.action {
        PresetAction::List { json } => list(*json, studio),
        PresetAction::Show { preset, json } => show(preset, *json, studio),
        PresetAction::Validate { presets, json } => validate(presets, *json, studio),
    }
}

fn list(as_json: bool, studio: &Studio) -> Result<()> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for (name, file) in studio.paths.yaml_files("presets") {
        // One damaged file must not hide the others.
        let (title, value) = match Preset::load(&name, &studio.paths) {
            Ok(p) => (
                p.title.clone().unwrap_or_default(),
                json!({"name": name, "file": file, "title": p.title, "description": p.description,
                       "task": p.task, "engine": p.engine, "model": p.model}),
            ),
            Err(e) => (
                format!("cannot be read: {}", e.chain().join(": ")),
                json!({"name": name, "file": file, "error": e.chain()}),
            ),
        };
        rows.push(vec![name, title]);
        values.push(value);
    }
    if as_json { say_json(&Value::Array(values)) } else { table(&["PRESET", "TITLE"], rows) }
}

/// Prints a preset that stands alone: what it extends and every default filled in. The YAML is a preset again.
fn show(name: &str, as_json: bool, studio: &Studio) -> Result<()> {
    let preset = Preset::load(name, &studio.paths)?;
    let request = Request { preset: Some(preset.clone()), ..Request::default() };
    // What cannot run in this build is shown as written.
    let planned = request::parse_params(&request, &studio.registries, &studio.config, 0).ok();
    let engine = planned.as_ref().map(|p| p.engine_name.clone()).or(preset.engine.clone());
    let model = planned.as_ref().and_then(|p| Some(p.model?.spec.key.clone())).or(preset.model.clone());
    let params = planned.as_ref().map_or_else(|| preset.params(), |p| p.layers.values().clone());
    let mut value = json!({"schema_version": SCHEMA_VERSION, "title": preset.title,
        "description": preset.description, "task": preset.task, "engine": engine, "model": model, "params": params});
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, v| !v.is_null());
    }
    if as_json {
        value["name"] = json!(preset.name);
        return say_json(&value);
    }
    say(format_args!("# {} ({})", preset.name, preset.file.display()))?;
    say(as_yaml(&value)?.trim_end())?;
    for (i, (pointer, _, source)) in planned.iter().flat_map(|p| p.layers.changes()).enumerate() {
        if i == 0 {
            say("# set by")?;
        }
        say(format_args!("#   {:<24} {source}", &pointer[1..]))?;
    }
    Ok(())
}

fn as_yaml(value: &Value) -> Result<String> {
    serde_yaml::to_string(value).map_err(|e| Error::internal("cannot write YAML").because(e))
}

/// How a preset fared.
enum Verdict {
    Good,
    /// Right, once these files are named.
    Needs(Vec<String>),
    /// Well-formed, but this build lacks what it needs.
    CannotRun(Error),
    Bad(Error),
}

fn judge(name: &str, studio: &Studio) -> Verdict {
    let preset = match Preset::load(name, &studio.paths) {
        Ok(p) => p,
        Err(e) => return Verdict::Bad(e),
    };
    let request = Request { preset: Some(preset), ..Request::default() };
    match request::parse_params(&request, &studio.registries, &studio.config, 0) {
        Ok(_) => Verdict::Good,
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::NotFound) => Verdict::CannotRun(e),
        Err(e) => match request::lacks_only_files(&request, &studio.registries, &studio.config) {
            Some(fields) => Verdict::Needs(fields),
            None => Verdict::Bad(e),
        },
    }
}

fn validate(names: &[String], as_json: bool, studio: &Studio) -> Result<()> {
    let all: Vec<String> = match names {
        [] => studio.paths.yaml_files("presets").into_iter().map(|(n, _)| n).collect(),
        some => some.to_vec(),
    };
    let mut values = Vec::new();
    let mut bad = 0;
    for name in &all {
        let (word, error) = match judge(name, studio) {
            Verdict::Good => ("valid".to_string(), None),
            Verdict::Needs(fields) => (format!("valid; to be given: {}", fields.join(", ")), None),
            Verdict::CannotRun(e) => ("well-formed, but this build cannot run it".to_string(), Some(e)),
            Verdict::Bad(e) => {
                bad += 1;
                ("wrong".to_string(), Some(e))
            }
        };
        values.push(json!({"name": name, "verdict": word, "error": error.as_ref().map(Error::chain)}));
        if !as_json {
            say(format_args!("{name}: {word}"))?;
            for line in error.iter().flat_map(|e| e.chain()) {
                say(format_args!("  {}", line.replace('\n', "\n  ")))?;
            }
        }
    }
    if as_json {
        say_json(&Value::Array(values))?;
    }
    match bad {
        0 => Ok(()),
        n => Err(Error::invalid(format!("{n} of {} presets are wrong", all.len()))),
    }
}
