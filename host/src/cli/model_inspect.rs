//! `atelier models inspect`.

use super::args::ModelInspect;
use super::models::map;
use super::{Studio, say, say_json, tool};
use crate::digests;
use crate::machine::human_bytes;
use atelier_sdk::Result;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Digits of a digest that A1111 calls its short hash.
const SHORT: usize = 10;

/// `atelier models inspect`.
pub fn run(args: &ModelInspect, studio: &Studio) -> Result<()> {
    let path = locate(&args.which, studio)?;
    let mut facts = look(&path, args.values, args.json, studio)?;
    if path.is_file() && !args.no_hash {
        let sha256 = digests::of_file(&path)?;
        facts["short_hash"] = json!(&sha256[..SHORT]);
        facts["sha256"] = json!(sha256);
    }
    facts["engines"] = json!(engines(&facts, studio));
    if args.json { say_json(&facts) } else { tell(&path, &facts) }
}

/// What the engine for it says about a file or folder.
///
/// # Errors
/// It is no model, it cannot be read, or no engine can look.
pub fn look(path: &Path, values: bool, quiet: bool, studio: &Studio) -> Result<Value> {
    let params = json!({"path": path.display().to_string(), "values": values});
    tool::run("model-inspect", map(params), quiet, studio)
}

/// The files of a model, or a path: what is a key is no path without a separator in it.
fn locate(which: &str, studio: &Studio) -> Result<PathBuf> {
    match studio.registries.models.find(which) {
        Some(model) => model.spec.weights().map(Path::to_path_buf),
        None => Ok(which.into()),
    }
}

/// The engines that load such a model.
fn engines(facts: &Value, studio: &Studio) -> Vec<String> {
    let Some(architecture) = facts["architecture"].as_str() else { return Vec::new() };
    let engines = &studio.registries.engines;
    let able = engines.iter().filter(|e| e.about.architectures.iter().any(|a| a == architecture));
    able.map(|e| engines.name_of(e)).collect()
}

fn tell(path: &Path, facts: &Value) -> Result<()> {
    let line = |name: &str, value: &dyn std::fmt::Display| say(format_args!("{name:<12}{value}"));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    say(text(&facts["what"]))?;
    let size = human_bytes(facts["bytes"].as_u64().unwrap_or_default());
    line("file", &format_args!("{} ({}, {size})", path.display(), text(&facts["format"])))?;
    if let Some(sha256) = facts["sha256"].as_str() {
        line("sha256", &sha256)?;
        line("short hash", &text(&facts["short_hash"]))?;
    }
    line("tensors", &format_args!("{}, {} parameters", facts["tensors"], millions(&facts["parameters"])))?;
    let formats = facts["formats"].as_object().into_iter().flatten();
    let formats: Vec<String> = formats.map(|(f, c)| format!("{f} {}", c["tensors"])).collect();
    line("formats", &formats.join(", "))?;
    for (name, part) in facts["parts"].as_object().into_iter().flatten() {
        let class = part["class"].as_str().map(|c| format!(" {c}")).unwrap_or_default();
        let tensors = part["tensors"].as_u64().map(|n| format!(", {n} tensors")).unwrap_or_default();
        let parameters = part["parameters"].as_u64();
        let parameters = parameters.map(|_| format!(", {} parameters", millions(&part["parameters"])));
        line("part", &format_args!("{name}{class}{tensors}{}", parameters.unwrap_or_default()))?;
    }
    for (name, value) in facts["details"].as_object().into_iter().flatten() {
        line("", &format_args!("{name}: {}", text(value)))?;
    }
    for (name, value) in facts["metadata"].as_object().into_iter().flatten() {
        line("metadata", &format_args!("{name}: {}", text(value)))?;
    }
    let engines = facts["engines"].as_array().into_iter().flatten();
    let engines: Vec<String> = engines.map(text).collect();
    line(
        "engines",
        &if engines.is_empty() { "none loads it as a model".into() } else { engines.join(", ") },
    )?;
    let notes = facts["notes"].as_array().into_iter().flatten();
    notes.map(text).try_for_each(|note| line("note", &note))
}

fn millions(count: &Value) -> String {
    match count.as_u64().unwrap_or_default() {
        n if n < 1_000_000 => n.to_string(),
        n => format!("{:.1} M", n as f64 / 1e6),
    }
}
