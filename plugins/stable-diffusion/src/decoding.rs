//! Which network makes pixels of latents, and in how many pieces.

use crate::params::Txt2Img;
use crate::pipeline::Pipeline;
use atelier_diffusion::error;
use atelier_models::{AutoencoderKl, AutoencoderTiny, Blending, LatentDistribution, Tiling};
use atelier_sdk::{Error, ErrorKind, Image, Result};
use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What decodes the finished latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decoder {
    /// The model's autoencoder.
    #[default]
    Vae,
    /// The tiny autoencoder TAESD: a hundredth of the time, a little less sharp.
    Taesd,
}

/// Whether the autoencoder works in tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VaeTiling {
    /// As `on` where decoding whole images is estimated to take more memory than there is, else `off`.
    #[default]
    Auto,
    /// Whole images.
    Off,
    /// Tiles that share the image's statistics: the image of `off` up to rounding.
    On,
    /// Tiles by themselves, blended where they overlap, as diffusers does it: the least memory, and another image.
    Blended,
}

/// How the autoencoder goes over an image.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Pieces {
    /// At once.
    #[default]
    Whole,
    /// In tiles with the image's statistics.
    Tiles(Tiling),
    /// In tiles by themselves.
    Blended(Blending),
}

impl Pieces {
    /// What a request asks for; `auto` counts as whole until the memory is known.
    pub fn of(params: &Txt2Img, factor: usize) -> Self {
        match params.vae_tiling {
            VaeTiling::Auto | VaeTiling::Off => Self::Whole,
            VaeTiling::On => Self::tiles(params),
            VaeTiling::Blended => {
                let tile = (params.vae_tile as usize / factor.max(1)).max(8);
                Self::Blended(Blending { tile, overlap: params.vae_overlap })
            }
        }
    }

    /// Tiles of the size that a request asks for.
    pub fn tiles(params: &Txt2Img) -> Self {
        Self::Tiles(Tiling::of(params.vae_tile as usize))
    }

    /// Decodes unscaled latents.
    ///
    /// # Errors
    /// As for the autoencoder.
    pub fn decode(&self, vae: &AutoencoderKl, latents: &Tensor) -> atelier_models::Result<Tensor> {
        match self {
            Self::Whole => vae.decode(latents),
            Self::Tiles(tiling) => vae.decode_tiled(latents, tiling),
            Self::Blended(blending) => vae.decode_blended(latents, blending),
        }
    }

    /// Encodes images; blended tiles are for decoding alone.
    ///
    /// # Errors
    /// As for the autoencoder.
    pub fn encode(&self, vae: &AutoencoderKl, images: &Tensor) -> atelier_models::Result<LatentDistribution> {
        match self {
            Self::Whole => vae.encode(images),
            Self::Tiles(tiling) => vae.encode_tiled(images, tiling),
            Self::Blended(blending) => {
                let tiling = Tiling::of(blending.tile * vae.config().factor());
                vae.encode_tiled(images, &tiling)
            }
        }
    }
}

/// The tiny autoencoder of a session, once it was needed.
#[derive(Default)]
pub struct Tiny {
    loaded: Option<(PathBuf, Arc<AutoencoderTiny>)>,
}

impl Tiny {
    /// Whether a request needs it.
    pub fn is_needed(params: &Txt2Img) -> bool {
        params.decoder == Decoder::Taesd || params.preview == crate::preview::Preview::Taesd
    }

    /// Where the network came from that is loaded.
    pub fn path(&self) -> Option<&Path> {
        self.loaded.as_ref().map(|(path, _)| path.as_path())
    }

    /// The network of a request: the file it names, else that of the model's description.
    ///
    /// # Errors
    /// None is named; a file that is no tiny autoencoder, or one for other latents.
    pub fn get(&mut self, params: &Txt2Img, pipeline: &Pipeline) -> Result<Arc<AutoencoderTiny>> {
        let named = (!params.taesd.is_empty()).then(|| Path::new(&params.taesd));
        let path = named.or(pipeline.tiny()).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "no weights of the tiny autoencoder (TAESD) are named")
                .hint("name a file or folder with `taesd`, or describe the model with `parts: {taesd: ...}`")
        })?;
        if let Some((_, model)) = self.loaded.as_ref().filter(|(loaded, _)| loaded == path) {
            return Ok(model.clone());
        }
        let here = || format!("cannot load the tiny autoencoder from {}", path.display());
        let opened = AutoencoderTiny::open(path, candle_core::DType::F32, pipeline.device())
            .map_err(|e| error::model(&here(), e))?;
        let (model, vae) = (opened.model, pipeline.vae_config());
        if !model.decodes() {
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: it has no decoder", here())));
        }
        if (model.latent_channels(), model.factor()) != (vae.latent_channels, vae.factor()) {
            let message = format!(
                "{}: it is for latents of {} channels, 1/{} of the image's size; the model's have {} and 1/{}",
                here(),
                model.latent_channels(),
                model.factor(),
                vae.latent_channels,
                vae.factor()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let model = Arc::new(model);
        self.loaded = Some((path.into(), model.clone()));
        Ok(model)
    }
}

/// Decodes latents as sampled with a tiny autoencoder.
///
/// # Errors
/// Not enough memory; something that is no number.
pub fn decode_tiny(
    tiny: &AutoencoderTiny,
    pipeline: &Pipeline,
    latents: &[f32],
    shape: [usize; 4],
) -> Result<Image> {
    let latents = Tensor::from_slice(latents, shape.to_vec(), pipeline.device())
        .map_err(error::tensor("giving latents to the decoder"))?;
    atelier_diffusion::pixels::image(
        &tiny.decode(&latents).map_err(|e| error::model("cannot decode the image", e))?,
    )
}
