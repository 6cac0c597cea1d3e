//! A model on disk: its networks' tensors by name, and the modules that adapters may change.

use crate::error;
use atelier_models::{ClipTextConfig, ClipTextModel, Network as _, UNet2DConditionModel, UNetConfig};
use atelier_sdk::{Error, Result};
use atelier_weights::lora::{Modules, Part};
use atelier_weights::{Checkpoint, ComponentFolder, Provider, Weights};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a model's networks are.
pub enum Model {
    /// A diffusers folder.
    Folder(PathBuf),
    /// A checkpoint in one file.
    File(Checkpoint),
}

/// One network.
pub struct Network {
    /// Its tensors under the names of folders.
    pub provider: Arc<dyn Provider>,
    /// Names and shapes of all of them.
    pub tensors: BTreeMap<String, Vec<usize>>,
    /// What adapters may change.
    pub modules: Modules,
}

impl Network {
    fn new(provider: Arc<dyn Provider>, tensors: BTreeMap<String, Vec<usize>>) -> Self {
        let modules = Modules::from_tensors(tensors.iter().map(|(n, s)| (n.clone(), s.clone())));
        Self { provider, tensors, modules }
    }

    /// The name of a module's weight in this network: some folders put `text_model.` before it.
    pub fn weight_of(&self, module: &str) -> Option<(&str, &[usize])> {
        let plain = format!("{module}.weight");
        let found = [plain.clone(), format!("text_model.{plain}")];
        found
            .iter()
            .find_map(|name| self.tensors.get_key_value(name))
            .map(|(n, s)| (n.as_str(), s.as_slice()))
    }

    /// A tensor in f32.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let shape = self.tensors.get(name).cloned().unwrap_or_default();
        let read = self.provider.tensor(name, &shape, DType::F32, &Device::Cpu);
        read.map_err(error::weights("cannot read the model"))
    }
}

impl Model {
    /// Opens a diffusers folder or a checkpoint in one file.
    ///
    /// # Errors
    /// Nothing there, a damaged file.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Self::Folder(path.into()));
        }
        let opened = Checkpoint::open(path).map_err(error::weights("this is not a model"))?;
        Ok(Self::File(opened))
    }

    /// A network; none if a file does not have it.
    ///
    /// # Errors
    /// A damaged file, a folder without it.
    pub fn network(&self, part: Part) -> Result<Option<Network>> {
        let wrong = || error::weights(format!("cannot open the model's {}", part.folder()));
        match self {
            Self::Folder(root) => {
                let folder = ComponentFolder::open(root.join(part.folder())).map_err(wrong())?;
                let weights = Arc::new(folder.weights().map_err(wrong())?);
                let tensors = shapes(&weights);
                Ok(Some(Network::new(weights, tensors)))
            }
            Self::File(file) => {
                let found = if part == Part::Unet { file.unet() } else { file.text_encoder() };
                match found {
                    Err(atelier_weights::Error::MissingPart { .. }) => Ok(None),
                    Err(e) => Err(wrong()(e)),
                    Ok(found) => {
                        let tensors = found.tensors().map(|(n, s)| (n.to_string(), s)).collect();
                        Ok(Some(Network::new(Arc::new(found), tensors)))
                    }
                }
            }
        }
    }

    /// UNet and text encoder.
    ///
    /// # Errors
    /// The model has neither.
    pub fn networks(&self) -> Result<Vec<(Part, Network)>> {
        let mut found = Vec::new();
        for part in [Part::Unet, Part::TextEncoder] {
            found.extend(self.network(part)?.map(|network| (part, network)));
        }
        if found.is_empty() {
            return Err(Error::invalid("the model has neither a UNet nor a text encoder"));
        }
        Ok(found)
    }
}

/// Names and shapes of all tensors of a file.
fn shapes(weights: &Weights) -> BTreeMap<String, Vec<usize>> {
    let shape = |name: &str| weights.info(name).map(|i| i.shape.clone()).unwrap_or_default();
    weights.names().map(|name| (name.to_string(), shape(name))).collect()
}

/// The modules of UNet and text encoder of a model on disk.
///
/// # Errors
/// It cannot be opened.
pub fn modules_of(path: &Path) -> Result<(Modules, Modules)> {
    let model = Model::open(path)?;
    let of = |part| Ok::<_, Error>(model.network(part)?.map(|n| n.modules).unwrap_or_default());
    Ok((of(Part::Unet)?, of(Part::TextEncoder)?))
}

/// The modules of Stable Diffusion 1.5.
///
/// # Errors
/// None that a person could do something about.
pub fn modules_of_sd15() -> Result<(Modules, Modules)> {
    let failed = |e: atelier_models::Error| Error::internal("the outline of Stable Diffusion 1.5").because(e);
    let unet = UNet2DConditionModel::modules(&UNetConfig::sd15()).map_err(failed)?;
    let text = ClipTextModel::modules(&ClipTextConfig::sd15()).map_err(failed)?;
    Ok((unet, text))
}

/// The modules whose names Stable Diffusion 1.x and 2.x have, with text encoders of any depth.
///
/// # Errors
/// None that a person could do something about.
pub fn names_of_sd() -> Result<(Modules, Modules)> {
    let (unet, _) = modules_of_sd15()?;
    let deep = ClipTextConfig { num_hidden_layers: 32, ..ClipTextConfig::sd15() };
    let text = ClipTextModel::modules(&deep)
        .map_err(|e| Error::internal("the outline of a text encoder").because(e))?;
    Ok((unet, text))
}
