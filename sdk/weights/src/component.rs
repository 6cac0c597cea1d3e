//! One network on disk: what its configuration says, and where its tensors are.

use crate::checkpoint::CheckpointPart;
use crate::config::ConfigFile;
use crate::error::Result;
use crate::folder::ComponentFolder;
use crate::source::Provider;
use std::path::Path;
use std::sync::Arc;

/// The files of one network, found and checked, with no tensor read yet.
#[derive(Clone)]
pub struct Component {
    config: ConfigFile,
    tensors: Arc<dyn Provider>,
}

impl Component {
    /// The network in a folder: its `config.json` and its weights.
    ///
    /// # Errors
    /// Files missing or broken.
    pub fn folder(path: impl AsRef<Path>) -> Result<Self> {
        let folder = ComponentFolder::open(path)?;
        Ok(Self { config: folder.config()?, tensors: Arc::new(folder.weights()?) })
    }

    /// What its `config.json` says, or would say.
    pub fn config(&self) -> &ConfigFile {
        &self.config
    }

    /// Its tensors, by the names they have in a folder.
    pub fn tensors(&self) -> &Arc<dyn Provider> {
        &self.tensors
    }
}

impl From<CheckpointPart> for Component {
    fn from(part: CheckpointPart) -> Self {
        Self { config: part.config().clone(), tensors: Arc::new(part) }
    }
}
