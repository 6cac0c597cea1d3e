//! The networks of one model, loaded.

use crate::error;
use crate::files::Files;
use crate::process::Process;
use atelier_models::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, ClipTokenizer, UNet2DConditionModel, UNetConfig, VaeConfig,
};
use atelier_sdk::{Error, ErrorKind, Image, Result};
use atelier_weights::Source;
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// A Stable Diffusion model: text encoder, UNet, autoencoder and the process they were trained for.
pub struct Pipeline {
    tokenizer: Option<ClipTokenizer>,
    text: ClipTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKl,
    process: Process,
    device: Device,
    dtype: DType,
}

/// A prompt as the UNet takes it.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Text embeddings, (1, tokens, width).
    pub context: Tensor,
    /// Tokens at the end of the prompt that the encoder has no place for.
    pub dropped: usize,
}

impl Pipeline {
    /// Opens a diffusers folder or a checkpoint in one file. Gives the pipeline and remarks for people, such as names
    /// of tensors in its files that nothing uses.
    ///
    /// # Errors
    /// Missing, damaged or misfit files; a pipeline of another kind.
    pub fn open(path: &Path, dtype: DType, device: &Device) -> Result<(Self, Vec<String>)> {
        Self::load(&Files::open(path)?, dtype, device)
    }

    /// Loads the networks of a model.
    ///
    /// # Errors
    /// Missing, damaged or misfit files.
    pub fn load(files: &Files, dtype: DType, device: &Device) -> Result<(Self, Vec<String>)> {
        let text = files.text(dtype, device)?;
        let unet = files.unet(dtype, device)?;
        // Computed in 16-bit floats, the autoencoder of Stable Diffusion 1.x overflows: images turn black. The CPU
        // computes in f32 whatever the weights are stored in.
        let vae_dtype = if dtype == DType::F16 && !device.is_cpu() { DType::F32 } else { dtype };
        let vae = files.vae(vae_dtype, device)?;
        let tokenizer = files.tokenizer(text.0.config())?;
        let context = unet.0.config().cross_attention_dim.first().copied().unwrap_or(0);
        let (process, guess) = files.process(context)?;
        let unused = [text.1, unet.1, vae.1].concat();
        let unused = unused.first().map(|first| {
            format!("{} tensors of the model's files are not used, such as {first}", unused.len())
        });
        let pipeline = Self {
            tokenizer: Some(tokenizer),
            text: text.0,
            unet: unet.0,
            vae: vae.0,
            process,
            device: device.clone(),
            dtype,
        };
        pipeline.check_fit()?;
        Ok((pipeline, unused.into_iter().chain(guess).collect()))
    }

    /// A pipeline of the shapes of Stable Diffusion 1.5 with made-up weights: for benchmarks.
    ///
    /// # Errors
    /// Not enough memory.
    pub fn fake_sd15(dtype: DType, device: &Device) -> Result<Self> {
        let source = |seed| Source::fake(seed, dtype, device);
        let failed = |e| error::model("cannot make up weights", e);
        Ok(Self {
            tokenizer: None,
            text: ClipTextModel::new(&source(1), &ClipTextConfig::sd15()).map_err(failed)?,
            unet: UNet2DConditionModel::new(&source(2), &UNetConfig::sd15()).map_err(failed)?,
            vae: AutoencoderKl::new(&source(3), &VaeConfig::sd15()).map_err(failed)?,
            process: Process::sd1()?,
            device: device.clone(),
            dtype,
        })
    }

