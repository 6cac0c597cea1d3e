//! What a file or folder is, and what is in it.

mod detail;
mod values;

use crate::error::weights as failed;
use crate::params::InspectModel;
use atelier_models::UpscalerFile;
use atelier_sdk::{EngineCtx, Error, ErrorKind, Result};
use atelier_weights::{Checkpoint, DiffusersFolder, Kind, Ncnn, Weights};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longest remark of a file that is repeated.
const LONGEST_REMARK: usize = 400;
/// Most names of a pickle that are repeated.
const NAMED: usize = 20;

pub fn run(params: &InspectModel, ctx: &mut dyn EngineCtx) -> Result<Value> {
    let path = Path::new(&params.path);
    let mut facts =
        if path.is_dir() { folder(path, params.values, ctx)? } else { file(path, params.values, ctx)? };
    facts["path"] = json!(params.path);
    Ok(facts)
}

fn file(path: &Path, read: bool, ctx: &mut dyn EngineCtx) -> Result<Value> {
    if path.extension().is_some_and(|e| e == "param") {
        return ncnn(path, read, ctx);
    }
    let checkpoint = Checkpoint::open(path).map_err(|e| refused(path, e))?;
    let weights = checkpoint.weights();
    let about = detail::of(&checkpoint);
    let bytes = std::fs::metadata(path)
        .map_err(|e| Error::io(format!("cannot look at {}", path.display()), e))?
        .len();
    let mut facts = json!({
        "kind": name(checkpoint.kind()), "what": about.what, "architecture": about.architecture,
        "format": format(path)?, "bytes": bytes, "details": about.details,
        "parts": parts(&checkpoint), "metadata": remarks(weights),
    });
    totals(&mut facts, weights);
    let mut notes = about.notes;
    notes.extend(odd(weights));
    if read {
        notes.extend(values::scan(weights, ctx)?);
    }
    facts["notes"] = json!(notes);
    Ok(facts)
}

/// With all that a pickle would have run, and not only what came first.
fn refused(path: &Path, e: atelier_weights::Error) -> Error {
    let is_code = matches!(e, atelier_weights::Error::ForbiddenGlobal { .. });
    let e = failed(e);
    let names = if is_code { atelier_weights::pickle_names(path).unwrap_or_default() } else { Vec::new() };
    let mut bad: Vec<String> =
        names.iter().filter(|n| !n.harmless).map(|n| format!("{} (byte {})", n.name, n.offset)).collect();
    bad.dedup();
    if bad.is_empty() {
        return e;
    }
    let more = bad.len().saturating_sub(NAMED);
    bad.truncate(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    e.hint(format!("refused in its pickle: {}{rest}", bad.join(", ")))
}

/// A kind under the name that scripts look for.
fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::StableDiffusion => "stable-diffusion",
        Kind::UNet => "unet",
        Kind::Vae => "vae",
        Kind::TextEncoder => "text-encoder",
        Kind::Sdxl => "sdxl",
        Kind::Sd3 => "sd3",
        Kind::Flux => "flux",
        Kind::ImageConditioned => "image-conditioned",
        Kind::ControlNet => "controlnet",
        Kind::Lora => "lora",
        Kind::TextualInversion => "textual-inversion",
        Kind::Upscaler => "upscaler",
        Kind::TinyVae => "tiny-vae",
        Kind::Unknown => "unknown",
    }
}

/// By the first bytes, as the reader has it.
fn format(path: &Path) -> Result<&'static str> {
    use std::io::Read;
    let mut head = Vec::new();
    let file = std::fs::File::open(path).and_then(|f| f.take(4).read_to_end(&mut head));
    file.map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
    Ok(match head.as_slice() {
        b"GGUF" => "gguf",
        b"PK\x03\x04" => "torch archive",
        _ => "safetensors",
    })
}

fn remarks(weights: &Weights) -> Value {
    let short = |text: &str| match text.char_indices().nth(LONGEST_REMARK) {
        Some((end, _)) => format!("{}... ({} characters)", &text[..end], text.chars().count()),
        None => text.to_string(),
    };
    weights.metadata().iter().map(|(k, v)| (k.clone(), json!(short(v)))).collect::<Map<_, _>>().into()
}

