//! Tensors into a file.

use super::Report;
use atelier_sdk::files::{AtomicFile, cannot_write};
use atelier_sdk::{EngineCtx, Error, Event, Result};
use atelier_weights::{Outline, StoredDtype, write_safetensors};
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::path::Path;

/// A tensor and how to read it.
pub struct Item<'a> {
    /// What it will be.
    pub outline: Outline,
    /// What it is in its file.
    pub found: StoredDtype,
    /// Reads it in the type that is asked for.
    pub read: Box<dyn Fn(Option<StoredDtype>) -> Result<Vec<u8>> + 'a>,
}

enum Failure {
    Write(io::Error),
    Other(Error),
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Write(e)
    }
}

/// Writes a safetensors file and adds to the report.
///
/// # Errors
/// A tensor cannot be read; the disk is full; stopped on request.
pub fn file(
    path: &Path,
    items: &[Item<'_>],
    dtype: Option<StoredDtype>,
    metadata: &BTreeMap<String, String>,
    report: &mut Report,
    ctx: &mut dyn EngineCtx,
) -> Result<()> {
    let by_name: BTreeMap<&str, &Item<'_>> = items.iter().map(|i| (i.outline.name.as_str(), i)).collect();
    let total: u64 = items.iter().map(|i| i.outline.bytes()).sum();
    let mut done = 0;
    let mut overflowed = Vec::new();
    let mut out = AtomicFile::create(path)?;
    let mut buffer = BufWriter::with_capacity(1 << 20, &mut out);
    let outlines = items.iter().map(|i| i.outline.clone()).collect();
    let written = write_safetensors(&mut buffer, outlines, metadata, |outline| {
        let Some(item) = by_name.get(outline.name.as_str()) else {
            return Err(Failure::Other(Error::internal("a tensor without a source")));
        };
        let bytes = (item.read)(dtype).map_err(Failure::Other)?;
        if narrower(item.found, outline.dtype) && has_infinite(&bytes, outline.dtype) {
            overflowed.push(outline.name.clone());
        }
        done += bytes.len() as u64;
        ctx.event(Event::Progress { done, total, unit: "bytes".into() }).map_err(Failure::Other)?;
        Ok(bytes)
    });
    written.map_err(|e| match e {
        Failure::Write(e) => cannot_write(path, e),
        Failure::Other(e) => e,
    })?;
    drop(buffer);
    out.commit()?;
    if let [first, ..] = overflowed.as_slice() {
        report.notes.push(format!(
            "{} tensors have numbers too large for the format, which are infinite now, such as {first}; bf16 holds them",
            overflowed.len()
        ));
    }
    report.tensors += items.len();
    report.bytes += total;
    Ok(())
}

fn narrower(from: StoredDtype, to: StoredDtype) -> bool {
    from != to && matches!(to, StoredDtype::F16 | StoredDtype::BF16)
}

fn has_infinite(bytes: &[u8], dtype: StoredDtype) -> bool {
    let (halves, _) = bytes.as_chunks::<2>();
    match dtype {
        StoredDtype::F16 => halves.iter().any(|b| f16::from_le_bytes(*b).is_infinite()),
        _ => halves.iter().any(|b| bf16::from_le_bytes(*b).is_infinite()),
    }
}
