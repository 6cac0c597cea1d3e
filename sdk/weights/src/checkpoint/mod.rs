//! Checkpoints in one file, with the names that the first programs for latent diffusion gave their networks
//! (`ldm/modules` of <https://github.com/CompVis/stable-diffusion>), or one network alone.
//!
//! A [`Checkpoint`] says what a file is; its parts give tensors under the names of diffusers' folders, and the
//! configuration that the folders' `config.json` would have, worked out from names and shapes.

mod config;
mod kind;
mod ldm;
mod names;

pub use kind::Kind;
pub use ldm::{Network, ldm_name};

use crate::config::ConfigFile;
use crate::error::{Error, Result};
use crate::header::StoredDtype;
use crate::located::Located;
use crate::lora::Applied;
use crate::source::Provider;
use crate::weights::{Weights, elements};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file with the networks of a model, or with one of them.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    weights: Arc<Weights>,
    kind: Kind,
}

impl Checkpoint {
    /// Opens a safetensors file, an archive of `torch.save` (`.ckpt`, `.pt`, `.pth`) or a GGUF file.
    ///
    /// Errors: see [`Weights::open`]; a file that holds another kind of model is only refused by its parts.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let weights = Arc::new(Weights::open(path)?);
        Ok(Self { path: path.into(), kind: kind::of(&weights), weights })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its tensors under their own names.
    pub fn weights(&self) -> &Arc<Weights> {
        &self.weights
    }

    /// What the network predicts, as diffusers names it, if the file says so: by a tensor `v_pred`, as ComfyUI marks
    /// files, or in its remarks (<https://github.com/Stability-AI/ModelSpec>). Most files say nothing.
    pub fn prediction_type(&self) -> Option<&'static str> {
        if self.weights.info("v_pred").is_some() {
            return Some("v_prediction");
        }
        match self.weights.metadata().get("modelspec.prediction_type")?.as_str() {
            "v" | "v_prediction" => Some("v_prediction"),
            "epsilon" => Some("epsilon"),
            _ => None,
        }
    }

    /// The UNet. Errors: the file has none, or is of another kind.
    pub fn unet(&self) -> Result<CheckpointPart> {
        self.part("UNet", "model.diffusion_model.", names::unet, config::unet)
    }

    /// The autoencoder. Errors: the file has none, or is of another kind.
    pub fn vae(&self) -> Result<CheckpointPart> {
        self.part("autoencoder", "first_stage_model.", names::vae, config::vae)
    }

    /// The text encoder. Errors: the file has none, or is of another kind.
    pub fn text_encoder(&self) -> Result<CheckpointPart> {
        self.part("text encoder", "cond_stage_model.", names::text, config::text)
    }

    fn part(
        &self,
        part: &'static str,
        prefix: &'static str,
        names: fn(&Weights) -> Option<Names>,
        config: fn(&Shapes) -> Option<serde_json::Value>,
    ) -> Result<CheckpointPart> {
        if let Some(found) = self.kind.other() {
            return Err(Error::OtherModel { path: self.path.clone(), found });
        }
        let missing = || {
            let there = format!("it is {}", self.kind.describe());
            Error::MissingPart { path: self.path.clone(), part, prefix, there }
        };
        let names = names(&self.weights).ok_or_else(missing)?;
        let shapes = Shapes { weights: &self.weights, names: &names };
        let fields = config(&shapes).ok_or_else(missing)?;
        // The path is for messages about values that no network can have.
        let config = ConfigFile::parse(&fields.to_string(), &self.path)?;
        Ok(CheckpointPart { weights: self.weights.clone(), names, config })
    }
}

/// Where a tensor of a folder's layout is in the file.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    name: String,
    /// Which third of its rows: OpenCLIP keeps queries, keys and values in one matrix.
    third: Option<usize>,
}

/// The names of one network.
#[derive(Clone, Debug)]
struct Names {
    /// How all its names in the file start.
    root: String,
    /// By the name in a folder.
    stored: BTreeMap<String, Stored>,
    /// Names in the file that are known and not needed.
    ignored: Vec<String>,
}

/// Shapes in the file, by the names of folders.
struct Shapes<'a> {
    weights: &'a Weights,
    names: &'a Names,
}

impl Shapes<'_> {
    fn of(&self, name: &str) -> Option<&[usize]> {
        Some(&self.weights.info(&self.names.stored.get(name)?.name)?.shape)
    }

    fn side(&self, name: &str, dimension: usize) -> Option<usize> {
        self.of(name)?.get(dimension).copied()
    }

    fn has(&self, name: &str) -> bool {
        self.names.stored.contains_key(name)
    }

    /// How many of `name(0)`, `name(1)`, ... there are without a gap.
    fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|i| self.has(&name(*i))).count()
    }
}

