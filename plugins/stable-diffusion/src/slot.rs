//! A network that is in memory only while it is needed.

use atelier_diffusion::{files, memory};
use atelier_models::{Network, Prepared};
use atelier_sdk::Result;
use atelier_weights::Precision;
use atelier_weights::lora::{Adaptation, Part};
use candle_core::Device;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One network of a model: loaded when it is first asked for, and again after it was released.
pub struct Slot<M: Network> {
    /// What its folder is called.
    name: &'static str,
    prepared: Prepared<M>,
    precision: Precision,
    device: Device,
    part: Part,
    held: Mutex<Held<M>>,
}

struct Held<M> {
    model: Option<Arc<M>>,
    adaptation: Adaptation,
    unused: Vec<String>,
}

impl<M: Network> Slot<M> {
    /// A network that will be stored as `precision` says on `device`.
    pub fn new(
        name: &'static str,
        prepared: Prepared<M>,
        precision: impl Into<Precision>,
        device: &Device,
    ) -> Self {
        let held = Held { model: None, adaptation: Adaptation::none(), unused: Vec::new() };
        // No adapter is for an autoencoder: the part does not matter there.
        let part = if name == "unet" { Part::Unet } else { Part::TextEncoder };
        Self {
            name,
            prepared,
            precision: precision.into(),
            device: device.clone(),
            part,
            held: Mutex::new(held),
        }
    }

    /// Puts other adapters on the network, which is loaded anew if that changes it.
    pub fn adapt(&self, adaptation: &Adaptation) {
        let mut held = self.held();
        let (before, after) = (&held.adaptation.stack, &adaptation.stack);
        if before.is_empty(self.part) && after.is_empty(self.part) {
            return;
        }
        held.adaptation = adaptation.clone();
        held.model = None;
    }

    /// Its configuration.
    pub fn config(&self) -> &M::Config {
        self.prepared.config()
    }

    /// Memory its weights take when it is loaded, in bytes; 0 where that is not known.
    pub fn bytes(&self) -> u64 {
        // With adapters on them most weights are computed, and lie in no file.
        let computed = !self.held().adaptation.stack.is_empty(self.part);
        if self.device.is_cpu() && !computed {
            return self.prepared.bytes_in_place(self.precision);
        }
        self.prepared.bytes(self.precision)
    }

    /// What its folder is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The files of its weights.
    pub fn paths(&self) -> &[PathBuf] {
        self.prepared.tensors().paths()
    }

    /// Whether it is in memory.
    pub fn is_loaded(&self) -> bool {
        self.held().model.is_some()
    }

    /// The network, loaded if it is not.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub fn get(&self) -> Result<Arc<M>> {
        let mut held = self.held();
        if let Some(model) = &held.model {
            return Ok(model.clone());
        }
        let built = self.prepared.build_adapted(self.part, &held.adaptation, self.precision, &self.device);
        let opened = built.map_err(|e| files::failed(self.name, e))?;
        let model = Arc::new(opened.model);
        held.model = Some(model.clone());
        held.unused = opened.unused.into_iter().map(|tensor| format!("{}: {tensor}", self.name)).collect();
        Ok(model)
    }

    /// Lets the memory go, as soon as nobody uses the network any more.
    pub fn release(&self) {
        self.held().model = None;
        self.rest();
    }

    /// Gives memory back to the system: that of weights which lie in files, which comes again when they are used, and what
    /// was freed.
    pub fn rest(&self) {
        self.prepared.tensors().release();
        memory::return_freed();
    }

    /// The tensors in its files that it has no place for; known once it was loaded.
    pub fn unused(&self) -> Vec<String> {
        self.held().unused.clone()
    }

    fn held(&self) -> MutexGuard<'_, Held<M>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