/// Tensors, parameters and formats.
#[derive(Default, serde::Serialize)]
struct Count {
    tensors: u64,
    parameters: u64,
    bytes: u64,
}

fn count<'a>(weights: &Weights, names: impl Iterator<Item = &'a str>) -> (Count, BTreeMap<String, Count>) {
    let mut formats: BTreeMap<String, Count> = BTreeMap::new();
    let mut all = Count::default();
    for name in names {
        let (Some(info), Some(format)) = (weights.info(name), weights.format(name)) else { continue };
        let elements: u64 = info.shape.iter().map(|d| *d as u64).product();
        for count in [&mut all, formats.entry(format).or_default()] {
            count.tensors += 1;
            count.parameters += elements;
            count.bytes += info.bytes.len() as u64;
        }
    }
    (all, formats)
}

fn totals(facts: &mut Value, weights: &Weights) {
    let (all, formats) = count(weights, weights.names());
    facts["tensors"] = json!(all.tensors);
    facts["parameters"] = json!(all.parameters);
    facts["formats"] = json!(formats);
}

/// The networks of a Stable Diffusion file, and what is left over.
fn parts(checkpoint: &Checkpoint) -> Value {
    let weights = checkpoint.weights();
    let mut out = Map::new();
    let found =
        [("unet", checkpoint.unet()), ("vae", checkpoint.vae()), ("text_encoder", checkpoint.text_encoder())];
    let mut known = 0;
    for (name, part) in found {
        let Ok(part) = part else { continue };
        let mut names: Vec<&str> = part.tensors().filter_map(|(n, _)| part.name_in_file(n)).collect();
        names.sort_unstable();
        names.dedup();
        let (all, _) = count(weights, names.into_iter());
        known += all.tensors;
        out.insert(name.into(), json!({"tensors": all.tensors, "parameters": all.parameters}));
    }
    let rest = (weights.names().count() as u64).saturating_sub(known);
    if !out.is_empty() && rest > 0 {
        out.insert("other".into(), json!({"tensors": rest}));
    }
    Value::Object(out)
}

/// What a header alone shows to be unusual.
fn odd(weights: &Weights) -> Vec<String> {
    let mut notes = Vec::new();
    let mut some = |what: &str, is: &dyn Fn(&str) -> bool| {
        let names: Vec<&str> = weights.names().filter(|n| is(n)).collect();
        if let [first, ..] = names.as_slice() {
            notes.push(format!("{} {what}, such as {first}", names.len()));
        }
    };
    some("tensors are empty", &|n| weights.info(n).is_some_and(|i| i.shape.contains(&0)));
    some("tensors are of the training (ema) and not used", &|n| n.starts_with("model_ema."));
    some("tensors are of an optimizer and not used", &|n| n.contains("optimizer"));
    notes
}

fn folder(path: &Path, read: bool, ctx: &mut dyn EngineCtx) -> Result<Value> {
    if !path.join("model_index.json").is_file() {
        return component(path, read, ctx);
    }
    let folder = DiffusersFolder::open(path).map_err(failed)?;
    let pipeline = folder.pipeline().unwrap_or("of an unnamed pipeline").to_string();
    let (mut parts, mut notes, mut metadata) = (Map::new(), Vec::new(), Map::new());
    let (mut all, mut formats) = (Count::default(), BTreeMap::<String, Count>::new());
    for (name, library, class) in folder.components() {
        let mut part = json!({"class": class, "library": library});
        match folder.component(name).map_err(failed)?.weights() {
            Ok(weights) => {
                let (own, own_formats) = count(&weights, weights.names());
                part["tensors"] = json!(own.tensors);
                part["parameters"] = json!(own.parameters);
                part["file"] = json!(weights.place());
                add(&mut all, &own);
                own_formats.iter().for_each(|(f, c)| add(formats.entry(f.clone()).or_default(), c));
                notes.extend(odd(&weights).into_iter().map(|n| format!("{name}: {n}")));
                if read {
                    notes.extend(values::scan(&weights, ctx)?.into_iter().map(|n| format!("{name}: {n}")));
                }
            }
            // A tokenizer or scheduler has none.
            Err(atelier_weights::Error::MissingFile { .. })
                if !["diffusers", "transformers"].contains(&library) => {}
            Err(atelier_weights::Error::MissingFile { .. }) if weightless(class) => {}
            Err(e) => return Err(failed(e)),
        }
        parts.insert(name.into(), part);
    }
    metadata.insert("_class_name".into(), json!(pipeline));
    let about = detail::of_folder(&folder, &pipeline);
    notes.extend(about.notes);
    Ok(json!({
        "kind": about.kind, "what": about.what, "architecture": about.architecture, "format": "diffusers folder",
        "bytes": all.bytes, "details": about.details, "parts": parts, "metadata": metadata,
        "tensors": all.tensors, "parameters": all.parameters, "formats": formats, "notes": notes,
    }))
}

