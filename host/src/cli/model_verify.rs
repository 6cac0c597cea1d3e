//! `atelier models verify`.

use super::args::ModelVerify;
use super::{Studio, lists, say, say_json};
use crate::model_store::{self, Record};
use atelier_sdk::{Error, ErrorKind, ModelSpec, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Right,
    Changed,
    Missing,
    /// Nobody has said what its digest should be.
    Unknown,
}

struct Row {
    model: String,
    file: String,
    state: State,
    expected: String,
    found: String,
}

/// `atelier models verify`.
pub fn run(args: &ModelVerify, studio: &Studio) -> Result<()> {
    let models = &studio.registries.models;
    let specs: Vec<&ModelSpec> = match args.which.as_str() {
        // What was never fetched is not damaged.
        "all" => {
            models.iter().map(|m| &m.spec).filter(|s| s.path.as_ref().is_some_and(|p| p.exists())).collect()
        }
        key => vec![&studio.registries.model(key)?.spec],
    };
    let mut rows = Vec::new();
    for spec in specs {
        rows.extend(check(spec)?);
    }
    report(&rows, args.json)?;
    outcome(&rows)
}

fn check(spec: &ModelSpec) -> Result<Vec<Row>> {
    spec.weights()?;
    let expected = expected(spec)?;
    if expected.is_empty() {
        return Ok(vec![row(spec, "-", State::Unknown, "", "")]);
    }
    let each = expected.into_iter().map(|(file, (path, sha256))| {
        if !path.is_file() {
            return Ok(row(spec, &file, State::Missing, &sha256, ""));
        }
        let (found, _) = crate::digests::read_anew(&path)?;
        let state = if found == sha256 { State::Right } else { State::Changed };
        Ok(row(spec, &file, state, &sha256, &found))
    });
    each.collect()
}

fn row(spec: &ModelSpec, file: &str, state: State, expected: &str, found: &str) -> Row {
    Row { model: spec.key.clone(), file: file.into(), state, expected: expected.into(), found: found.into() }
}

/// Path and digest of each file: as described, else as it was when it was pulled.
fn expected(spec: &ModelSpec) -> Result<BTreeMap<String, (PathBuf, String)>> {
    let path = spec.path.as_deref().unwrap_or(Path::new(""));
    let base = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let mut out = BTreeMap::new();
    let pulled = model_store::folder(&spec.key).ok().filter(|folder| path.starts_with(folder));
    if let Some(folder) = pulled {
        for (file, known) in Record::load(&folder)?.files {
            out.insert(file.clone(), (folder.join(&file), known.sha256));
        }
        for file in &spec.files {
            if let Some(sha256) = &file.sha256 {
                out.insert(file.path.clone(), (folder.join(&file.path), sha256.clone()));
            }
        }
    }
    for (file, sha256) in &spec.sha256 {
        out.insert(file.clone(), (base.join(file), sha256.to_ascii_lowercase()));
    }
    Ok(out)
}

fn report(rows: &[Row], as_json: bool) -> Result<()> {
    if as_json {
        let values = rows.iter().map(|r| {
            json!({"model": r.model, "file": r.file, "state": r.state, "expected": r.expected, "found": r.found})
        });
        return say_json(&values.collect());
    }
    if rows.is_empty() {
        return say("no model has files here");
    }
    let words = |r: &Row| match r.state {
        State::Right => "right".to_string(),
        State::Changed => format!("CHANGED: expected {}, found {}", r.expected, r.found),
        State::Missing => "MISSING".to_string(),
        State::Unknown => "no digest is known; nothing was compared".to_string(),
    };
    let rows = rows.iter().map(|r| vec![r.model.clone(), r.file.clone(), words(r)]).collect();
    lists::table(&["MODEL", "FILE", "STATE"], rows)
}

fn outcome(rows: &[Row]) -> Result<()> {
    let count = |state: State| rows.iter().filter(|r| r.state == state).count();
    let (changed, missing) = (count(State::Changed), count(State::Missing));
    if changed + missing == 0 {
        return Ok(());
    }
    let kind = if changed > 0 { ErrorKind::Corrupt } else { ErrorKind::NotFound };
    Err(Error::new(kind, format!("{changed} files have changed and {missing} are missing"))
        .hint("if the model was pulled: remove those files and pull it again"))
}
