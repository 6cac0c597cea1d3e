//! A checkpoint of one file as a folder in the layout of diffusers.

use super::Report;
use super::numbers::Numbers;
use super::write::{Item, file};
use crate::error::weights as failed;
use atelier_models::{ClipTokenizer, Padding};
use atelier_sdk::files::{cannot_write, sync_folder, write_atomic};
use atelier_sdk::{EngineCtx, Error, ErrorKind, Result, ResultExt};
use atelier_weights::{Checkpoint, CheckpointPart, Elements, Provider};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Entries of CLIP's vocabulary.
const CLIP_VOCABULARY: u64 = 49408;

/// Writes the folder, all of it or nothing.
///
/// # Errors
/// Not a whole model of Stable Diffusion 1.x or 2.x; a vocabulary that nobody has; the disk is full.
pub fn write(
    checkpoint: &Checkpoint,
    numbers: Numbers,
    out: &Path,
    ctx: &mut dyn EngineCtx,
) -> Result<Report> {
    let mut staged = Staged::new(out)?;
    let root = staged.folder.clone();
    let mut report = Report::default();
    let unet = checkpoint.unet().map_err(failed)?;
    let vae = checkpoint.vae().map_err(failed)?;
    let text = checkpoint.text_encoder().map_err(failed)?;
    let openclip = text.config().get("hidden_act").and_then(Value::as_str) == Some("gelu");
    tokenizer(checkpoint, &text, openclip, &root)?;

    let channels = unet.config().get("in_channels").and_then(Value::as_u64);
    let wide = unet.config().get("cross_attention_dim").and_then(Value::as_u64) == Some(1024);
    let sizes = [("sample_size", json!(if wide { 96 } else { 64 }))];
    network(
        &root.join("unet"),
        &unet,
        "diffusion_pytorch_model",
        unet_config(&unet, sizes),
        numbers,
        &mut report,
        ctx,
    )?;
    network(&root.join("vae"), &vae, "diffusion_pytorch_model", vae_config(&vae), numbers, &mut report, ctx)?;
    network(&root.join("text_encoder"), &text, "model", text_config(&text), numbers, &mut report, ctx)?;
    if wide && checkpoint.prediction_type().is_none() {
        report.notes.push(
            "the file does not say what it predicts and is taken to predict noise; if it is a 768-v model, set \
             prediction_type to v_prediction in scheduler/scheduler_config.json"
                .into(),
        );
    }
    let prediction = checkpoint.prediction_type().unwrap_or("epsilon");
    json_file(&root.join("scheduler/scheduler_config.json"), &scheduler(prediction))?;
    json_file(&root.join("model_index.json"), &index(channels == Some(9)))?;
    let unused: Vec<String> = [unet.unused(), vae.unused(), text.unused()].concat();
    let rest = checkpoint.weights().unused().len();
    if rest > 0 {
        let first = unused.first().cloned().or_else(|| checkpoint.weights().unused().into_iter().next());
        report.notes.push(format!(
            "{rest} tensors have no place in a folder and were left out, such as {}",
            first.unwrap_or_default()
        ));
    }
    staged.commit()?;
    Ok(report)
}

/// A folder that gets its name when it is whole.
struct Staged {
    folder: PathBuf,
    out: PathBuf,
    done: bool,
}

impl Staged {
    fn new(out: &Path) -> Result<Self> {
        let folder = beside(out, "new");
        // What an ended process of this number has left.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).map_err(|e| cannot_write(out, e))?;
        Ok(Self { folder, out: out.into(), done: false })
    }

    fn commit(&mut self) -> Result<()> {
        let failed = |e| cannot_write(&self.out, e);
        let old = beside(&self.out, "old");
        let replaces = std::fs::symlink_metadata(&self.out).is_ok();
        if replaces {
            std::fs::rename(&self.out, &old).map_err(failed)?;
        }
        if let Err(e) = std::fs::rename(&self.folder, &self.out) {
            if replaces {
                // Better the old one than none.
                let _ = std::fs::rename(&old, &self.out);
            }
            return Err(failed(e));
        }
        self.done = true;
        if replaces {
            let removed =
                if old.is_dir() { std::fs::remove_dir_all(&old) } else { std::fs::remove_file(&old) };
            removed.map_err(|e| cannot_write(&old, e))?;
        }
        sync_folder(parent(&self.out));
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(out: &Path, word: &str) -> PathBuf {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    parent(out).join(format!(".atelier-{word}-{}-{name}", std::process::id()))
}

fn json_file(path: &Path, value: &Value) -> Result<()> {
    let folder = parent(path);
    std::fs::create_dir_all(folder).map_err(|e| cannot_write(folder, e))?;
    write_atomic(path, format!("{value:#}\n").as_bytes())
}

fn network(
    folder: &Path,
    part: &CheckpointPart,
    stem: &str,
    config: Value,
    numbers: Numbers,
    report: &mut Report,
    ctx: &mut dyn EngineCtx,
) -> Result<()> {
    json_file(&folder.join("config.json"), &config)?;
    // transformers before version 5 wants it, and those after take it.
    let prefix = if stem == "model" { "text_model." } else { "" };
    let items: Vec<Item<'_>> =
        part.tensors().filter_map(|(name, shape)| item(part, name, shape, prefix, numbers)).collect();
    file(&folder.join(format!("{stem}.safetensors")), &items, numbers, &BTreeMap::new(), report, ctx)
}

fn item<'a>(
    part: &'a CheckpointPart,
    name: &'a str,
    mut shape: Vec<usize>,
    prefix: &str,
    numbers: Numbers,
) -> Option<Item<'a>> {
    // The autoencoder's attention has kernels of one pixel in a file, and matrices in a folder.
    let matrix =
        name.contains("mid_block.attentions.") && prefix.is_empty() && !name.contains("transformer_blocks");
    let matrix = matrix && !name.contains(".proj_in.") && !name.ends_with("proj_out.weight");
    if matrix && shape.len() == 4 && shape[2..] == [1, 1] {
        shape.truncate(2);
    }
    let dtype = numbers.dtype();
    let elements = Elements::Plain(part.stored_as(name, dtype)?);
    let found = part.stored_as(name, None)?;
    let read = move || part.encoded(name, dtype).map(|(_, bytes)| bytes).map_err(failed);
    Some(Item { name: format!("{prefix}{name}"), shape, elements, found, read: Box::new(read) })
}

