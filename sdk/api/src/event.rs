//! What an engine reports while it runs.

use serde::{Deserialize, Serialize};

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stage {
    /// Reading weights.
    Load,
    /// Prompt or image to embeddings or latents.
    Encode,
    /// Sampling.
    Denoise,
    /// Latents to pixels.
    Decode,
    /// Pixels to more pixels.
    Upscale,
    /// Training: looking at the data, and keeping what frozen networks make of it.
    Prepare,
    /// Training: steps of the weights.
    Train,
    /// Training: looking at images that are not trained on.
    Validate,
}

/// What a preview shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewOf {
    /// Number of the image within the run, from 1.
    pub image: usize,
    /// Steps done, from 1.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
}

/// An event of a run, one line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A stage begins.
    Stage {
        /// Which one.
        stage: Stage,
    },
    /// A sampling step is done.
    Step {
        /// Steps done, from 1.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// Wall time of this step.
        seconds: f64,
    },
    /// A file of the model is in use: its digest joins the metadata.
    File {
        /// What it is for: `unet`, `vae`, ...
        role: String,
        /// Where it is.
        path: std::path::PathBuf,
    },
    /// So much of a long work is done.
    Progress {
        /// What is done, of `total`.
        done: u64,
        /// All there is to do; 0 if that is not known.
        total: u64,
        /// What is counted: `images`, `bytes`, ...
        unit: String,
    },
    /// A measured value.
    Metric {
        /// Its name: `seconds.decode`, ...
        name: String,
        /// Its value.
        value: f64,
    },
    /// Something the person should know that does not stop the run.
    Warning {
        /// What.
        message: String,
    },
}