fn weightless(class: &str) -> bool {
    ["Tokenizer", "Scheduler", "FeatureExtractor", "ImageProcessor"].iter().any(|w| class.contains(w))
}

fn add(to: &mut Count, more: &Count) {
    to.tensors += more.tensors;
    to.parameters += more.parameters;
    to.bytes += more.bytes;
}

/// A description of ncnn's, with the weights beside it.
fn ncnn(param: &Path, read: bool, ctx: &mut dyn EngineCtx) -> Result<Value> {
    let of_models = |e: atelier_models::Error| {
        Error::new(ErrorKind::Corrupt, format!("cannot read {}", param.display())).because(e)
    };
    let upscaler = UpscalerFile::open(param).map_err(of_models)?;
    let model = Ncnn::open(param, param.with_extension("bin")).map_err(failed)?;
    let weights = model.weights();
    let mut about = detail::About::default();
    detail::upscaler(&upscaler, &mut about);
    let (all, _) = count(weights, weights.names());
    about.set("layers", model.layers().len());
    if read {
        about.notes.extend(values::scan(weights, ctx)?);
    }
    let mut facts = json!({
        "kind": name(Kind::Upscaler), "what": about.what, "architecture": about.architecture, "format": "ncnn",
        "bytes": all.bytes, "details": about.details, "parts": {}, "metadata": {}, "notes": about.notes,
    });
    totals(&mut facts, weights);
    Ok(facts)
}

/// The only file of a network in a folder whose files have other names than diffusers gives them.
fn alone(folder: &Path) -> Option<PathBuf> {
    let network = |p: &PathBuf| {
        p.extension()
            .is_some_and(|e| ["param", "safetensors", "pth", "pt", "ckpt", "gguf"].iter().any(|n| e == *n))
    };
    let mut found = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).filter(network);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// A folder of one network.
fn component(path: &Path, read: bool, ctx: &mut dyn EngineCtx) -> Result<Value> {
    let adapter = path.join("adapter_model.safetensors");
    if adapter.is_file() {
        return file(&adapter, read, ctx);
    }
    if let Some(network) = alone(path) {
        return file(&network, read, ctx);
    }
    let weights = Weights::open(path).map_err(|e| match e {
        atelier_weights::Error::MissingFile { .. } => {
            Error::new(ErrorKind::NotFound, format!("{} is not a model's folder", path.display()))
                .because(e)
                .hint("a model has a model_index.json, one network a diffusion_pytorch_model.safetensors")
        }
        e => failed(e),
    })?;
    let file = weights.place().to_string();
    if file.ends_with(".json") {
        let mut facts = json!({"kind": "unknown", "what": "a set of shards", "architecture": null,
            "format": "safetensors", "details": {}, "parts": {}, "metadata": remarks(&weights)});
        totals(&mut facts, &weights);
        facts["bytes"] =
            json!(weights.names().filter_map(|n| weights.info(n)).map(|i| i.bytes.len()).sum::<usize>());
        facts["notes"] = json!(if read { values::scan(&weights, ctx)? } else { odd(&weights) });
        return Ok(facts);
    }
    self::file(Path::new(&file), read, ctx)
}
