//! Models as one file.

use super::Report;
use super::numbers::{self, Numbers};
use super::write::{Item, file};
use crate::error::weights as failed;
use atelier_sdk::{EngineCtx, Error, ErrorKind, Result};
use atelier_weights::{Checkpoint, DiffusersFolder, Kind, Network, Weights, ldm_name};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A file or the folder of one network as one file, names unchanged.
///
/// # Errors
/// It cannot be read or written.
pub fn same_names(input: &Path, numbers: Numbers, out: &Path, ctx: &mut dyn EngineCtx) -> Result<Report> {
    let weights = Weights::open(input).map_err(failed)?;
    all(&weights, numbers, out, ctx)
}

/// A checkpoint in one file as another such file.
///
/// # Errors
/// It is no whole checkpoint; it cannot be read or written.
pub fn ldm(checkpoint: &Checkpoint, numbers: Numbers, out: &Path, ctx: &mut dyn EngineCtx) -> Result<Report> {
    if checkpoint.kind() != Kind::StableDiffusion {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} is {}, not a whole model", checkpoint.path().display(), checkpoint.kind().describe()),
        )
        .hint("to change its format or number format alone: --to safetensors"));
    }
    all(checkpoint.weights(), numbers, out, ctx)
}

fn all(weights: &Weights, numbers: Numbers, out: &Path, ctx: &mut dyn EngineCtx) -> Result<Report> {
    let items: Vec<Item<'_>> =
        weights.names().filter_map(|n| item(weights, n, n.into(), false, numbers)).collect();
    let mut report = Report::default();
    file(out, &items, numbers, weights.metadata(), &mut report, ctx)?;
    Ok(report)
}

/// A tensor under another name; `kernel` makes a matrix a kernel of one pixel.
fn item<'a>(
    weights: &'a Weights,
    name: &'a str,
    new: String,
    kernel: bool,
    numbers: Numbers,
) -> Option<Item<'a>> {
    let info = weights.info(name)?;
    let mut shape = info.shape.clone();
    if kernel && shape.len() == 2 {
        shape.extend([1, 1]);
    }
    let elements = numbers.elements(weights, name, &new, &shape)?;
    let read = move || numbers::read(weights, name, elements).map_err(failed);
    Some(Item { name: new, shape, elements, found: info.dtype, read: Box::new(read) })
}

/// A diffusers folder as one file with the names of `ldm`.
///
/// # Errors
/// Another pipeline; the text encoder of 2.x, which such files have from another library; files missing or damaged.
pub fn from_folder(input: &Path, numbers: Numbers, out: &Path, ctx: &mut dyn EngineCtx) -> Result<Report> {
    let folder = DiffusersFolder::open(input).map_err(failed)?;
    check(&folder)?;
    let mut report = Report::default();
    let mut parts = Vec::new();
    for (network, name) in [(Network::UNet, "unet"), (Network::Vae, "vae"), (Network::Text, "text_encoder")] {
        let component = folder.component(name).map_err(failed)?;
        parts.push((network, name, component.weights().map_err(failed)?));
    }
    let mut items = Vec::new();
    for (network, part, weights) in &parts {
        let names: BTreeSet<String> = weights.names().map(String::from).collect();
        let mut left_out = Vec::new();
        for name in weights.names() {
            match ldm_name(*network, name, &names) {
                Some((new, kernel)) => items.extend(item(weights, name, new, kernel, numbers)),
                None => left_out.push(name),
            }
        }
        if let [first, ..] = left_out.as_slice() {
            report.notes.push(format!(
                "{part}: {} tensors have no place in one file, such as {first}",
                left_out.len()
            ));
        }
    }
    let mut metadata = BTreeMap::new();
    if let Some(prediction) = prediction(&folder).filter(|p| p != "epsilon") {
        metadata.insert("modelspec.prediction_type".into(), prediction);
    }
    file(out, &items, numbers, &metadata, &mut report, ctx)?;
    report.notes.push("one file holds no tokenizer: who reads it takes CLIP's".into());
    Ok(report)
}

fn prediction(folder: &DiffusersFolder) -> Option<String> {
    let scheduler = folder.component("scheduler").ok()?.json("scheduler_config.json").ok()?;
    scheduler.get("prediction_type").and_then(Value::as_str).map(String::from)
}

fn check(folder: &DiffusersFolder) -> Result<()> {
    let unsupported = |text: String| Err(Error::new(ErrorKind::Unsupported, text));
    let pipeline = folder.pipeline().unwrap_or("StableDiffusionPipeline");
    if !pipeline.starts_with("StableDiffusion") || pipeline.contains("XL") || pipeline.contains("3") {
        return unsupported(format!("a folder of the pipeline {pipeline} is not made into one file"));
    }
    let text = folder.component("text_encoder").and_then(|c| c.config()).map_err(failed)?;
    if text.get("hidden_act").and_then(Value::as_str) == Some("gelu") {
        return unsupported(
            "the text encoder of Stable Diffusion 2.x has another layout in one file, which is not written"
                .into(),
        );
    }
    Ok(())
}
