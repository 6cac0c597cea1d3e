//! The tiny autoencoder TAESD (<https://github.com/madebyollin/taesd>): convolutions alone, no norms, no attention. It
//! decodes in a hundredth of the autoencoder's time, a little less sharply. diffusers calls it `AutoencoderTiny`.

mod layers;

use crate::Opened;
use crate::error::{Error, Result};
use atelier_weights::{ConfigFile, Source, Weights};
use candle_core::{DType, Device, Tensor};
use layers::{Direction, Layers};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

const NETWORK: &str = "tiny autoencoder";

/// A tiny autoencoder between images and latents as the UNet sees them (already scaled). Files often have one half.
#[derive(Clone, Debug)]
pub struct AutoencoderTiny {
    encoder: Option<Layers>,
    decoder: Option<Layers>,
}

impl AutoencoderTiny {
    /// Opens one half or both: a folder of diffusers, or a file with diffusers' names (`decoder.layers.0.weight`), the
    /// original ones of one half (`1.weight`), or those of stable-diffusion.cpp (`first_stage_model.decoder.1.weight`).
    /// What the network looks like, its tensors say. Stored as `dtype` on `device`.
    ///
    /// Errors: missing or broken files, tensors of another network, a configuration of another kind.
    pub fn open(path: impl AsRef<Path>, dtype: DType, device: &Device) -> Result<Opened<Self>> {
        let path = path.as_ref();
        if path.join("config.json").is_file() {
            check(&ConfigFile::read(path.join("config.json"))?)?;
        }
        let weights = Arc::new(Weights::open(path)?);
        let source = Source::from_weights(weights.clone(), dtype, device);
        let half = |direction| Layers::find(&weights, &source, direction);
        let model = Self { encoder: half(Direction::Encode)?, decoder: half(Direction::Decode)? };
        if model.encoder.is_none() && model.decoder.is_none() {
            let message = "expected an encoder or decoder of a tiny autoencoder (TAESD), found other names";
            let field = "tensors".into();
            let (path, message) = (path.into(), message.into());
            return Err(atelier_weights::Error::Config { path, field, message }.into());
        }
        Ok(Opened { model, unused: weights.unused() })
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        let decoder = self.decoder.as_ref().map(Layers::inputs);
        decoder.or(self.encoder.as_ref().map(Layers::outputs)).unwrap_or(0)
    }

    /// Pixels of an image per pixel of its latent, in each direction.
    pub fn factor(&self) -> usize {
        self.decoder.as_ref().or(self.encoder.as_ref()).map_or(1, Layers::factor)
    }

    /// Whether it has the half that decodes.
    pub fn decodes(&self) -> bool {
        self.decoder.is_some()
    }

    /// Whether it has the half that encodes.
    pub fn encodes(&self) -> bool {
        self.encoder.is_some()
    }

    /// Decodes latents as the UNet sees them (B, latent channels, h, w) to images (B, 3, h * factor, w * factor) of
    /// values about -1..1, in the latents' dtype.
    ///
    /// Errors: another number of channels; a file without decoder.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let decoder = self.half(self.decoder.as_ref(), "decoder", latents)?;
        // Beyond 3 latents hardly go; the network was trained with this in front of it.
        let image = || decoder.forward(&((latents / 3.0)?.tanh()? * 3.0)?)?.affine(2.0, -1.0);
        image().map_err(Error::compute(NETWORK))
    }

    /// Encodes images (B, 3, H, W) of values -1..1 as latents as the UNet sees them (B, latent channels, h, w).
    ///
    /// Errors: another number of channels; a file without encoder.
    pub fn encode(&self, images: &Tensor) -> Result<Tensor> {
        let encoder = self.half(self.encoder.as_ref(), "encoder", images)?;
        let latents = || encoder.forward(&images.affine(0.5, 0.5)?);
        latents().map_err(Error::compute(NETWORK))
    }

    fn half<'a>(&self, half: Option<&'a Layers>, name: &str, x: &Tensor) -> Result<&'a Layers> {
        let half = half.ok_or_else(|| Error::input(NETWORK, format!("its file has no {name}")))?;
        let channels = half.inputs();
        match *x.dims() {
            [b, n, h, w] if n == channels && b * h * w > 0 => Ok(half),
            _ => {
                let message = format!("expected (batch, {channels}, height, width), found {:?}", x.dims());
                Err(Error::input(NETWORK, message))
            }
        }
    }
}

/// What a configuration may say that the tensors do not.
fn check(config: &ConfigFile) -> atelier_weights::Result<()> {
    for (field, known) in [
        ("_class_name", json!("AutoencoderTiny")),
        ("act_fn", json!("relu")),
        ("upsample_fn", json!("nearest")),
        ("upsampling_scaling_factor", json!(2)),
        ("scaling_factor", json!(1.0)),
        ("shift_factor", json!(0.0)),
    ] {
        config.refuse_unless(field, &known)?;
    }
    Ok(())
}
