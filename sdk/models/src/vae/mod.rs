//! The autoencoder of Stable Diffusion ("High-Resolution Image Synthesis with Latent Diffusion Models", Rombach et al.
//! 2022), as diffusers' `AutoencoderKL` saves it.

mod blended;
mod blocks;
mod config;
mod operations;
mod tiles;

pub use blended::Blending;
pub use config::VaeConfig;
pub use tiles::Tiling;

use crate::error::{Error, Result};
use crate::layers::{Conv2d, compute_dtype, products};
use crate::network::Network;
use atelier_ops::{Products, span, with_products};
use atelier_weights::{ConfigFile, Source};
use blocks::{Decoder, Encoder};
use candle_core::{DType, Tensor};

const NETWORK: &str = "autoencoder";

/// The normal distribution an image is encoded as; all tensors (B, latent channels, h, w).
#[derive(Clone, Debug)]
pub struct LatentDistribution {
    /// The mean.
    pub mean: Tensor,
    /// The logarithm of the variance, between -30 and 20.
    pub logvar: Tensor,
}

impl LatentDistribution {
    /// The standard deviation.
    pub fn std(&self) -> Result<Tensor> {
        (&self.logvar * 0.5).and_then(|t| t.exp()).map_err(Error::compute(NETWORK))
    }

    /// A sample, given standard normal `noise` of the mean's shape.
    ///
    /// Errors: noise of another shape.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        let std = self.std()?;
        (std * noise).and_then(|t| &self.mean + t).map_err(Error::compute(NETWORK))
    }
}

/// Stages one after the other.
fn staged(
    stages: Vec<tiles::Stage<'_>>,
    mut x: Tensor,
    tiling: Option<&Tiling>,
) -> candle_core::Result<Tensor> {
    for stage in stages {
        x = match tiling {
            Some(tiling) => tiles::run(&stage, &x, tiling)?,
            None => stage.forward(&x)?,
        };
    }
    Ok(x)
}

/// An autoencoder between images and latents.
#[derive(Clone, Debug)]
pub struct AutoencoderKl {
    config: VaeConfig,
    encoder: Encoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
    decoder: Decoder,
    dtype: DType,
    products: Products,
}

impl Network for AutoencoderKl {
    type Config = VaeConfig;

    fn configure(file: &ConfigFile) -> Result<VaeConfig> {
        Ok(VaeConfig::read(file)?)
    }

    fn build(source: &Source, config: &VaeConfig) -> Result<Self> {
        Self::new(source, config)
    }
}

