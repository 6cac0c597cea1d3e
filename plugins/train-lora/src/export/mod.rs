//! Trained adapters as files that other programs load.
//!
//! An [`Export`] is checked as a whole before anything is written, in as many layouts as wanted. The same factors and
//! [`Facts`] give the same bytes.

mod digest;
mod facts;
mod metadata;
mod together;

#[cfg(test)]
mod tests;

pub use digest::legacy_hash;
pub use facts::{Base, BaseModel, Facts, Folder};

use atelier_sdk::{Error, ErrorKind, Result, ResultExt};
use atelier_weights::lora::layouts::{self, Changes, LayoutError, Tensors};
use atelier_weights::lora::{Delta, Part};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use together::File;

/// The factors of one module.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The network.
    pub part: Part,
    /// The module's path in diffusers' layout; a text encoder's with or without `text_model.`.
    pub module: String,
    /// (rank, inputs), or (rank, inputs, kh, kw).
    pub down: Tensor,
    /// (outputs, rank), with or without ones behind.
    pub up: Tensor,
    /// The change is `alpha / rank · up · down`.
    pub alpha: f64,
}

/// The number format of a written adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// 16-bit floats.
    #[default]
    F16,
    /// 16-bit floats with the range of 32.
    Bf16,
    /// 32-bit floats.
    F32,
}

impl Format {
    fn dtype(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::F32 => DType::F32,
        }
    }
}

/// A trained adapter, ready to be written.
#[derive(Debug)]
pub struct Export {
    changes: BTreeMap<Part, Changes>,
    facts: BTreeMap<String, String>,
    format: Format,
}

impl Export {
    /// Takes an adapter; factors may lie on any device, in any float format.
    ///
    /// # Errors
    /// Nothing trained, a module twice, factors of two ranks, numbers that are none.
    pub fn new(trained: &[Trained], facts: &Facts, format: Format) -> Result<Self> {
        if trained.is_empty() {
            return Err(Error::invalid("an adapter without a single module is not written"));
        }
        let mut changes = BTreeMap::<Part, Changes>::new();
        for one in trained {
            let module = one.module.strip_prefix("text_model.").unwrap_or(&one.module);
            let twice = changes.entry(one.part).or_default().insert(module.into(), Arc::new(delta(one)?));
            if twice.is_some() {
                return Err(Error::internal(format!("module {module} was trained twice")));
            }
        }
        let all = changes.values().flat_map(|changes| changes.values());
        let (rank, alpha) = layouts::common(all.map(Arc::as_ref));
        Ok(Self { facts: metadata::of(facts, rank, alpha), changes, format })
    }

    /// Writes a file in kohya's layout, in a folder that is there.
    ///
    /// # Errors
    /// Numbers too large for the format; the place is not writable.
    pub fn kohya(&self, file: &Path) -> Result<Vec<PathBuf>> {
        let mut tensors = Tensors::new();
        for (part, module, delta) in self.modules() {
            layouts::kohya(part, module, delta, &mut tensors).map_err(tensors_failed)?;
        }
        together::write(&[], vec![self.file(file.into(), tensors, &[])?])
    }

    /// Writes a folder that diffusers loads with `load_lora_weights`; the folder is made if its parent is there.
    ///
    /// Every program must find the same strength, old ones too, so alpha is multiplied into the factors.
    ///
    /// # Errors
    /// As for [`Self::kohya`].
    pub fn diffusers(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let mut tensors = Tensors::new();
        for (part, module, delta) in self.modules() {
            layouts::diffusers(part, module, delta, &mut tensors).map_err(layout_failed)?;
        }
        let file = folder.join("pytorch_lora_weights.safetensors");
        together::write(&[folder.into()], vec![self.file(file, tensors, TORCH)?])
    }

