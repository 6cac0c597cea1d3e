//! The configuration of an autoencoder.

use super::Tiling;
use atelier_weights::{ConfigFile, Result};
use serde_json::json;

/// The configuration of an autoencoder, as in the `config.json` of its folder.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of an image read.
    pub in_channels: usize,
    /// Channels of an image made.
    pub out_channels: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of each block, outermost first. Each but the last halves the image.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block of the encoder; the decoder's have one more.
    pub layers_per_block: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Whether the middle blocks attend.
    pub mid_block_add_attention: bool,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// The UNet sees (latent - shift) * scaling.
    pub scaling_factor: f64,
    /// See [`Self::scaling_factor`].
    pub shift_factor: f64,
    /// Whether half precision overflows and f32 has to be used.
    pub force_upcast: bool,
}

impl VaeConfig {
    /// Reads and checks a `config.json`; absent fields have the defaults of diffusers.
    ///
    /// Errors, all naming the field: a value outside blocks 1..=8, channels 1..=16,384, layers 1..=64; groups that do not
    /// divide the channels; block types other than `DownEncoderBlock2D` and `UpDecoderBlock2D`.
    pub fn read(file: &ConfigFile) -> Result<Self> {
        let block_out_channels = match file.get("block_out_channels") {
            Some(_) => file.counts("block_out_channels", 1..=16_384, 1..=8)?,
            None => vec![64],
        };
        for (field, name) in
            [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")]
        {
            check_types(file, field, name, block_out_channels.len())?;
        }
        if file.get("act_fn").is_some_and(|v| v != "swish") {
            file.refuse_unless("act_fn", &json!("silu"))?;
        }
        for field in ["latents_mean", "latents_std"] {
            file.refuse(field)?;
        }
        let config = Self {
            in_channels: file.count("in_channels", 1..=1024, Some(3))?,
            out_channels: file.count("out_channels", 1..=1024, Some(3))?,
            latent_channels: file.count("latent_channels", 1..=1024, Some(4))?,
            layers_per_block: file.count("layers_per_block", 1..=64, Some(1))?,
            norm_num_groups: file.count("norm_num_groups", 1..=4096, Some(32))?,
            mid_block_add_attention: file.flag("mid_block_add_attention", true)?,
            use_quant_conv: file.flag("use_quant_conv", true)?,
            use_post_quant_conv: file.flag("use_post_quant_conv", true)?,
            scaling_factor: file.number("scaling_factor", 1e-6..=1e6, Some(0.18215))?,
            shift_factor: file.number("shift_factor", -1e6..=1e6, Some(0.0))?,
            force_upcast: file.flag("force_upcast", true)?,
            block_out_channels,
        };
        for channels in &config.block_out_channels {
            if channels % config.norm_num_groups != 0 {
                let message = format!(
                    "{} groups do not divide the {channels} channels of a block",
                    config.norm_num_groups
                );
                return Err(file.error("norm_num_groups", message));
            }
        }
        Ok(config)
    }

    /// Pixels of an image per pixel of its latent, in each direction.
    pub fn factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// About how many bytes decoding latents of `height` x `width` in f32 takes at most beside the weights. Whole: what
    /// the last block holds at once, its input before and after enlarging, the first norm's result and the first
    /// convolution's. In tiles: what lies before and after a residual block of it, and as much of a tile as of the
    /// whole image.
    pub fn decode_bytes(&self, height: usize, width: usize, tiling: Option<&Tiling>) -> u64 {
        let channels = |i: usize| self.block_out_channels.get(i).copied().unwrap_or(0);
        let outer = channels(0);
        let inner = if self.block_out_channels.len() > 1 { channels(1) } else { outer };
        let (h, w) = (height * self.factor(), width * self.factor());
        let at_once = 2 * inner + outer + inner / 4;
        let values = match tiling {
            Some(t) if h.max(w) > t.seen() => {
                let kept = (2 * outer).max(outer + inner / 4) * h * w;
                kept + at_once * h.min(t.seen()) * w.min(t.seen())
            }
            _ => at_once * h * w,
        };
        4 * values as u64
    }

    /// The autoencoder of Stable Diffusion 1.x and 2.x.
    pub fn sd15() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_num_groups: 32,
            mid_block_add_attention: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            scaling_factor: 0.18215,
            shift_factor: 0.0,
            force_upcast: true,
        }
    }
}

/// Every block must be of the type `name`.
fn check_types(file: &ConfigFile, field: &str, name: &str, blocks: usize) -> Result<()> {
    if file.get(field).is_none() && blocks == 1 {
        return Ok(());
    }
    match file.texts(field, blocks..=blocks)?.iter().find(|found| *found != name) {
        Some(other) => Err(file.error(field, format!("expected {name}, found {other:?}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<VaeConfig> {
        VaeConfig::read(&ConfigFile::parse(text, "vae/config.json")?)
    }

    #[test]
    fn an_sd_1_file_gives_the_sd_1_autoencoder() {
        let text = r#"{"block_out_channels":[128,256,512,512],"layers_per_block":2,"act_fn":"silu",
            "down_block_types":["DownEncoderBlock2D","DownEncoderBlock2D","DownEncoderBlock2D","DownEncoderBlock2D"],
            "up_block_types":["UpDecoderBlock2D","UpDecoderBlock2D","UpDecoderBlock2D","UpDecoderBlock2D"]}"#;
        let config = read(text).unwrap();
        assert_eq!(config, VaeConfig::sd15());
        assert_eq!(config.factor(), 8);
    }

    #[test]
    fn what_it_cannot_be_is_refused_with_field_and_file() {
        for (text, field) in [
            (r#"{"block_out_channels":[64,99999999]}"#, "block_out_channels"),
            (r#"{"block_out_channels":[64],"norm_num_groups":3}"#, "norm_num_groups"),
            (
                r#"{"block_out_channels":[64],"down_block_types":["AttnDownEncoderBlock2D"]}"#,
                "down_block_types",
            ),
            (r#"{"block_out_channels":[64,64]}"#, "down_block_types"),
            (r#"{"latents_mean":[0,0,0,0]}"#, "latents_mean"),
            (r#"{"scaling_factor":0}"#, "scaling_factor"),
            (r#"{"latent_channels":1e12}"#, "latent_channels"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(
                message.contains(&format!("{field:?}")) && message.contains("vae/config.json"),
                "{message}"
            );
        }
    }
}