/// One network of a [`Checkpoint`], under the names it would have in a folder.
#[derive(Clone, Debug)]
pub struct CheckpointPart {
    weights: Arc<Weights>,
    names: Names,
    config: ConfigFile,
}

impl CheckpointPart {
    /// What its `config.json` would say.
    pub fn config(&self) -> &ConfigFile {
        &self.config
    }

    /// The names of its tensors in a folder, sorted, each with the shape the file has it in.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Vec<usize>)> {
        self.names.stored.iter().filter_map(|(name, stored)| {
            let mut shape = self.weights.info(&stored.name)?.shape.clone();
            if let (Some(_), Some(rows)) = (stored.third, shape.first_mut()) {
                *rows /= 3;
            }
            Some((name.as_str(), shape))
        })
    }

    /// A tensor's elements as [`Weights::encoded`] gives them, and what they are.
    ///
    /// Errors: no such tensor; those of [`Weights::encoded`].
    pub fn encoded(&self, name: &str, dtype: Option<StoredDtype>) -> Result<(StoredDtype, Vec<u8>)> {
        let missing = || Error::MissingTensor {
            place: self.weights.place().into(),
            tensor: name.into(),
            nearest: Vec::new(),
        };
        let stored = self.names.stored.get(name).ok_or_else(missing)?;
        let found = self.weights.stored_as(&stored.name, dtype).ok_or_else(missing)?;
        let mut bytes = self.weights.encoded(&stored.name, dtype)?;
        if let Some(third) = stored.third {
            let length = bytes.len() / 3;
            bytes = bytes.get(third * length..(third + 1) * length).ok_or_else(missing)?.to_vec();
        }
        Ok((found, bytes))
    }

    /// What a tensor is stored as, see [`Weights::stored_as`].
    pub fn stored_as(&self, name: &str, dtype: Option<StoredDtype>) -> Option<StoredDtype> {
        self.weights.stored_as(&self.names.stored.get(name)?.name, dtype)
    }

    /// What a tensor of a folder is called in the file; the names of OpenCLIP's fused matrices stand for three each.
    pub fn name_in_file(&self, name: &str) -> Option<&str> {
        Some(&self.names.stored.get(name)?.name)
    }
}

impl Provider for CheckpointPart {
    fn tensor(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(stored) = self.names.stored.get(name) else {
            return Err(Error::MissingTensor {
                place: self.weights.place().into(),
                tensor: name.into(),
                nearest: Vec::new(),
            });
        };
        let Some(third) = stored.third else {
            return self.weights.get(&stored.name, shape, dtype, device);
        };
        let rows = shape.first().copied().unwrap_or(0);
        let mut whole = shape.to_vec();
        if let Some(all) = whole.first_mut() {
            *all = rows.saturating_mul(3);
        }
        let tensor = self.weights.get(&stored.name, &whole, dtype, device)?;
        let cut = tensor.narrow(0, third * rows, rows).and_then(|t| t.force_contiguous());
        cut.map_err(|source| Error::Tensor {
            place: self.weights.place().into(),
            tensor: stored.name.clone(),
            source: Box::new(source),
        })
    }

    fn contains(&self, name: &str) -> bool {
        self.names.stored.contains_key(name)
    }

    fn located(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Option<(Located, Vec<Applied>)>> {
        match self.names.stored.get(name) {
            Some(stored) if stored.third.is_none() => {
                self.weights.located(&stored.name, shape, dtype, device)
            }
            _ => Ok(None),
        }
    }

    fn release(&self) {
        Provider::release(&*self.weights);
    }

    /// By the names in the file.
    fn unused(&self) -> Vec<String> {
        let known = |name: &String| {
            const ENDS: [&str; 4] = ["position_ids", "logit_scale", "text_projection.weight", "attn_mask"];
            ENDS.iter().any(|end| name.ends_with(end)) || self.names.ignored.contains(name)
        };
        let mut unused = self.weights.unused();
        unused.retain(|name| name.starts_with(&self.names.root) && !known(name));
        unused
    }

    fn paths(&self) -> &[PathBuf] {
        self.weights.paths()
    }

    fn elements(&self) -> u64 {
        self.tensors().map(|(_, shape)| elements(&shape)).sum()
    }

    fn stored_bytes(&self) -> u64 {
        // Parts of a fused matrix are a third of it each.
        let infos = self.names.stored.values().filter_map(|stored| {
            let parts = if stored.third.is_some() { 3 } else { 1 };
            Some(self.weights.info(&stored.name)?.bytes.len() as u64 / parts)
        });
        infos.sum()
    }
}