impl AutoencoderKl {
    /// Builds the autoencoder from `source`. Errors: missing or misshapen tensors.
    pub fn new(source: &Source, config: &VaeConfig) -> Result<Self> {
        let pointwise = |name, channels| Conv2d::same(&source.pp(name), channels, channels, 1);
        let latent = config.latent_channels;
        Ok(Self {
            config: config.clone(),
            encoder: Encoder::new(&source.pp("encoder"), config)?,
            quant_conv: config.use_quant_conv.then(|| pointwise("quant_conv", 2 * latent)).transpose()?,
            post_quant_conv: config
                .use_post_quant_conv
                .then(|| pointwise("post_quant_conv", latent))
                .transpose()?,
            decoder: Decoder::new(&source.pp("decoder"), config)?,
            dtype: compute_dtype(source),
            products: products(source),
        })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Encodes images (B, channels, H, W) of values in -1..1 as distributions of latents (B, latent channels, h, w),
    /// not scaled yet (see [`Self::scale`]). h is H / factor for multiples of the factor.
    ///
    /// Errors: another number of channels, images smaller than one latent pixel.
    pub fn encode(&self, images: &Tensor) -> Result<LatentDistribution> {
        self.encode_by(images, None)
    }

    /// [`Self::encode`] in tiles: what lies between residual blocks is kept whole, the rest is of the size of a tile.
    /// Gives what the whole image gives, up to rounding; no gradient goes through it.
    ///
    /// Errors: as for [`Self::encode`].
    pub fn encode_tiled(&self, images: &Tensor, tiling: &Tiling) -> Result<LatentDistribution> {
        self.encode_by(&images.detach(), Some(tiling))
    }

    fn encode_by(&self, images: &Tensor, tiling: Option<&Tiling>) -> Result<LatentDistribution> {
        let c = &self.config;
        let factor = c.factor();
        if !matches!(*images.dims(), [b, n, h, w] if b > 0 && n == c.in_channels && h >= factor && w >= factor)
        {
            let message = format!(
                "expected images (batch, {}, height, width) of {factor} pixels or more, found {:?}",
                c.in_channels,
                images.dims()
            );
            return Err(Error::input(NETWORK, message));
        }
        let compute = || self.compute_moments(images, tiling);
        with_products(self.products, compute).map_err(Error::compute(NETWORK))
    }

    fn compute_moments(
        &self,
        images: &Tensor,
        tiling: Option<&Tiling>,
    ) -> candle_core::Result<LatentDistribution> {
        let _span = span!("vae.encode", images = ?images.dims());
        let x = staged(self.encoder.stages(), images.to_dtype(self.dtype)?, tiling)?;
        let mut moments = self.encoder.finish(&x)?;
        if let Some(conv) = &self.quant_conv {
            moments = conv.forward(&moments)?;
        }
        let latent = self.config.latent_channels;
        let moments = moments.to_dtype(images.dtype())?;
        let mean = moments.narrow(1, 0, latent)?.contiguous()?;
        let logvar = moments.narrow(1, latent, latent)?.contiguous()?.clamp(-30f32, 20f32)?;
        Ok(LatentDistribution { mean, logvar })
    }

    /// Decodes unscaled latents (B, latent channels, h, w) to images (B, channels, h * factor, w * factor) of values
    /// about -1..1, in the latents' dtype.
    ///
    /// Errors: another number of channels.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.decode_by(latents, None)
    }

    /// [`Self::decode`] in tiles, see [`Self::encode_tiled`].
    ///
    /// Errors: as for [`Self::decode`].
    pub fn decode_tiled(&self, latents: &Tensor, tiling: &Tiling) -> Result<Tensor> {
        self.decode_by(&latents.detach(), Some(tiling))
    }

    /// [`Self::decode`] in tiles that know nothing of each other, blended where they overlap, as diffusers does it.
    ///
    /// Errors: as for [`Self::decode`].
    pub fn decode_blended(&self, latents: &Tensor, blending: &Blending) -> Result<Tensor> {
        let one = |tile: &Tensor| self.decode_by(tile, None);
        blended::run(latents, blending, self.config.factor(), one, Error::compute(NETWORK))
    }

    fn decode_by(&self, latents: &Tensor, tiling: Option<&Tiling>) -> Result<Tensor> {
        let channels = self.config.latent_channels;
        if !matches!(*latents.dims(), [b, n, h, w] if n == channels && b * h * w > 0) {
            let message =
                format!("expected latents (batch, {channels}, height, width), found {:?}", latents.dims());
            return Err(Error::input(NETWORK, message));
        }
        let compute = || self.compute_image(latents, tiling);
        with_products(self.products, compute).map_err(Error::compute(NETWORK))
    }

    fn compute_image(&self, latents: &Tensor, tiling: Option<&Tiling>) -> candle_core::Result<Tensor> {
        let _span = span!("vae.decode", latents = ?latents.dims());
        let mut x = latents.to_dtype(self.dtype)?;
        if let Some(conv) = &self.post_quant_conv {
            x = conv.forward(&x)?;
        }
        let x = self.decoder.begin(&x)?;
        staged(self.decoder.stages(), x, tiling)?.to_dtype(latents.dtype())
    }

    /// Latents as the UNet sees them: (latents - shift) * scaling factor. Any shape.
    pub fn scale(&self, latents: &Tensor) -> Result<Tensor> {
        let c = &self.config;
        latents.affine(c.scaling_factor, -c.shift_factor * c.scaling_factor).map_err(Error::compute(NETWORK))
    }

    /// The inverse of [`Self::scale`]: what [`Self::decode`] takes.
    pub fn unscale(&self, latents: &Tensor) -> Result<Tensor> {
        let c = &self.config;
        latents.affine(1.0 / c.scaling_factor, c.shift_factor).map_err(Error::compute(NETWORK))
    }
}
