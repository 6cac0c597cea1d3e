//! The networks of Stable Diffusion, and of upscalers, on candle.
//!
//! Fields and module paths are named as in the checkpoints. Every network is built from an
//! [`atelier_weights::Source`] and its own configuration, and is differentiable from its output to its input and to
//! every weight that is a `Var`; upscalers, which are only used, are not.

mod adapters;
mod clip_text;
mod error;
mod layers;
mod network;
mod operations;
mod resample;
mod resnet;
mod spans;
mod taesd;
mod tokenizer;
mod unet;
mod upscale;
mod vae;

pub use clip_text::{ClipTextConfig, ClipTextModel, TextOutput};
pub use error::{Error, Result};
pub use layers::{Conv2d, GroupNorm, LayerNorm, Linear};
pub use network::{Network, Opened, Prepared};
pub use operations::Operations;
pub use taesd::AutoencoderTiny;
pub use tokenizer::{ClipTokenizer, Encoded, Padding};
pub use unet::{Recording, UNet2DConditionModel, UNetConfig, timestep_embedding};
pub use upscale::{Architecture, Family, Rectifier, Tile, Tiles, Upscaler, UpscalerFile};
pub use vae::{AutoencoderKl, Blending, LatentDistribution, Tiling, VaeConfig};
