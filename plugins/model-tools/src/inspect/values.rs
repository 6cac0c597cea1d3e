//! Reads every number.

use crate::error::weights as failed;
use atelier_sdk::{EngineCtx, Event, Result};
use atelier_weights::{StoredDtype, Weights};

/// Most tensors that are named.
const NAMED: usize = 5;

/// What is wrong with the numbers, tensor by tensor; only the first few are named.
pub fn scan(weights: &Weights, ctx: &mut dyn EngineCtx) -> Result<Vec<String>> {
    let names: Vec<&str> = weights.names().collect();
    let (mut nan, mut infinite, mut zero) = (Vec::new(), Vec::new(), Vec::new());
    for (i, name) in names.iter().enumerate() {
        let is_weight =
            weights.info(name).is_some_and(|t| t.dtype.is_float() || t.dtype == StoredDtype::Quantized);
        if is_weight {
            let bytes = weights.encoded(name, Some(StoredDtype::F32)).map_err(failed)?;
            let (chunks, _) = bytes.as_chunks::<4>();
            let values = || chunks.iter().map(|b| f32::from_le_bytes(*b));
            if values().any(f32::is_nan) {
                nan.push(*name);
            }
            if values().any(f32::is_infinite) {
                infinite.push(*name);
            }
            // Biases and new adapters are often zero; whole kernels are not.
            let kernel = weights.info(name).is_some_and(|t| t.shape.len() > 1);
            if kernel && !chunks.is_empty() && values().all(|v| v == 0.0) {
                zero.push(*name);
            }
        }
        ctx.event(Event::Progress { done: i as u64 + 1, total: names.len() as u64, unit: "tensors".into() })?;
    }
    let mut notes = Vec::new();
    for (what, found) in
        [("have NaN", nan), ("have infinite numbers", infinite), ("are zero throughout", zero)]
    {
        if !found.is_empty() {
            let more = if found.len() > NAMED { ", ..." } else { "" };
            let first: Vec<&str> = found.iter().take(NAMED).copied().collect();
            notes.push(format!("{} tensors {what}: {}{more}", found.len(), first.join(", ")));
        }
    }
    if notes.is_empty() {
        notes.push("every number is finite, and no matrix is zero throughout".into());
    }
    Ok(notes)
}
