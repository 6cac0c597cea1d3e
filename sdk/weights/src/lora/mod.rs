//! Adapters: small files that change the weights of a model (LoRA and its relatives).
//!
//! An [`Adapter`] is read from any of the layouts in use, each change named by network and module as the file spells
//! it. [`Adapter::resolve`] finds the modules of a model, [`Stack`] puts several together, each with its
//! [`Strength`], and [`Adapted`] is a provider of tensors with all of them added, or handed to the layers.

mod adapted;
mod base;
mod build;
mod delta;
mod dropout;
mod keys;
pub mod layouts;
mod modules;
mod peft;
mod resolve;
mod strength;
mod train;

pub use adapted::{Adaptation, Adapted, Applied, Mode, Stack};
pub use base::Base;
pub use delta::{Delta, Factor, Update};
pub use dropout::{Dropout, ModuleDropout};
pub use keys::{Layout, Part, Spelling};
pub use modules::Modules;
pub use resolve::Resolved;
pub use strength::{BlockWeights, Strength};
pub use train::{FactorShapes, Trainable};

use crate::error::{Error, Result};
use crate::header::StoredDtype;
use crate::weights::Weights;
use build::Group;
use candle_core::{DType, Device, Tensor};
use keys::Role;
use peft::Scales;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The changes in one file.
#[derive(Clone, Debug)]
pub struct Adapter {
    path: PathBuf,
    layout: Layout,
    changes: BTreeMap<(Part, Spelling), Arc<Delta>>,
    embeddings: Vec<String>,
    ignored: Vec<String>,
    metadata: BTreeMap<String, String>,
}

/// The tensors of each module, not yet read.
type Groups = BTreeMap<(Part, Spelling), Vec<(Role, String)>>;

impl Adapter {
    /// Opens a file (safetensors, or an archive of `torch.save`), or the folder that PEFT or diffusers writes.
    ///
    /// A file of PEFT has no alpha; it is taken from the `adapter_config.json` beside it, else to be the rank.
    /// Errors: those of [`Weights::open`]; a file that holds something else, or another kind of adapter; factors that
    /// do not belong together; numbers that are none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = file_of(path.as_ref())?;
        let weights = Weights::open(&path)?;
        let mut adapter = Self {
            layout: Layout::Kohya,
            changes: BTreeMap::new(),
            embeddings: Vec::new(),
            ignored: Vec::new(),
            metadata: weights.metadata().clone(),
            path,
        };
        let groups = adapter.sort(&weights)?;
        let scales = adapter.scales()?;
        for ((part, module), tensors) in groups {
            let scale = scales.as_ref().and_then(|s| s.of(part, &module));
            let delta = adapter.group(&weights, &module, tensors, scale)?.delta()?;
            adapter.changes.insert((part, module), Arc::new(delta));
        }
        Ok(adapter)
    }

    /// Changes that were made, not read: under the paths of modules.
    pub fn from_changes(
        path: impl Into<PathBuf>,
        changes: impl IntoIterator<Item = (Part, String, Delta)>,
    ) -> Self {
        let spelt = |(part, name, delta)| ((part, Spelling::Path(name)), Arc::new(delta));
        Self {
            path: path.into(),
            layout: Layout::Diffusers,
            changes: changes.into_iter().map(spelt).collect(),
            embeddings: Vec::new(),
            ignored: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// Sorts the names of a file by module.
    fn sort(&mut self, weights: &Weights) -> Result<Groups> {
        let mut groups = Groups::new();
        let mut layout = None;
        for name in weights.names() {
            if let Some(key) = keys::parse(name) {
                layout.get_or_insert(key.layout);
                groups.entry((key.part, key.module)).or_default().push((key.role, name.into()));
            } else if name.starts_with('<') || name.starts_with("bundle_emb.") {
                self.embeddings.push(name.into());
            } else {
                self.ignored.push(name.into());
            }
        }
        let other = self.ignored.iter().find_map(|name| keys::other_kind(name));
        match (layout, other) {
            (_, Some(found)) => Err(Error::OtherAdapter { path: self.path.clone(), found }),
            (None, None) => Err(Error::NotAnAdapter {
                path: self.path.clone(),
                found: crate::Checkpoint::open(&self.path)?.kind().describe(),
            }),
            (Some(layout), None) => {
                self.layout = layout;
                Ok(groups)
            }
        }
    }

    fn scales(&self) -> Result<Option<Scales>> {
        let beside = self.path.with_file_name("adapter_config.json");
        if self.layout == Layout::Peft && beside.is_file() {
            return Scales::read(&beside).map(Some);
        }
        Scales::in_header(self.metadata.get(Scales::key()), &self.path)
    }

    /// Reads the tensors of one module.
    fn group(
        &self,
        weights: &Weights,
        module: &Spelling,
        tensors: Vec<(Role, String)>,
        scale: Option<f64>,
    ) -> Result<Group<'_>> {
        let mut group =
            Group { path: &self.path, module: module.to_string(), tensors: BTreeMap::new(), scale };
        for (role, name) in tensors {
            let mut tensor = read(weights, &name)?;
            if role == Role::Magnitude && !name.ends_with(".dora_scale") {
                // PEFT's is always one number for each output, however it lies.
                tensor = tensor.flatten_all().map_err(failed(&self.path, &name))?;
            }
            if !is_finite(&tensor).map_err(failed(&self.path, &name))? {
                return Err(Error::NotFinite { path: self.path.clone(), tensor: name });
            }
            if group.tensors.insert(role, tensor).is_some() {
                return Err(Error::DuplicateTensor { path: self.path.clone(), tensor: name });
            }
        }
        Ok(group)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The changes by network and module, as the file spells it.
    pub fn changes(&self) -> impl Iterator<Item = (Part, &Spelling, &Delta)> {
        self.changes.iter().map(|((part, module), delta)| (*part, module, delta.as_ref()))
    }

    /// How many modules of a network it changes.
    pub fn count(&self, part: Part) -> usize {
        self.changes.keys().filter(|(p, _)| *p == part).count()
    }

    /// Embeddings of words that came along (textual inversion).
    pub fn embeddings(&self) -> &[String] {
        &self.embeddings
    }

    /// Names that mean nothing here.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The remarks of the file's header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

/// The file with the tensors, given a file or a folder.
fn file_of(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.into());
    }
    const NAMES: [&str; 4] = [
        "adapter_model.safetensors",
        "adapter_model.bin",
        "pytorch_lora_weights.safetensors",
        "pytorch_lora_weights.bin",
    ];
    let found = NAMES.iter().map(|name| path.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| Error::MissingFile {
        folder: path.into(),
        expected: NAMES.join(" or "),
        found: crate::folder::listing(path),
    })
}

/// A tensor as it is stored, or in f32.
fn read(weights: &Weights, name: &str) -> Result<Tensor> {
    let info = weights.info(name);
    let dtype = match info.map(|i| i.dtype) {
        Some(StoredDtype::F16) => DType::F16,
        Some(StoredDtype::BF16) => DType::BF16,
        _ => DType::F32,
    };
    let shape = info.map(|i| i.shape.clone()).unwrap_or_default();
    weights.get(name, &shape, dtype, &Device::Cpu)
}

fn is_finite(tensor: &Tensor) -> candle_core::Result<bool> {
    Ok(tensor.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?.is_finite())
}

fn failed(path: &Path, name: &str) -> impl Fn(candle_core::Error) -> Error {
    let (place, tensor) = (path.display().to_string(), name.to_string());
    move |source| Error::Tensor { place: place.clone(), tensor: tensor.clone(), source: Box::new(source) }
}
