//! The family of a model, told by shapes: widths of the context, channels, ranks.

use atelier_models::{Family, UpscalerFile};
use atelier_weights::{Checkpoint, ConfigFile, DiffusersFolder, Kind, Weights};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What was found out.
#[derive(Debug, Default)]
pub struct About {
    /// For scripts.
    pub kind: &'static str,
    /// In words.
    pub what: String,
    /// The architecture of a description that would fit, which decides the engines.
    pub architecture: Option<&'static str>,
    /// Figures.
    pub details: Map<String, Value>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl About {
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.details.insert(name.into(), value.into());
    }
}

/// What a file is.
pub fn of(checkpoint: &Checkpoint) -> About {
    let mut about = About { what: checkpoint.kind().describe().into(), ..About::default() };
    match checkpoint.kind() {
        Kind::StableDiffusion | Kind::UNet => stable_diffusion(checkpoint, &mut about),
        Kind::Vae => vae(checkpoint, &mut about),
        Kind::Lora => lora(checkpoint.weights(), &mut about),
        Kind::Upscaler => match UpscalerFile::open(checkpoint.weights().place()) {
            Ok(file) => upscaler(&file, &mut about),
            Err(e) => about.notes.push(format!("it cannot be used: {e}")),
        },
        Kind::TinyVae => tiny_vae(checkpoint.weights(), &mut about),
        Kind::TextualInversion => inversion(checkpoint.weights(), &mut about),
        Kind::ControlNet | Kind::Sdxl => conditioned(checkpoint.weights(), &mut about),
        Kind::Unknown => {
            let first: Vec<&str> = checkpoint.weights().names().take(3).collect();
            about.notes.push(format!("the first names are: {}", first.join(", ")));
        }
        _ => {}
    }
    about
}

/// The family of a UNet by the width of what it listens to.
fn family(context: u64) -> &'static str {
    match context {
        768 => "1.x",
        1024 => "2.x",
        1280 => "SDXL (refiner)",
        2048 => "SDXL",
        _ => "of no released size",
    }
}

fn purpose(channels: u64) -> &'static str {
    match channels {
        4 => "text to image",
        8 => "instruct (8 channels)",
        9 => "inpainting (9 channels)",
        5 => "depth (5 channels)",
        7 => "upscaling (7 channels)",
        _ => "another purpose",
    }
}

fn number(config: &ConfigFile, field: &str) -> u64 {
    match config.get(field) {
        Some(Value::Array(all)) => all.first().and_then(Value::as_u64).unwrap_or_default(),
        other => other.and_then(Value::as_u64).unwrap_or_default(),
    }
}

fn stable_diffusion(checkpoint: &Checkpoint, about: &mut About) {
    let Ok(unet) = checkpoint.unet() else { return };
    let (context, channels) =
        (number(unet.config(), "cross_attention_dim"), number(unet.config(), "in_channels"));
    let alone = if checkpoint.kind() == Kind::UNet { ", the UNet alone" } else { "" };
    about.what = format!("Stable Diffusion {}, {}{alone}", family(context), purpose(channels));
    about.set("context", context);
    about.set("channels", channels);
    predicted(checkpoint.prediction_type(), context, about);
    if checkpoint.kind() == Kind::StableDiffusion {
        about.architecture = Some("sd");
        let missing: Vec<&str> =
            [("vae", checkpoint.vae().is_err()), ("text encoder", checkpoint.text_encoder().is_err())]
                .into_iter()
                .filter_map(|(name, missing)| missing.then_some(name))
                .collect();
        if !missing.is_empty() {
            about.notes.push(format!(
                "it has no {}: a description must name one under `parts`",
                missing.join(" and no ")
            ));
        }
    } else {
        about.notes.push("usable as a part of another model: `parts: {unet: ...}`".into());
    }
}

fn predicted(said: Option<&str>, context: u64, about: &mut About) {
    match (said, context) {
        (Some(said), _) => about.set("prediction", said),
        (None, 768) => about.set("prediction", "epsilon (as all of 1.x)"),
        (None, 1024) => {
            about.set("prediction", "not said");
            about.notes.push(
                "files of 2.x do not say what they predict: 768-v and its kin need `prediction_type: v_prediction`".into(),
            );
        }
        _ => {}
    }
}

fn vae(checkpoint: &Checkpoint, about: &mut About) {
    let Ok(vae) = checkpoint.vae() else { return };
    let latent = number(vae.config(), "latent_channels");
    about.set("latent channels", latent);
    if latent != 4 {
        about.notes.push(format!("{latent} latent channels: not of Stable Diffusion 1.x, 2.x or XL"));
    }
    about.notes.push("usable as a part of another model: `parts: {vae: ...}`".into());
}

/// The layouts of LoRA files, by a piece of their names.
const LORA_LAYOUTS: [(&str, &str); 6] = [
    (".lora_A.", "PEFT"),
    ("lora_unet_", "kohya"),
    ("lora_te", "kohya"),
    ("_lora.down.", "diffusers (attention processors)"),
    (".lora.down.", "diffusers"),
    ("unet:0:", "cloneofsimo"),
];