    /// Writes a folder that PEFT loads with `from_pretrained`, or two below it, `unet` and `text_encoder`, if both were
    /// trained: PEFT adapts one network at a time. The folder is made if its parent is there.
    ///
    /// # Errors
    /// As for [`Self::kohya`].
    pub fn peft(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let (mut folders, mut files) = (vec![folder.to_path_buf()], Vec::new());
        for (part, changes) in &self.changes {
            let place = match self.changes.len() {
                1 => folder.to_path_buf(),
                _ => folder.join(part.folder()),
            };
            let peft = layouts::peft(changes).map_err(layout_failed)?;
            let config = serde_json::to_vec_pretty(&peft.config).internal("a configuration")?;
            files.push(self.file(place.join("adapter_model.safetensors"), peft.tensors, TORCH)?);
            files.push(File { path: place.join("adapter_config.json"), content: config });
            folders.push(place);
        }
        folders.dedup();
        together::write(&folders, files)
    }

    fn modules(&self) -> impl Iterator<Item = (Part, &str, &Delta)> {
        let of = |(part, changes): (&Part, _)| (*part, changes);
        self.changes.iter().map(of).flat_map(|(part, changes): (Part, &Changes)| {
            changes.iter().map(move |(module, delta)| (part, module.as_str(), delta.as_ref()))
        })
    }

    /// The bytes of a file with these tensors in the format, facts and digests.
    fn file(&self, path: PathBuf, mut tensors: Tensors, more: &[(&str, &str)]) -> Result<File> {
        for (name, tensor) in &mut tensors {
            // What is one number, alpha, costs nothing and stays exact.
            if !tensor.dims().is_empty() {
                *tensor = tensor.to_dtype(self.format.dtype()).map_err(tensors_failed)?;
            }
            if !is_finite(tensor).map_err(tensors_failed)? {
                let message = format!("{name} has numbers too large for {:?}", self.format);
                return Err(Error::invalid(message).hint("write the adapter in f32 or bf16"));
            }
        }
        let written = |e| Error::internal("the bytes of an adapter").because(e);
        let mut metadata = self.facts.clone();
        metadata.extend(digest::of(&tensors, &self.facts).map_err(written)?);
        metadata.extend(more.iter().map(|(key, value)| (key.to_string(), value.to_string())));
        let mut content = Vec::new();
        layouts::write(&mut content, &tensors, &metadata).map_err(written)?;
        Ok(File { path, content })
    }
}

/// Files with dots in their names are torch's, and some of its libraries want to be told.
const TORCH: &[(&str, &str)] = &[("format", "pt")];

/// The change of one module, in f32 on the CPU.
fn delta(one: &Trained) -> Result<Delta> {
    let rank = one.down.dims().first().copied().unwrap_or(0);
    let fits = match *one.up.dims() {
        [_, r] => r == rank && matches!(one.down.dims().len(), 2 | 4),
        [_, r, 1, 1] => r == rank && one.down.dims().len() == 4,
        _ => false,
    };
    if !fits || rank == 0 {
        let (down, up) = (one.down.dims(), one.up.dims());
        return Err(Error::internal(format!("module {}: factors {down:?} and {up:?}", one.module)));
    }
    let plain = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous();
    let (down, up) = (plain(&one.down).map_err(tensors_failed)?, plain(&one.up).map_err(tensors_failed)?);
    let finite = |t: &Tensor| is_finite(t).map_err(tensors_failed);
    if !finite(&down)? || !finite(&up)? || !one.alpha.is_finite() {
        let message = format!("module {} has infinities or NaN: the adapter is not written", one.module);
        return Err(Error::new(ErrorKind::Corrupt, message)
            .hint("resume from an earlier checkpoint, with a lower learning rate"));
    }
    Ok(Delta::lora(down, up, one.alpha / rank as f64))
}

fn is_finite(tensor: &Tensor) -> candle_core::Result<bool> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(values.iter().all(|v| v.is_finite()))
}

fn tensors_failed(e: candle_core::Error) -> Error {
    Error::internal("the factors of an adapter").because(e)
}

fn layout_failed(e: LayoutError) -> Error {
    Error::internal("an adapter in another layout").because(e)
}
