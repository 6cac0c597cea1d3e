//! `atelier dataset`: the tasks of the dataset workshop under names of their own.

use super::args::{DatasetAction, DatasetCheck, DatasetDemo, DatasetPrepare, DatasetSource};
use super::{Studio, say, say_json, text, tool};
use atelier_sdk::Result;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Runs the command.
pub fn run(action: &DatasetAction, studio: &Studio) -> Result<()> {
    let (task, params, quiet) = match action {
        DatasetAction::Analyze(a) => ("dataset-analyze", source(a)?, a.json),
        DatasetAction::Prepare(a) => ("dataset-prepare", prepare(a)?, a.source.json),
        DatasetAction::Check(a) => ("dataset-check", check(a)?, a.json),
        DatasetAction::Demo(a) => ("dataset-demo", demo(a)?, a.json),
    };
    let facts = tool::run(task, params, quiet, studio)?;
    if quiet {
        return say_json(&facts);
    }
    match action {
        DatasetAction::Analyze(_) => say_analysis(&facts),
        DatasetAction::Prepare(_) => say_set(&facts),
        DatasetAction::Check(a) => say_verdict(&facts, &a.input),
        DatasetAction::Demo(_) => say_demo(&facts),
    }
}

fn source(a: &DatasetSource) -> Result<Map<String, Value>> {
    let mut params = Map::new();
    params.insert("definition".into(), a.definition.as_str().into());
    params.insert("input".into(), text(&a.input)?);
    params.insert("out".into(), text(&a.out)?);
    if let Some(records) = &a.records {
        params.insert("records".into(), text(records)?);
    }
    if !a.images.is_empty() {
        params
            .insert("images".into(), Value::Array(a.images.iter().map(|p| text(p)).collect::<Result<_>>()?));
    }
    given(&mut params, "filter", a.filter.as_deref());
    given(&mut params, "seed", a.seed);
    Ok(params)
}

/// Only what was typed: the rest has its defaults in the schema.
fn given<T: Into<Value>>(params: &mut Map<String, Value>, field: &str, value: Option<T>) {
    if let Some(value) = value {
        params.insert(field.into(), value.into());
    }
}

fn prepare(a: &DatasetPrepare) -> Result<Map<String, Value>> {
    let mut params = source(&a.source)?;
    given(&mut params, "size", a.size);
    given(&mut params, "frame", a.frame.as_deref());
    given(&mut params, "pad", a.pad.as_deref());
    given(&mut params, "min_side", a.min_side);
    given(&mut params, "locales", (!a.locales.is_empty()).then(|| a.locales.clone()));
    given(&mut params, "txt", a.txt.then_some(true));
    given(&mut params, "prototype", a.prototype);
    given(&mut params, "dry_run", a.dry_run.then_some(true));
    Ok(params)
}

fn check(a: &DatasetCheck) -> Result<Map<String, Value>> {
    let mut params = Map::new();
    params.insert("input".into(), text(&a.input)?);
    given(&mut params, "quarantine", a.no_quarantine.then_some(false));
    Ok(params)
}

fn demo(a: &DatasetDemo) -> Result<Map<String, Value>> {
    let mut params = Map::new();
    params.insert("out".into(), text(&a.out)?);
    given(&mut params, "count", a.count);
    given(&mut params, "seed", a.seed);
    given(&mut params, "broken", a.clean.then_some(false));
    Ok(params)
}

fn number(facts: &Value, pointer: &str) -> u64 {
    facts.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn shown(facts: &Value, pointer: &str) -> String {
    facts.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string()
}

fn say_analysis(f: &Value) -> Result<()> {
    say(format_args!(
        "{} of {} records, {} photos, {} figures, {:.1} s",
        number(f, "/records/selected"),
        number(f, "/records/read"),
        number(f, "/photos"),
        number(f, "/figures"),
        f["seconds"].as_f64().unwrap_or(0.0)
    ))?;
    say(shown(f, "/report"))
}

fn say_set(f: &Value) -> Result<()> {
    let dry = f["dry_run"] == json!(true);
    for part in f["splits"].as_array().into_iter().flatten() {
        say(format_args!("{:<10} {:>6} images", shown(part, "/name"), number(part, "/images")))?;
    }
    say(format_args!(
        "{} strata ({} pooled), at most {:.2} images from their shares; {} groups of the same photo stay together",
        number(f, "/strata"),
        number(f, "/pooled_strata"),
        f["largest_deviation"].as_f64().unwrap_or(0.0),
        number(f, "/groups")
    ))?;
    for b in f["balance"].as_array().into_iter().flatten() {
        if let (Some(chi2), Some(p)) = (b["test"]["chi2"].as_f64(), b["test"]["p"].as_f64()) {
            let df = number(b, "/test/df");
            say(format_args!("{:<12} chi-square {chi2:.2}, {df} df, p {p:.3}", shown(b, "/field")))?;
        }
    }
    let [make, keep, remove] =
        if dry { ["to make", "as planned", "to remove"] } else { ["made", "kept", "removed"] };
    say(format_args!(
        "{} images {make}, {} {keep}, {} files {remove}, {} text files changed; {:.1} s",
        number(f, "/made"),
        number(f, "/kept"),
        number(f, "/removed"),
        number(f, "/texts"),
        f["seconds"].as_f64().unwrap_or(0.0)
    ))?;
    if dry {
        return say("nothing was written (--dry-run)");
    }
    say(shown(f, "/folder"))
}

fn say_verdict(f: &Value, folder: &Path) -> Result<()> {
    for (name, n) in f["images"].as_object().into_iter().flatten() {
        say(format_args!("{name:<10} {n:>6} images"))?;
    }
    for b in f["balance"].as_array().into_iter().flatten() {
        if let (Some(chi2), Some(p)) = (b["test"]["chi2"].as_f64(), b["test"]["p"].as_f64()) {
            let df = number(b, "/test/df");
            say(format_args!(
                "{:<12} balanced: chi-square {chi2:.2}, {df} df, p {p:.3}",
                shown(b, "/field")
            ))?;
        }
    }
    say(format_args!("nothing is wrong with {}", folder.display()))
}

fn say_demo(f: &Value) -> Result<()> {
    let broken = f["broken"].as_array().map_or(0, Vec::len);
    say(format_args!("{} products; {broken} more things, broken on purpose", number(f, "/products")))?;
    say(shown(f, "/folder"))
}