fn lora(weights: &Weights, about: &mut About) {
    let layout = LORA_LAYOUTS.iter().find(|(sign, _)| weights.names().any(|n| n.contains(sign)));
    let layout = layout.map_or("unknown", |(_, layout)| layout);
    let is_down = |n: &&str| {
        ["lora_down.weight", "lora.down.weight", "_lora.down.weight", "lora_A.weight"]
            .iter()
            .any(|e| n.ends_with(e))
            || n.ends_with(":down")
    };
    let sides = |n: &str, i: usize| weights.info(n).and_then(|t| t.shape.get(i).copied());
    let ranks: BTreeSet<usize> = weights.names().filter(is_down).filter_map(|n| sides(n, 0)).collect();
    // Keys and values of cross-attention listen to the text.
    let context = weights.names().filter(is_down).filter(|n| n.contains("attn2") && n.contains("to_k"));
    let context = context.filter_map(|n| sides(n, 1)).next();
    let text = weights
        .names()
        .any(|n| n.contains("lora_te") || n.contains("text_encoder") || n.contains("text_model"));
    let base = context.map(|c| family(c as u64));
    about.what = format!(
        "a LoRA in the layout of {layout}{}",
        base.map(|b| format!(", for Stable Diffusion {b}")).unwrap_or_default()
    );
    about.set("rank", json!(ranks));
    about.set("layers", weights.names().filter(is_down).count());
    about.set("trains the text encoder", text);
    about.set("alpha", weights.names().any(|n| n.ends_with(".alpha")));
    let other = [
        ("hada_w1", "LoHa"),
        ("lokr_w", "LoKr"),
        ("dora_scale", "DoRA"),
        ("lora_mid", "LoCon with a middle (Tucker)"),
    ];
    for (sign, name) in other {
        if weights.names().any(|n| n.contains(sign)) {
            about.notes.push(format!("it has {name} layers"));
        }
    }
    if weights.names().any(|n| n.starts_with('<')) {
        about.notes.push("it brings words of its own (embeddings) as well".into());
    }
}

/// What an upscaler is, by the reader that would load it.
pub(super) fn upscaler(file: &UpscalerFile, about: &mut About) {
    let a = file.architecture();
    about.what = format!("an upscaler of the class {} (ESRGAN, Real-ESRGAN)", a.name());
    about.architecture = Some("esrgan");
    about.set("factor", a.scale);
    about.set("features", a.channels);
    match a.family {
        Family::Rrdb => about.set("blocks", a.blocks),
        Family::Compact => about.set("convolutions", a.blocks + 2),
    }
    let unused = file.unused();
    if let Some(first) = unused.first() {
        about.notes.push(format!("{} tensors have no place in the network, such as {first}", unused.len()));
    }
}

fn tiny_vae(weights: &Weights, about: &mut About) {
    let has = |part: &str| weights.names().any(|n| n.starts_with(part));
    let sequential = weights.names().all(|n| n.starts_with(|c: char| c.is_ascii_digit()));
    let shape = |n: &str| weights.info(n).map(|t| t.shape.clone());
    let (encoder, decoder) = match sequential {
        // An encoder begins with a picture.
        true => (shape("0.weight").is_some(), shape("0.weight").is_none()),
        false => (has("encoder"), has("decoder")),
    };
    let first =
        ["decoder.layers.0.weight", "decoder.0.weight", "decoder.1.weight", "decoder_1.weight", "1.weight"];
    let latent = first.iter().find_map(|n| shape(n)).filter(|_| decoder).and_then(|s| s.get(1).copied());
    let halves: Vec<&str> = [("encoder", encoder), ("decoder", decoder)]
        .into_iter()
        .filter_map(|(n, is)| is.then_some(n))
        .collect();
    about.what = format!("a tiny autoencoder (TAESD): {}", halves.join(" and "));
    about.architecture = Some("taesd");
    about.set("names", if sequential { "numbers" } else { "diffusers" });
    if let Some(latent) = latent {
        about.set("latent channels", latent);
        let family = match latent {
            4 => "Stable Diffusion 1.x, 2.x or XL (they differ in their numbers only)",
            16 => "SD3, Flux.1",
            32 => "Flux.2",
            _ => "no known family",
        };
        about.set("for", family);
    }
}

fn inversion(weights: &Weights, about: &mut About) {
    let mut all = weights.names().filter_map(|n| weights.info(n));
    if let Some(shape) = all.find(|t| !t.shape.is_empty()).map(|t| &t.shape) {
        let (vectors, width) = match shape.as_slice() {
            [vectors, width] => (*vectors, *width),
            [width] => (1, *width),
            _ => return,
        };
        about.set("vectors", vectors);
        about.set("width", width);
        about.set("for", family(width as u64));
    }
}

fn conditioned(weights: &Weights, about: &mut About) {
    let context = weights.names().find(|n| n.ends_with("attn2.to_k.weight"));
    if let Some(width) = context.and_then(|n| weights.info(n)?.shape.get(1).copied()) {
        about.set("context", width);
        about.set("for", family(width as u64));
    }
}

/// What a folder is.
pub fn of_folder(folder: &DiffusersFolder, pipeline: &str) -> About {
    let mut about =
        About { kind: "diffusers", what: format!("a folder of the pipeline {pipeline}"), ..About::default() };
    let config = |name: &str, file: &str| folder.component(name).ok()?.json(file).ok();
    let Some(unet) = config("unet", "config.json") else { return about };
    let (context, channels) = (number(&unet, "cross_attention_dim"), number(&unet, "in_channels"));
    let plain = folder.component("text_encoder_2").is_err()
        && pipeline.starts_with("StableDiffusion")
        && !pipeline.contains("XL");
    if plain {
        about.kind = "stable-diffusion";
        about.architecture = Some("sd");
        about.what = format!("Stable Diffusion {}, {}, as a folder", family(context), purpose(channels));
    } else if pipeline.contains("XL") {
        about.kind = "sdxl";
    }
    about.set("context", context);
    about.set("channels", channels);
    if let Some(scheduler) = config("scheduler", "scheduler_config.json") {
        let said = scheduler.get("prediction_type").and_then(Value::as_str).unwrap_or("epsilon").to_string();
        about.set("prediction", said);
    }
    about
}
