//! What an adapter holds and what it fits.

use crate::{INSPECT, error, model};
use atelier_sdk::{PlanCtx, Result, TaskInfo, TaskParams, Violation};
use atelier_weights::lora::{Adapter, Base, Part};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Says what an adapter holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Inspect {
    /// The adapter: a file, or a folder of PEFT.
    #[schemars(extend("x-file" = "path"))]
    pub lora: String,
    /// A model to look for its modules in: a diffusers folder or a checkpoint. Without it, Stable Diffusion 1.5.
    #[schemars(extend("x-file" = "path"))]
    pub model: String,
}

impl TaskParams for Inspect {
    const TASK: &'static TaskInfo = &INSPECT;

    fn plan(self, _: &PlanCtx) -> Result<Self, Vec<Violation>> {
        needed(&[("lora", &self.lora)]).map(|()| self)
    }
}

/// Fields that name a file and must not be empty.
pub(crate) fn needed(fields: &[(&str, &str)]) -> Result<(), Vec<Violation>> {
    let empty = fields.iter().filter(|(_, value)| value.is_empty());
    let wrong: Vec<_> =
        empty.map(|(name, _)| Violation::new(format!("/{name}"), "no file is named")).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

pub(crate) fn open(path: &str) -> Result<Adapter> {
    Adapter::open(path).map_err(error::weights("cannot read the adapter"))
}

pub(crate) fn run(params: &Inspect) -> Result<Value> {
    let adapter = open(&params.lora)?;
    let mut facts = json!({
        "file": adapter.path().display().to_string(),
        "layout": adapter.layout().name(),
        "base": adapter.base().to_string(),
        "modules": modules(&adapter),
        "kinds": counted(adapter.changes().map(|(.., delta)| delta.kind())),
        "ranks": counted(adapter.changes().filter_map(|(.., d)| d.rank()).map(|r| r.to_string())),
        "alphas": counted(adapter.changes().filter_map(|(.., d)| d.alpha()).map(|a| short(a).to_string())),
        "embeddings": adapter.embeddings(),
        "ignored": adapter.ignored(),
        "words": words(adapter.metadata()),
        "metadata": brief(adapter.metadata()),
    });
    if let Some(found) = fit(&adapter, &params.model)? {
        facts["fit"] = found;
    }
    Ok(facts)
}

fn modules(adapter: &Adapter) -> Value {
    let parts = [Part::Unet, Part::TextEncoder, Part::TextEncoder2];
    let counts = parts.map(|part| (part.folder().to_string(), adapter.count(part)));
    Value::Object(counts.into_iter().filter(|(_, n)| *n > 0).map(|(part, n)| (part, json!(n))).collect())
}

/// Alphas are often the results of divisions.
fn short(alpha: f64) -> f64 {
    (alpha * 1e4).round() / 1e4
}

fn counted(items: impl Iterator<Item = String>) -> Value {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    items.for_each(|item| *counts.entry(item).or_default() += 1);
    json!(counts)
}

/// The words of the captions it was trained with, the most frequent first, as kohya's program counts them.
fn words(metadata: &BTreeMap<String, String>) -> Vec<String> {
    type Counts = BTreeMap<String, BTreeMap<String, f64>>;
    let text = metadata.get("ss_tag_frequency").map(String::as_str).unwrap_or_default();
    let Ok(folders) = serde_json::from_str::<Counts>(text) else { return Vec::new() };
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for (word, n) in folders.into_values().flatten() {
        *counts.entry(word.trim().into()).or_default() += n;
    }
    let mut words: Vec<_> = counts.into_iter().collect();
    words.sort_by(|a, b| b.1.total_cmp(&a.1));
    words.into_iter().take(10).map(|(word, _)| word).collect()
}

/// Remarks short enough to be read by people.
fn brief(metadata: &BTreeMap<String, String>) -> Value {
    const MOST: usize = 40;
    let is_short = |(name, value): &(&String, &String)| value.len() <= 200 && !name.ends_with(":rank");
    let short: Map<String, Value> =
        metadata.iter().filter(is_short).take(MOST).map(|(k, v)| (k.clone(), json!(v))).collect();
    Value::Object(short)
}

/// How much of it is in a model; none if no model is named and it is for something else than the one known.
fn fit(adapter: &Adapter, named: &str) -> Result<Option<Value>> {
    let ((unet, text), name) = match named {
        "" if adapter.base() == Base::Context(768) => (model::modules_of_sd15()?, "Stable Diffusion 1.5"),
        "" => return Ok(None),
        path => (model::modules_of(Path::new(path))?, path),
    };
    let found = match adapter.resolve(&unet, &text) {
        Ok(found) => found,
        Err(e) if named.is_empty() => return Ok(Some(json!({"model": name, "problem": e.to_string()}))),
        Err(e) => return Err(error::weights("the adapter does not fit the model")(e)),
    };
    Ok(Some(json!({
        "model": name,
        "matched": found.matched(),
        "total": found.total(),
        "unmatched": found.unmatched,
    })))
}
