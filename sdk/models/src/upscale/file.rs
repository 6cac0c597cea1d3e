//! Files of upscalers.

use super::detect::{self, Found};
use super::{Architecture, Upscaler};
use crate::error::{Error, Result};
use atelier_weights::lora::Applied;
use atelier_weights::{Located, Precision, Provider, Source, Weights};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that was found to hold an upscaler. Its weights are read when the network is built.
#[derive(Clone)]
pub struct UpscalerFile {
    place: String,
    architecture: Architecture,
    tensors: Arc<dyn Provider>,
}

impl std::fmt::Debug for UpscalerFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UpscalerFile({}, {:?})", self.place, self.architecture)
    }
}

impl UpscalerFile {
    /// Opens a file of an upscaler: safetensors, an archive of `torch.save` (`.pth`), GGUF, or the pair of files of ncnn, by
    /// the path of either (`.param`, `.bin`).
    ///
    /// Tensors may have the names of BasicSR and Real-ESRGAN (`body.0.rdb1.conv1.weight`), of BSRGAN and the first ESRGAN
    /// (`RRDB_trunk.0.RDB1.conv1.weight`) or of ESRGAN's training program (`model.1.sub.0.RDB1.conv1.0.weight`). What
    /// network it is, names and shapes say.
    ///
    /// # Errors
    /// Missing or broken files; another network, by its name if that is known.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match super::ncnn::pair(path) {
            Some((param, bin)) => super::ncnn::open(&param, &bin),
            None => Self::of(Arc::new(Weights::open(path)?)),
        }
    }

    /// The upscaler of a file that is open.
    ///
    /// # Errors
    /// Another network, by its name if that is known.
    pub fn of(weights: Arc<Weights>) -> Result<Self> {
        let found = detect::named(&weights)?;
        Ok(Self::found(weights, found))
    }

    pub(super) fn found(weights: Arc<Weights>, found: Found) -> Self {
        let place = weights.place().to_string();
        let tensors = Arc::new(Renamed { weights, names: found.names });
        Self { place, architecture: found.architecture, tensors }
    }

    /// This network with weights between its own and those of `other`: `strength` of its own and `1 - strength` of the
    /// other's (deep network interpolation, Wang et al. 2019, arXiv:1811.10515).
    ///
    /// Of Real-ESRGAN's `realesr-general-x4v3` and `realesr-general-wdn-x4v3` this makes a network that takes away
    /// noise, 1, or leaves it, 0.
    ///
    /// # Errors
    /// Networks of different sizes; a strength outside of 0..1.
    pub fn blended(&self, other: &Self, strength: f64) -> Result<Self> {
        let wrong = |found: String| Error::NotAnUpscaler { place: other.place.clone(), found };
        if other.architecture != self.architecture {
            return Err(wrong(format!(
                "{}, which cannot be blended with {} of {}",
                detect::describe(&other.architecture),
                detect::describe(&self.architecture),
                self.place
            )));
        }
        if !(0.0..=1.0).contains(&strength) {
            return Err(Error::input(
                super::NETWORK,
                format!("expected a strength of 0 to 1, found {strength}"),
            ));
        }
        let paths = [self.tensors.paths(), other.tensors.paths()].concat();
        let parts = [(self.tensors.clone(), strength), (other.tensors.clone(), 1.0 - strength)];
        let tensors = Arc::new(Blended { parts, paths });
        Ok(Self { place: format!("{} and {}", self.place, other.place), tensors, ..*self })
    }

    /// What the network looks like inside.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The files.
    pub fn paths(&self) -> &[PathBuf] {
        self.tensors.paths()
    }

    /// Memory the weights take as `dtype`, in bytes.
    pub fn weight_bytes(&self, precision: impl Into<Precision>) -> u64 {
        precision.into().bytes(self.tensors.elements())
    }

    /// Tensors of the files that the network has no place for, sorted.
    pub fn unused(&self) -> Vec<String> {
        self.tensors.unused()
    }

    /// Builds the network, its weights stored as `precision` says on `device`.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub fn build(&self, precision: impl Into<Precision>, device: &Device) -> Result<Upscaler> {
        Upscaler::new(&Source::new(self.tensors.clone(), precision, device), &self.architecture)
    }
}

/// Tensors under other names than the file's.
struct Renamed {
    weights: Arc<Weights>,
    /// By the names of BasicSR, those of the file.
    names: BTreeMap<String, String>,
}

impl Provider for Renamed {
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> atelier_weights::Result<Tensor> {
        // A name that is not there is looked for as it is, for the sake of the message.
        let stored = self.names.get(name).map_or(name, String::as_str);
        self.weights.get(stored, shape, dtype, device)
    }

    fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn located(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> atelier_weights::Result<Option<(Located, Vec<Applied>)>> {
        match self.names.get(name) {
            Some(stored) => self.weights.located(stored, shape, dtype, device),
            None => Ok(None),
        }
    }

    fn unused(&self) -> Vec<String> {
        let known = |name: &str| self.names.values().any(|stored| stored == name);
        self.weights.names().filter(|name| !known(name)).map(String::from).collect()
    }

    fn paths(&self) -> &[PathBuf] {
        self.weights.paths()
    }

    fn elements(&self) -> u64 {
        let shapes = self.names.values().filter_map(|name| self.weights.info(name));
        shapes.map(|info| info.shape.iter().map(|side| *side as u64).product::<u64>()).sum()
    }
}

/// The weighted sum of the tensors of two files.
struct Blended {
    parts: [(Arc<dyn Provider>, f64); 2],
    paths: Vec<PathBuf>,
}

impl Provider for Blended {
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> atelier_weights::Result<Tensor> {
        let [(first, a), (second, b)] = &self.parts;
        let wide = |part: &Arc<dyn Provider>| part.tensor(name, shape, DType::F32, &Device::Cpu);
        let (x, y) = (wide(first)?, wide(second)?);
        let sum = || ((x * *a)? + (y * *b)?)?.to_dtype(dtype)?.to_device(device);
        sum().map_err(|source| atelier_weights::Error::Tensor {
            place: "blended weights".into(),
            tensor: name.into(),
            source: Box::new(source),
        })
    }

    fn contains(&self, name: &str) -> bool {
        self.parts[0].0.contains(name)
    }

    fn unused(&self) -> Vec<String> {
        self.parts.iter().flat_map(|(part, _)| part.unused()).collect()
    }

    fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    fn elements(&self) -> u64 {
        self.parts[0].0.elements()
    }
}
