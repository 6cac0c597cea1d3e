//! `atelier lora`: tasks of the engine for adapters.

use super::args::{Lora, LoraAction, LoraLayout, Weighted};
use super::{Studio, say, say_json, tool};
use atelier_sdk::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

pub fn run(args: &Lora, studio: &Studio) -> Result<()> {
    let (task, params) = asked(&args.action, studio)?;
    let json = args.action.json();
    let facts = tool::run(task, params, json, studio)?;
    if json {
        return say_json(&facts);
    }
    match &args.action {
        LoraAction::Inspect { .. } => inspected(&facts),
        LoraAction::Merge { out, .. } => merged(&facts, out),
        LoraAction::Extract { out, .. } => say(format!(
            "{}: {} modules at rank {}, {:.1} % of the difference kept, {} modules do not differ",
            out.display(),
            facts["modules"],
            facts["rank"],
            100.0 * facts["energy"].as_f64().unwrap_or_default(),
            facts["unchanged"]
        )),
        LoraAction::Convert { .. } => say(format!(
            "{}: {} modules",
            facts["files"].as_array().map(|f| texts(f)).unwrap_or_default(),
            facts["modules"]
        )),
    }
}

/// The task, and its parameters.
fn asked(action: &LoraAction, studio: &Studio) -> Result<(&'static str, Map<String, Value>)> {
    let (task, params) = match action {
        LoraAction::Inspect { lora, model, .. } => {
            let model = model.as_deref().map(|m| model_path(m, studio)).transpose()?.unwrap_or_default();
            ("lora-inspect", json!({"lora": lora, "model": model}))
        }
        LoraAction::Merge { model, lora, out, overwrite, .. } => {
            let loras: Vec<Value> = lora.iter().map(weighted).collect();
            let model = model_path(model, studio)?;
            ("lora-merge", json!({"model": model, "loras": loras, "out": out, "overwrite": overwrite}))
        }
        LoraAction::Extract { base, tuned, rank, out, f32, overwrite, .. } => {
            let (base, tuned) = (model_path(base, studio)?, model_path(tuned, studio)?);
            let format = if *f32 { "f32" } else { "f16" };
            (
                "lora-extract",
                json!({"base": base, "tuned": tuned, "rank": rank, "out": out, "format": format,
                    "overwrite": overwrite}),
            )
        }
        LoraAction::Convert { lora, to, model, out, overwrite, .. } => {
            let model = model.as_deref().map(|m| model_path(m, studio)).transpose()?.unwrap_or_default();
            let to = match to {
                LoraLayout::Kohya => "kohya",
                LoraLayout::Diffusers => "diffusers",
                LoraLayout::Peft => "peft",
            };
            (
                "lora-convert",
                json!({"lora": lora, "to": to, "model": model, "out": out, "overwrite": overwrite}),
            )
        }
    };
    match params {
        Value::Object(params) => Ok((task, params)),
        _ => Err(Error::internal("parameters that are no mapping")),
    }
}

fn weighted(lora: &Weighted) -> Value {
    match lora.weights {
        (te, unet) if te == unet => json!({"lora": lora.path, "weight": te}),
        (te, unet) => json!({"lora": lora.path, "te": te, "unet": unet}),
    }
}

/// A path that is there, or the path of a model that is known by this name.
fn model_path(named: &str, studio: &Studio) -> Result<PathBuf> {
    if Path::new(named).exists() {
        return Ok(named.into());
    }
    let spec = &studio.registries.model(named)?.spec;
    if !spec.parts.is_empty() {
        return Err(Error::invalid(format!("model `{named}` takes parts from several places"))
            .hint("name the folder or file of one model"));
    }
    spec.path.clone().ok_or_else(|| Error::invalid(format!("model `{named}` names no files")))
}

fn texts(items: &[Value]) -> String {
    items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// `LoRA 192, LoCon 12`.
fn counts(value: &Value) -> String {
    let items = value.as_object().into_iter().flatten();
    items.map(|(name, n)| format!("{name} ({n})")).collect::<Vec<_>>().join(", ")
}

fn inspected(facts: &Value) -> Result<()> {
    let text = |key: &str| facts[key].as_str().unwrap_or_default().to_string();
    say(text("file"))?;
    let list = |key: &str| facts[key].as_array().map(|items| texts(items)).unwrap_or_default();
    let mut lines = vec![
        ("layout", text("layout")),
        ("for", text("base")),
        ("modules", counts(&facts["modules"])),
        ("kinds", counts(&facts["kinds"])),
        ("ranks", counts(&facts["ranks"])),
        ("alphas", counts(&facts["alphas"])),
        ("embeddings", list("embeddings")),
        ("not understood", list("ignored")),
        ("words", list("words")),
    ];
    let fit = &facts["fit"];
    if let Some(problem) = fit["problem"].as_str() {
        lines.push(("fits", problem.to_string()));
    } else if fit.is_object() {
        let model = fit["model"].as_str().unwrap_or_default();
        lines.push(("fits", format!("{} of {} modules of {model}", fit["matched"], fit["total"])));
        lines.push(("unmatched", fit["unmatched"].as_array().map(|u| texts(u)).unwrap_or_default()));
    }
    for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
        say(format!("  {name:<15} {value}"))?;
    }
    Ok(())
}

fn merged(facts: &Value, out: &Path) -> Result<()> {
    for lora in facts["loras"].as_array().into_iter().flatten() {
        say(format!(
            "  {} at {} (text encoder), {} (UNet): {} of {} modules",
            lora["lora"].as_str().unwrap_or_default(),
            lora["te"],
            lora["unet"],
            lora["matched"],
            lora["total"]
        ))?;
    }
    say(out.display())
}