    /// Networks that each load but do not belong together are told here, not by a shape error in a step.
    fn check_fit(&self) -> Result<()> {
        let (unet, vae, text) = (self.unet.config(), self.vae.config(), self.text.config());
        let differ =
            |what: String| Err(Error::new(ErrorKind::Corrupt, what).hint("are these parts of one model?"));
        if let Some(width) = unet.cross_attention_dim.iter().find(|w| **w != text.hidden_size) {
            return differ(format!(
                "the UNet takes text embeddings of width {width}, the text encoder gives {}",
                text.hidden_size
            ));
        }
        if unet.out_channels != vae.latent_channels {
            return differ(format!(
                "the UNet gives {} channels, the autoencoder takes {}",
                unet.out_channels, vae.latent_channels
            ));
        }
        if ![unet.out_channels, inpainting_channels(unet.out_channels)].contains(&unet.in_channels) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("a UNet with {} input channels, of a kind that is not known", unet.in_channels),
            ));
        }
        let vocabulary = self.tokenizer.as_ref().map_or(0, ClipTokenizer::vocab_size);
        if vocabulary > text.vocab_size {
            return differ(format!(
                "the tokenizer knows {vocabulary} tokens, the text encoder {}",
                text.vocab_size
            ));
        }
        Ok(())
    }

    /// Encodes one prompt.
    ///
    /// # Errors
    /// The encoder failed.
    pub fn encode_prompt(&self, prompt: &str) -> Result<Prompt> {
        let failed = |e| error::model("cannot encode the prompt", e);
        let (ids, dropped) = match &self.tokenizer {
            Some(t) => {
                let encoded = t.encode(prompt).map_err(failed)?;
                (encoded.ids, encoded.dropped)
            }
            // Made-up weights have no vocabulary; speed does not depend on the words.
            None => (vec![0; self.text.config().max_position_embeddings], 0),
        };
        let context = self.text.encode(&[ids], 0).map_err(failed)?;
        Ok(Prompt { context, dropped })
    }

    /// Whether the UNet also takes the mask and the masked image, as models for inpainting do.
    pub fn is_inpainting(&self) -> bool {
        self.unet.config().in_channels != self.unet.config().out_channels
    }

    /// Encodes planes (3, height, width) of -1 ..= 1 as latents: the mean of the encoder's distribution, scaled.
    ///
    /// # Errors
    /// The encoder failed, or gave something that is not a number.
    pub fn encode_planes(&self, planes: &[f32], width: usize, height: usize) -> Result<Tensor> {
        let failed = |e| error::model("cannot encode the image", e);
        let images = Tensor::from_slice(planes, (1, 3, height, width), &self.device)
            .map_err(error::tensor("giving an image to the encoder"))?;
        let latents = self.vae.scale(&self.vae.encode(&images).map_err(failed)?.mean).map_err(failed)?;
        let values: Vec<f32> =
            latents.flatten_all().and_then(|t| t.to_vec1()).map_err(error::tensor("reading latents"))?;
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(latents),
            false => Err(Error::internal("the encoder gave latents that are not numbers")
                .hint("16-bit floats can overflow: try `--dtype f32`")),
        }
    }

    /// Pixels per latent on a side.
    pub fn factor(&self) -> usize {
        self.vae.config().factor()
    }

    /// Shape of the latents of an image: batch, channels, height, width.
    pub fn latent_shape(&self, width: u32, height: u32) -> [usize; 4] {
        let factor = self.factor();
        [1, self.vae.config().latent_channels, height as usize / factor, width as usize / factor]
    }

    /// Turns latents (1, channels, height, width), as sampled, into an image.
    ///
    /// # Errors
    /// The decoder failed, or gave something that is not a number.
    pub fn decode(&self, latents: &[f32], shape: [usize; 4]) -> Result<Image> {
        let planes = self.decode_planes(latents, shape)?;
        let [_, _, height, width] =
            planes.dims4().map(|(a, b, c, d)| [a, b, c, d]).map_err(error::tensor("decoding"))?;
        let values = planes
            .flatten_all()
            .and_then(|t| t.to_vec1::<f32>())
            .map_err(error::tensor("reading the decoded image"))?;
        let side = |n: usize| u32::try_from(n).map_err(|_| Error::internal("an image side beyond 32 bits"));
        Image::from_planes(side(width)?, side(height)?, &values)
    }

    /// Turns latents into pixels, (1, 3, height, width) in f32, about -1 to 1.
    ///
    /// # Errors
    /// The decoder failed.
    pub fn decode_planes(&self, latents: &[f32], shape: [usize; 4]) -> Result<Tensor> {
        let latents = Tensor::from_slice(latents, shape.to_vec(), &self.device)
            .map_err(error::tensor("giving latents to the decoder"))?;
        let failed = |e| error::model("cannot decode the image", e);
        let unscaled = self.vae.unscale(&latents).map_err(failed)?;
        self.vae.decode(&unscaled).map_err(failed)
    }

    /// The tokenizer; made-up weights have none.
    pub fn tokenizer(&self) -> Option<&ClipTokenizer> {
        self.tokenizer.as_ref()
    }

    /// The text encoder.
    pub fn text_encoder(&self) -> &ClipTextModel {
        &self.text
    }

    /// The UNet.
    pub fn unet(&self) -> &UNet2DConditionModel {
        &self.unet
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The device of all networks.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The number format in which the weights of text encoder and UNet are kept.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
}

/// Latents, a mask, and the latents of the masked image.
fn inpainting_channels(latent: usize) -> usize {
    2 * latent + 1
}
