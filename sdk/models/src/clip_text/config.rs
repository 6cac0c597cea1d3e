//! The configuration of a CLIP text encoder.

use crate::operations::Operations;
use atelier_ops::Activation;
use atelier_weights::{ConfigFile, Result};

/// The configuration of a CLIP text encoder, as in the `config.json` of its folder.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Entries of the token table.
    pub vocab_size: usize,
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of each layer.
    pub num_attention_heads: usize,
    /// The most tokens of a prompt, 77 in every released model.
    pub max_position_embeddings: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Added to variances.
    pub layer_norm_eps: f64,
    /// The token that ends a prompt, where the pooled output is read; 2 stands for the largest id, as in old files.
    pub eos_token_id: usize,
}

impl ClipTextConfig {
    /// Reads and checks a `config.json`; absent fields have the defaults of transformers.
    ///
    /// Errors: a value outside vocabulary 1..=1,000,000, hidden size 1..=16,384, intermediate size 1..=65,536, layers
    /// 1..=64, heads 1..=256, positions 1..=4,096; a hidden size that the heads do not divide; another activation.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let config = Self {
            vocab_size: file.count("vocab_size", 1..=1_000_000, Some(49408))?,
            hidden_size: file.count("hidden_size", 1..=16_384, Some(512))?,
            intermediate_size: file.count("intermediate_size", 1..=65_536, Some(2048))?,
            num_hidden_layers: file.count("num_hidden_layers", 1..=64, Some(12))?,
            num_attention_heads: file.count("num_attention_heads", 1..=256, Some(8))?,
            max_position_embeddings: file.count("max_position_embeddings", 1..=4096, Some(77))?,
            hidden_act: activation(file)?,
            layer_norm_eps: file.number("layer_norm_eps", 0.0..=1.0, Some(1e-5))?,
            eos_token_id: file.count("eos_token_id", 0..=1_000_000, Some(49407))?,
        };
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let message = format!(
                "{} heads do not divide hidden_size {}",
                config.num_attention_heads, config.hidden_size
            );
            return Err(file.error("num_attention_heads", message));
        }
        Ok(config)
    }

    /// The text encoder of Stable Diffusion 1.x (CLIP ViT-L/14).
    pub fn sd15() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
        }
    }

    /// The text encoder of Stable Diffusion 2.x (OpenCLIP ViT-H/14 without its last layer).
    pub fn sd21() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 23,
            num_attention_heads: 16,
            hidden_act: Activation::Gelu,
            ..Self::sd15()
        }
    }
}

impl ClipTextConfig {
    /// Operations of encoding so many prompts of so many tokens. A causal mask saves none: scores that are masked are
    /// computed first.
    pub fn operations(&self, prompts: usize, tokens: usize) -> Operations {
        let (rows, width, inner) = (prompts * tokens, self.hidden_size, self.intermediate_size);
        let mut sum = Operations::default();
        for _ in 0..self.num_hidden_layers {
            (0..4).for_each(|_| sum.connect(rows, width, width));
            sum.attend(prompts, tokens, tokens, width);
            sum.connect(rows, width, inner);
            sum.connect(rows, inner, width);
        }
        sum
    }
}

fn activation(file: &ConfigFile) -> Result<Activation> {
    match file.text("hidden_act", Some("quick_gelu"))?.as_str() {
        "quick_gelu" => Ok(Activation::QuickGelu),
        "gelu" => Ok(Activation::Gelu),
        "silu" | "swish" => Ok(Activation::Silu),
        other => Err(file.error("hidden_act", format!("expected quick_gelu, gelu or silu, found {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_of_stable_diffusion_1_takes_what_is_published() {
        let got = ClipTextConfig::sd15().operations(1, 77).total() as f64 / 1e9;
        assert!((got - 13.3).abs() < 0.05, "{got}");
    }
}