/// The fields that were worked out, and those that no tensor shows.
fn config<const N: usize>(part: &CheckpointPart, more: [(&str, Value); N]) -> Map<String, Value> {
    let known = part.config();
    let mut fields: Map<String, Value> = more.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
    for name in known.fields() {
        if let Some(value) = known.get(name) {
            fields.insert(name.into(), short(value));
        }
    }
    fields
}

/// A list of one number many times as that number, as the released configurations have it.
fn short(value: &Value) -> Value {
    match value.as_array().map(Vec::as_slice) {
        Some([first, rest @ ..]) if first.is_u64() && rest.iter().all(|v| v == first) => first.clone(),
        _ => value.clone(),
    }
}

fn unet_config<const N: usize>(part: &CheckpointPart, more: [(&str, Value); N]) -> Value {
    let mut fields = config(part, more);
    fields.insert("_class_name".into(), json!("UNet2DConditionModel"));
    for (name, value) in [
        ("act_fn", json!("silu")),
        ("norm_num_groups", json!(32)),
        ("flip_sin_to_cos", json!(true)),
        ("freq_shift", json!(0)),
    ] {
        fields.insert(name.into(), value);
    }
    // A list stays one where its length says how many blocks there are.
    if let Some(value) = part.config().get("block_out_channels") {
        fields.insert("block_out_channels".into(), value.clone());
    }
    let same = fields.get("transformer_layers_per_block").is_some_and(Value::is_u64);
    if same {
        fields.remove("reverse_transformer_layers_per_block");
    }
    Value::Object(fields)
}

fn vae_config(part: &CheckpointPart) -> Value {
    let mut fields = config(
        part,
        [("sample_size", json!(512)), ("act_fn", json!("silu")), ("norm_num_groups", json!(32))],
    );
    fields.insert("_class_name".into(), json!("AutoencoderKL"));
    if let Some(value) = part.config().get("block_out_channels") {
        fields.insert("block_out_channels".into(), value.clone());
    }
    Value::Object(fields)
}

fn text_config(part: &CheckpointPart) -> Value {
    let mut fields =
        config(part, [("layer_norm_eps", json!(1e-5)), ("model_type", json!("clip_text_model"))]);
    fields.insert("architectures".into(), json!(["CLIPTextModel"]));
    let last = part.config().get("eos_token_id").and_then(Value::as_u64).unwrap_or_default();
    fields.insert("bos_token_id".into(), json!(last.saturating_sub(1)));
    fields.insert("pad_token_id".into(), json!(1));
    Value::Object(fields)
}

/// The noise that all of Stable Diffusion 1.x and 2.x were trained with.
fn scheduler(prediction: &str) -> Value {
    json!({
        "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000, "prediction_type": prediction, "set_alpha_to_one": false, "skip_prk_steps": true,
        "steps_offset": 1, "clip_sample": false, "timestep_spacing": "leading", "trained_betas": null,
    })
}

fn index(inpainting: bool) -> Value {
    json!({
        "_class_name": if inpainting { "StableDiffusionInpaintPipeline" } else { "StableDiffusionPipeline" },
        "feature_extractor": [null, null], "requires_safety_checker": false, "safety_checker": [null, null],
        "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}

/// CLIP's, or the one in the folder `tokenizer` beside the file.
fn tokenizer(checkpoint: &Checkpoint, text: &CheckpointPart, openclip: bool, root: &Path) -> Result<()> {
    let folder = root.join("tokenizer");
    std::fs::create_dir(&folder).map_err(|e| cannot_write(&folder, e))?;
    let own = parent(checkpoint.path()).join("tokenizer");
    if own.is_dir() {
        return copy(&own, &folder);
    }
    let words = text.config().get("vocab_size").and_then(Value::as_u64);
    if words != Some(CLIP_VOCABULARY) {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "the file has no tokenizer, and its {} tokens are not CLIP's {CLIP_VOCABULARY}",
                words.unwrap_or_default()
            ),
        )
        .hint("put its folder `tokenizer` beside the file"));
    }
    let padding = if openclip { Padding::Zero } else { Padding::End };
    let files = ClipTokenizer::clip_files(padding).internal("the tokenizer of CLIP")?;
    files.iter().try_for_each(|(name, content)| write_atomic(&folder.join(name), content.as_bytes()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("cannot read {}", from.display()), e);
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            let content = std::fs::read(&path).map_err(failed)?;
            write_atomic(&to.join(path.file_name().unwrap_or_default()), &content)?;
        }
    }
    Ok(())
}
