//! Tensors into a file.

use super::Report;
use super::numbers::{Container, Numbers};
use atelier_sdk::files::{AtomicFile, cannot_write};
use atelier_sdk::{EngineCtx, Error, Event, Result};
use atelier_weights::{Elements, GgufOutline, Outline, StoredDtype, write_gguf, write_safetensors};
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::io::{self, BufWriter};
use std::path::Path;

/// A tensor and how to read it.
pub struct Item<'a> {
    /// Its name in the new file.
    pub name: String,
    /// Its shape there.
    pub shape: Vec<usize>,
    /// How its elements will lie.
    pub elements: Elements,
    /// What they are in their file.
    pub found: StoredDtype,
    /// Reads them as they will lie.
    pub read: Box<dyn Fn() -> Result<Vec<u8>> + 'a>,
}

impl Item<'_> {
    fn bytes(&self) -> u64 {
        self.elements.bytes(&self.shape).unwrap_or_default()
    }
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

/// Writes a file and adds to the report.
///
/// # Errors
/// A tensor cannot be read; the disk is full; stopped on request.
pub fn file(
    path: &Path,
    items: &[Item<'_>],
    numbers: Numbers,
    metadata: &BTreeMap<String, String>,
    report: &mut Report,
    ctx: &mut dyn EngineCtx,
) -> Result<()> {
    let by_name: BTreeMap<&str, &Item<'_>> = items.iter().map(|i| (i.name.as_str(), i)).collect();
    let total: u64 = items.iter().map(Item::bytes).sum();
    let mut done = 0;
    let mut overflowed = Vec::new();
    let mut out = AtomicFile::create(path)?;
    let mut buffer = BufWriter::with_capacity(1 << 20, &mut out);
    let mut content = |name: &str| {
        let Some(item) = by_name.get(name) else {
            return Err(Failure::Other(Error::internal("a tensor without a source")));
        };
        let bytes = (item.read)().map_err(Failure::Other)?;
        if has_infinite(item, &bytes) {
            overflowed.push(item.name.clone());
        }
        done += bytes.len() as u64;
        ctx.event(Event::Progress { done, total, unit: "bytes".into() }).map_err(Failure::Other)?;
        Ok(bytes)
    };
    let mut metadata = metadata.clone();
    let written = match numbers.container() {
        Container::Safetensors => {
            // What such files of torch say.
            metadata.insert("format".into(), "pt".into());
            let outlines = items.iter().filter_map(outline).collect();
            write_safetensors(&mut buffer, outlines, &metadata, |o| content(&o.name))
        }
        Container::Gguf => {
            metadata.remove("format");
            metadata.entry("general.architecture".into()).or_insert_with(|| architecture(&by_name).into());
            let outlines: Vec<_> = by_name.values().map(|item| gguf_outline(item)).collect();
            write_gguf(&mut buffer, &outlines, &metadata, |o| content(&o.name))
        }
    };
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

fn outline(item: &Item<'_>) -> Option<Outline> {
    let Elements::Plain(dtype) = item.elements else { return None };
    Some(Outline { name: item.name.clone(), dtype, shape: item.shape.clone() })
}

fn gguf_outline(item: &Item<'_>) -> GgufOutline {
    GgufOutline { name: item.name.clone(), elements: item.elements, shape: item.shape.clone() }
}

/// What programs that read GGUF call the architecture, by names that only one of them has.
fn architecture(names: &BTreeMap<&str, &Item<'_>>) -> &'static str {
    let has = |start: &str| names.range(start..).next().is_some_and(|(name, _)| name.starts_with(start));
    match (has("cond_stage_model.transformer."), has("cond_stage_model.model.")) {
        (true, _) => "sd1",
        (_, true) => "sd2",
        _ => "unknown",
    }
}

/// Whether numbers became infinite by becoming narrower.
fn has_infinite(item: &Item<'_>, bytes: &[u8]) -> bool {
    let (halves, _) = bytes.as_chunks::<2>();
    match item.elements {
        Elements::Plain(to) if to == item.found => false,
        Elements::Plain(StoredDtype::F16) => halves.iter().any(|b| f16::from_le_bytes(*b).is_infinite()),
        Elements::Plain(StoredDtype::BF16) => halves.iter().any(|b| bf16::from_le_bytes(*b).is_infinite()),
        _ => false,
    }
}
