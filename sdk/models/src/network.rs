//! What all networks have in common: they are built from a configuration and named tensors.

use crate::error::Result;
use atelier_weights::lora::{Adaptation, Modules, Part};
use atelier_weights::{CheckpointPart, Component, ConfigFile, Precision, Provider, Source};
use candle_core::Device;
use std::path::Path;
use std::sync::Arc;

/// A network that checkpoints hold.
pub trait Network: Sized {
    /// What its `config.json` says.
    type Config;

    /// Reads a configuration.
    ///
    /// # Errors
    /// Values missing or out of bounds.
    fn configure(file: &ConfigFile) -> Result<Self::Config>;

    /// Builds the network from its tensors.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    fn build(source: &Source, config: &Self::Config) -> Result<Self>;

    /// The modules of a network of this configuration, without weights.
    ///
    /// # Errors
    /// A configuration that no network can be built from.
    fn modules(config: &Self::Config) -> Result<Modules> {
        Modules::of(|source| Self::build(source, config))
    }

    /// Builds the network of a folder, its `config.json` and weights, stored as `precision` says on `device`.
    ///
    /// # Errors
    /// Files missing or broken, a configuration out of bounds, weights of another architecture.
    fn open(
        folder: impl AsRef<Path>,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Opened<Self>> {
        Prepared::new(Component::folder(folder)?)?.build(precision, device)
    }

    /// Builds the network from a part of a checkpoint in one file, stored as `precision` says on `device`.
    ///
    /// # Errors
    /// A configuration out of bounds, missing or misshapen tensors.
    fn from_part(
        part: CheckpointPart,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Opened<Self>> {
        Prepared::new(part.into())?.build(precision, device)
    }
}

/// A network together with the names of the tensors in its files that it has no place for.
///
/// Buffers such as `position_ids` are harmless; anything else means that the weights are of another architecture
/// than the configuration.
#[derive(Debug)]
pub struct Opened<M> {
    /// The network.
    pub model: M,
    /// Tensors in the files that the network did not ask for, sorted.
    pub unused: Vec<String>,
}

/// A network whose configuration is read and whose tensors are not.
pub struct Prepared<M: Network> {
    config: M::Config,
    tensors: Arc<dyn Provider>,
}

impl<M: Network> Prepared<M> {
    /// Reads the configuration of a network.
    ///
    /// # Errors
    /// Values missing or out of bounds.
    pub fn new(component: Component) -> Result<Self> {
        Ok(Self::of(M::configure(component.config())?, component.tensors().clone()))
    }

    /// A network of these tensors.
    pub fn of(config: M::Config, tensors: Arc<dyn Provider>) -> Self {
        Self { config, tensors }
    }

    /// The configuration.
    pub fn config(&self) -> &M::Config {
        &self.config
    }

    /// The tensors, by the names they have in a folder.
    pub fn tensors(&self) -> &Arc<dyn Provider> {
        &self.tensors
    }

    /// Memory the weights take as `precision` says, in bytes; 0 where that is not known.
    pub fn bytes(&self, precision: impl Into<Precision>) -> u64 {
        precision.into().bytes(self.tensors.elements())
    }

    /// [`Self::bytes`], where those of layers are used where they lie in their files if they can be.
    pub fn bytes_in_place(&self, precision: impl Into<Precision>) -> u64 {
        let (precision, stored) = (precision.into(), self.tensors.stored_bytes());
        let bytes = self.bytes(precision);
        if precision.takes_what_is_stored() && stored > 0 { bytes.min(stored) } else { bytes }
    }

    /// Builds the network, stored as `precision` says on `device`.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub fn build(&self, precision: impl Into<Precision>, device: &Device) -> Result<Opened<M>> {
        self.build_from(&Source::new(self.tensors.clone(), precision, device))
    }

    /// [`Self::build`] with adapters on the weights, those for `part`.
    ///
    /// # Errors
    /// As for [`Self::build`].
    pub fn build_adapted(
        &self,
        part: Part,
        adaptation: &Adaptation,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Result<Opened<M>> {
        self.build_from(&adaptation.source(part, self.tensors.clone(), precision, device))
    }

    fn build_from(&self, source: &Source) -> Result<Opened<M>> {
        let model = M::build(source, &self.config)?;
        // Old text encoders save the numbers 0..77 as a buffer.
        let mut unused = self.tensors.unused();
        unused.retain(|name| !name.ends_with("position_ids"));
        Ok(Opened { model, unused })
    }
}
