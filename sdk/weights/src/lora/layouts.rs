//! Changes as the tensors of a file, named as other programs name them: what [`super::Adapter`] reads, the other way.

use super::delta::{Delta, Factor, Update};
use super::keys::Part;
use crate::writer::{Outline, bytes_of, write_safetensors};
use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// The changes of one network by the paths of its modules.
pub type Changes = BTreeMap<String, Arc<Delta>>;

/// Why a change has no place in a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A change that is not plain LoRA.
    #[error("module {module} is changed by {kind}, which only kohya's layout can hold")]
    Kind {
        /// The module.
        module: String,
        /// What changes it.
        kind: String,
    },
    /// A magnitude by inputs, where the layout knows outputs only.
    #[error("module {module} has a magnitude for each input, which only kohya's layout can hold")]
    ByInputs {
        /// The module.
        module: String,
    },
    /// The tensor library failed.
    #[error("the tensors of a layout")]
    Tensor(#[from] candle_core::Error),
}

/// Writes tensors as a safetensors file. The same tensors and remarks give the same bytes.
///
/// # Errors
/// Those of writing.
pub fn write(
    out: &mut dyn Write,
    tensors: &Tensors,
    metadata: &BTreeMap<String, String>,
) -> Result<(), io::Error> {
    let outlines = tensors.iter().map(|(name, t)| Outline::of(name, t)).collect();
    write_safetensors(out, outlines, metadata, |t| {
        bytes_of(&tensors[&t.name], t.dtype).map_err(io::Error::other)
    })
}

/// A module's path as files have it.
fn path(part: Part, module: &str) -> String {
    if part == Part::Unet { module.into() } else { format!("text_model.{module}") }
}

/// The tensors of one change in kohya's layout, under the module's path.
///
/// # Errors
/// The tensor library failed.
pub fn kohya(part: Part, module: &str, delta: &Delta, out: &mut Tensors) -> Result<(), candle_core::Error> {
    let head = match part {
        Part::Unet => "lora_unet",
        Part::TextEncoder => "lora_te",
        Part::TextEncoder2 => "lora_te2",
    };
    let name = format!("{head}_{}", path(part, module).replace('.', "_"));
    let mut put = |end: &str, tensor: &Tensor| out.insert(format!("{name}.{end}"), tensor.clone());
    match &delta.update {
        Update::Lora { down, up, mid, .. } => {
            put("lora_down.weight", down);
            put("lora_up.weight", &like(up, down)?);
            mid.as_ref().map(|mid| put("lora_mid.weight", mid));
        }
        Update::LoHa { first, second, .. } => {
            factor(first, ["hada_w1", "hada_w1_a", "hada_w1_b", "hada_t1"], &mut put);
            factor(second, ["hada_w2", "hada_w2_a", "hada_w2_b", "hada_t2"], &mut put);
        }
        Update::LoKr { first, second, .. } => {
            factor(first, ["lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_t1"], &mut put);
            factor(second, ["lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"], &mut put);
        }
        Update::Full(diff) => {
            put("diff", diff);
        }
        Update::None => {}
    }
    if let Some(bias) = &delta.bias {
        put("diff_b", bias);
    }
    if let Some(magnitude) = &delta.magnitude {
        // One number for each output stands in a column.
        let magnitude = if magnitude.dims().len() == 1 { magnitude.unsqueeze(1)? } else { magnitude.clone() };
        put("dora_scale", &magnitude);
    }
    if let Some(alpha) = alpha(delta) {
        put("alpha", &Tensor::new(alpha as f32, &Device::Cpu)?);
    }
    Ok(())
}

/// `up` with ones behind if `down` is a kernel.
fn like(up: &Tensor, down: &Tensor) -> candle_core::Result<Tensor> {
    match (up.dims(), down.dims().len()) {
        ([a, b], 4) => up.reshape((*a, *b, 1, 1)),
        _ => Ok(up.clone()),
    }
}

fn factor(factor: &Factor, names: [&str; 4], put: &mut impl FnMut(&str, &Tensor) -> Option<Tensor>) {
    let [whole, left, right, core] = names;
    match factor {
        Factor::Whole(t) => {
            put(whole, t);
        }
        Factor::Product(a, b) => {
            put(left, a);
            put(right, b);
        }
        Factor::Tucker(t, a, b) => {
            put(core, t);
            put(left, a);
            put(right, b);
        }
    }
}

/// The alpha of a change as a person would write it: dividing by the rank and multiplying again may leave
/// 0.9999999999999999 of a 1.
fn alpha(delta: &Delta) -> Option<f64> {
    let alpha = delta.alpha()?;
    let short = (alpha * 1e6).round() / 1e6;
    Some(if (short - alpha).abs() <= 4.0 * f64::EPSILON * alpha.abs() { short } else { alpha })
}

