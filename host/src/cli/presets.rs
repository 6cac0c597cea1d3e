//! `atelier presets`.

use super::args::{PresetAction, Presets};
use super::lists::table;
use super::{Studio, say, say_json};
use crate::preset::Preset;
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

fn show(name: &str, as_json: bool, studio: &Studio) -> Result<()> {
    let preset = Preset::load(name, &studio.paths)?;
    let request = Request { preset: Some(preset.clone()), ..Request::default() };
    let planned = request::parse_params(&request, &studio.registries, &studio.config, 0);
    let Ok(planned) = planned else {
        // What cannot run can still be shown as written.
        let value = json!({"name": preset.name, "task": preset.task, "engine": preset.engine,
            "model": preset.model, "params": preset.params()});
        return if as_json { say_json(&value) } else { say(as_yaml(&value)?.trim_end()) };
    };
    let params = planned.layers.values();
    let value = json!({"name": preset.name, "title": preset.title, "description": preset.description,
        "task": planned.task, "engine": planned.engine.info.key, "model": planned.model.spec.key, "params": params});
    if as_json {
        return say_json(&value);
    }
    say(format_args!("# {} ({})", preset.name, preset.file.display()))?;
    say(as_yaml(&value)?.trim_end())?;
    say("# set by")?;
    for (pointer, _, source) in planned.layers.changes() {
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
        Err(e) => Verdict::Bad(e),
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
            Verdict::Good => ("valid", None),
            Verdict::CannotRun(e) => ("well-formed, but this build cannot run it", Some(e)),
            Verdict::Bad(e) => {
                bad += 1;
                ("wrong", Some(e))
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
