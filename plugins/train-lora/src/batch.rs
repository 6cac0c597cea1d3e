//! What one pass looks at.

use candle_core::Tensor;

/// Noisy latents with what is to be predicted of them.
pub struct Batch {
    /// Of what is drawn by lot inside of the networks.
    pub seed: u64,
    /// (B, channels, h, w).
    pub noisy: Tensor,
    /// (B).
    pub timesteps: Tensor,
    /// As many numbers as `noisy` has.
    pub target: Vec<f32>,
    /// How much each sample counts.
    pub weights: Vec<f64>,
    /// What each sample shows; empty where the caption is left away.
    pub captions: Vec<String>,
    /// The captions' embeddings, each (1, tokens, width); none while the text encoder is trained.
    pub contexts: Vec<Tensor>,
}