/// The factors of plain LoRA and their scale.
///
/// # Errors
/// Another kind.
fn plain<'a>(module: &str, delta: &'a Delta) -> Result<(&'a Tensor, &'a Tensor, f64), LayoutError> {
    match &delta.update {
        Update::Lora { down, up, mid: None, scale } if delta.bias.is_none() => Ok((down, up, *scale)),
        _ => Err(LayoutError::Kind { module: module.into(), kind: delta.kind() }),
    }
}

/// The tensors of one change in diffusers' layout, which has no alpha: the scale is multiplied into `lora_B`.
///
/// # Errors
/// Another kind than LoRA with a magnitude by outputs at most; the tensor library failed.
pub fn diffusers(part: Part, module: &str, delta: &Delta, out: &mut Tensors) -> Result<(), LayoutError> {
    let (.., scale) = plain(module, delta)?;
    factors(&format!("{}.{}", part.folder(), path(part, module)), module, delta, scale, out)
}

/// `lora_A`, `lora_B` times `scale`, and the magnitude.
fn factors(
    name: &str,
    module: &str,
    delta: &Delta,
    scale: f64,
    out: &mut Tensors,
) -> Result<(), LayoutError> {
    let (down, up, _) = plain(module, delta)?;
    out.insert(format!("{name}.lora_A.weight"), down.clone());
    out.insert(format!("{name}.lora_B.weight"), scaled(&like(up, down)?, scale)?);
    if let Some(magnitude) = &delta.magnitude {
        out.insert(format!("{name}.lora_magnitude_vector"), by_rows(module, magnitude)?);
    }
    Ok(())
}

fn scaled(up: &Tensor, scale: f64) -> candle_core::Result<Tensor> {
    if scale == 1.0 {
        return Ok(up.clone());
    }
    (up.to_dtype(DType::F32)? * scale)?.to_dtype(up.dtype())
}

/// PEFT knows one magnitude for each output only.
fn by_rows(module: &str, magnitude: &Tensor) -> Result<Tensor, LayoutError> {
    let rows = magnitude.dims().first().copied().unwrap_or(0);
    if magnitude.elem_count() != rows {
        return Err(LayoutError::ByInputs { module: module.into() });
    }
    Ok(magnitude.flatten_all()?)
}

/// What a folder of PEFT holds. It adapts one network.
#[derive(Debug)]
pub struct Peft {
    /// Of `adapter_model.safetensors`.
    pub tensors: Tensors,
    /// `adapter_config.json`.
    pub config: Value,
}

/// The changes of one network in PEFT's layout.
///
/// PEFT looks for the names in the network it is given: a text encoder has none with `text_model.` in front since
/// transformers 5, and diffusers, which puts that in order for its own layout, has no part in it.
///
/// # Errors
/// Another kind than LoRA with a magnitude by outputs at most; the tensor library failed.
pub fn peft(changes: &Changes) -> Result<Peft, LayoutError> {
    let mut tensors = Tensors::new();
    for (module, delta) in changes {
        factors(&format!("base_model.model.{module}"), module, delta, 1.0, &mut tensors)?;
    }
    Ok(Peft { tensors, config: config(changes) })
}

fn rank_and_alpha(delta: &Delta) -> (usize, f64) {
    (delta.rank().unwrap_or(1), alpha(delta).unwrap_or(1.0))
}

/// The rank and the alpha that most modules have.
pub fn common<'a>(changes: impl IntoIterator<Item = &'a Delta>) -> (usize, f64) {
    let mut counts: BTreeMap<(usize, u64), usize> = BTreeMap::new();
    for delta in changes {
        let (rank, alpha) = rank_and_alpha(delta);
        *counts.entry((rank, alpha.to_bits())).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, n)| *n);
    most.map_or((1, 1.0), |((rank, alpha), _)| (rank, f64::from_bits(alpha)))
}

/// Rank and alpha that most modules have, and the others by name.
fn config(changes: &Changes) -> Value {
    let most = common(changes.values().map(Arc::as_ref));
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for (module, delta) in changes {
        let (rank, alpha) = rank_and_alpha(delta);
        if rank != most.0 {
            ranks.insert(module.clone(), json!(rank));
        }
        if alpha != most.1 {
            alphas.insert(module.clone(), json!(alpha));
        }
    }
    let names: Vec<&String> = changes.keys().collect();
    json!({
        "peft_type": "LORA",
        "r": most.0,
        "lora_alpha": most.1,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": names,
        "bias": "none",
        "lora_dropout": 0.0,
        "use_rslora": false,
        "use_dora": changes.values().any(|delta| delta.magnitude.is_some()),
    })
}
