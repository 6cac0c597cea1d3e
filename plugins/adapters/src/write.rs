//! Adapters to files.

use atelier_sdk::files::AtomicFile;
use atelier_sdk::{Error, ErrorKind, Result};
use atelier_weights::lora::{Delta, Factor, Part, Update};
use atelier_weights::{Outline, bytes_of, write_safetensors};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::path::Path;

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Writes tensors as a safetensors file, whole or not at all.
///
/// # Errors
/// The place is not writable.
pub fn tensors(path: &Path, tensors: &Tensors, metadata: &BTreeMap<String, String>) -> Result<()> {
    let outlines: Vec<Outline> = tensors.iter().map(|(name, t)| Outline::of(name, t)).collect();
    let mut file = AtomicFile::create(path)?;
    let bytes = |t: &Outline| bytes_of(&tensors[&t.name], t.dtype).map_err(io::Error::other);
    write_safetensors(&mut BufWriter::new(&mut file), outlines, metadata, bytes).map_err(|e| {
        Error::io(format!("cannot write {}", path.display()), e).of_kind(ErrorKind::Environment)
    })?;
    file.commit()
}

/// The tensors of one change in kohya's layout, under the module's path.
///
/// # Errors
/// The tensor library failed.
pub fn kohya(part: Part, module: &str, delta: &Delta, out: &mut Tensors) -> candle_core::Result<()> {
    let (head, text) = match part {
        Part::Unet => ("lora_unet", ""),
        Part::TextEncoder => ("lora_te", "text_model_"),
        Part::TextEncoder2 => ("lora_te2", "text_model_"),
    };
    let name = format!("{head}_{text}{}", module.replace('.', "_"));
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
    if let Some(alpha) = delta.alpha() {
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
