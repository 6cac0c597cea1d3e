//! The networks of one model.

use crate::decoding::Pieces;
use crate::slot::Slot;
use crate::together::{Counted, Counter, Denoise};
use atelier_diffusion::files::Files;
use atelier_diffusion::process::Process;
use atelier_diffusion::{error, made_up};
use atelier_models::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, ClipTokenizer, UNet2DConditionModel, UNetConfig, VaeConfig,
};
use atelier_sdk::{Error, ErrorKind, Image, Result};
use atelier_weights::Precision;
use atelier_weights::lora::Adaptation;
use candle_core::{Device, Tensor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A Stable Diffusion model: text encoder, UNet, autoencoder and the process they were trained for. The networks are
/// loaded when they are first used.
pub struct Pipeline {
    tokenizer: Option<ClipTokenizer>,
    text: Slot<ClipTextModel>,
    unet: Slot<UNet2DConditionModel>,
    vae: Slot<AutoencoderKl>,
    process: Process,
    device: Device,
    precision: Precision,
    place: String,
    guess: Option<String>,
    tiny: Option<PathBuf>,
    counter: Counter,
}

/// The networks of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The text encoder.
    Text,
    /// The UNet.
    Unet,
    /// The autoencoder.
    Vae,
}

impl Part {
    /// All of them, in the order of their use.
    pub const ALL: [Self; 3] = [Self::Text, Self::Unet, Self::Vae];
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
    /// Opens a diffusers folder or a checkpoint in one file.
    ///
    /// # Errors
    /// Missing, damaged or misfit files; a pipeline of another kind.
    pub fn open(path: &Path, precision: impl Into<Precision>, device: &Device) -> Result<Self> {
        Self::new(&Files::open(path)?, precision.into(), device)
    }

    /// A model whose files are found and fit together; no network is loaded yet.
    ///
    /// # Errors
    /// Missing, damaged or misfit files.
    pub fn new(files: &Files, precision: Precision, device: &Device) -> Result<Self> {
        let (text, unet, vae) = (files.text()?, files.unet()?, files.vae()?);
        let context = unet.config().cross_attention_dim.first().copied().unwrap_or(0);
        let (process, guess) = files.process(context)?;
        let pipeline = Self {
            tokenizer: Some(files.tokenizer(text.config())?),
            text: Slot::new("text_encoder", text, precision, device),
            unet: Slot::new("unet", unet, precision, device),
            vae: Slot::new("vae", vae, atelier_diffusion::device::vae_dtype(precision, device), device),
            process,
            device: device.clone(),
            precision,
            place: String::new(),
            guess,
            tiny: files.tiny().map(Path::to_path_buf),
            counter: Counter::default(),
        };
        pipeline.check_fit()?;
        Ok(pipeline)
    }

    /// Says what the model is called in the errors of networks that cannot be loaded.
    #[must_use]
    pub fn called(self, place: String) -> Self {
        Self { place, ..self }
    }

    /// A pipeline of the shapes of Stable Diffusion 1.5 with made-up weights: for benchmarks.
    ///
    /// # Errors
    /// None that is known.
    pub fn fake_sd15(precision: Precision, device: &Device) -> Result<Self> {
        let (text, unet, vae) = (made_up::text(), made_up::unet(), made_up::vae());
        Ok(Self {
            tokenizer: None,
            text: Slot::new("text_encoder", text, precision, device),
            unet: Slot::new("unet", unet, precision, device),
            vae: Slot::new("vae", vae, atelier_diffusion::device::vae_dtype(precision, device), device),
            process: Process::sd1()?,
            device: device.clone(),
            precision,
            place: "made-up weights".into(),
            guess: None,
            tiny: None,
            counter: Counter::default(),
        })
    }

    /// Loads a network, if it is not.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub fn load(&self, part: Part) -> Result<()> {
        match part {
            Part::Text => self.text_encoder().map(drop),
            Part::Unet => self.unet().map(drop),
            Part::Vae => self.vae().map(drop),
        }
    }

    /// Puts adapters on text encoder and UNet, in place of those that are on them. What changes is loaded anew.
    pub fn adapt(&self, adaptation: &Adaptation) {
        self.text.adapt(adaptation);
        self.unet.adapt(adaptation);
    }

    /// Whether a network is in memory.
    pub fn is_loaded(&self, part: Part) -> bool {
        match part {
            Part::Text => self.text.is_loaded(),
            Part::Unet => self.unet.is_loaded(),
            Part::Vae => self.vae.is_loaded(),
        }
    }

    /// Lets the memory of a network go.
    pub fn release(&self, part: Part) {
        match part {
            Part::Text => self.text.release(),
            Part::Unet => self.unet.release(),
            Part::Vae => self.vae.release(),
        }
    }

    /// A network stays, but is not used for a while: gives back what it takes and can have again at once.
    pub fn rest(&self, part: Part) {
        match part {
            Part::Text => self.text.rest(),
            Part::Unet => self.unet.rest(),
            Part::Vae => self.vae.rest(),
        }
    }

    /// Memory that the weights of a network take, in bytes; 0 where that is not known.
    pub fn bytes(&self, part: Part) -> u64 {
        match part {
            Part::Text => self.text.bytes(),
            Part::Unet => self.unet.bytes(),
            Part::Vae => self.vae.bytes(),
        }
    }

    /// That a network which was loaded has tensors in its files that nothing uses.
    pub fn unused(&self, part: Part) -> Option<String> {
        let unused = match part {
            Part::Text => self.text.unused(),
            Part::Unet => self.unet.unused(),
            Part::Vae => self.vae.unused(),
        };
        let first = unused.first()?;
        Some(format!("{} tensors of the model's files are not used, such as {first}", unused.len()))
    }

    /// Where the model's description says that its tiny autoencoder is.
    pub fn tiny(&self) -> Option<&Path> {
        self.tiny.as_deref()
    }

    /// The files of the networks' weights, each with the name of the network.
    pub fn paths(&self) -> Vec<(&'static str, &Path)> {
        let all = [
            (self.text.name(), self.text.paths()),
            (self.unet.name(), self.unet.paths()),
            (self.vae.name(), self.vae.paths()),
        ];
        all.into_iter().flat_map(|(name, paths)| paths.iter().map(move |p| (name, p.as_path()))).collect()
    }

    /// What had to be guessed about the model.
    pub fn guess(&self) -> Option<&str> {
        self.guess.as_deref()
    }

    /// Networks that each load but do not belong together are told here, not by a shape error in a step.
    fn check_fit(&self) -> Result<()> {
        let (unet, vae, text) = (self.unet_config(), self.vae_config(), self.text_config());
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
            None => (vec![0; self.text_config().max_position_embeddings], 0),
        };
        self.count_text(ids.len());
        let context = self.text_encoder()?.encode(&[ids], 0).map_err(failed)?;
        Ok(Prompt { context, dropped })
    }

    /// Whether the UNet also takes the mask and the masked image, as models for inpainting do.
    pub fn is_inpainting(&self) -> bool {
        self.unet_config().in_channels != self.unet_config().out_channels
    }

    /// Encodes planes (3, height, width) of -1 ..= 1 as latents: the mean of the encoder's distribution, scaled.
    ///
    /// # Errors
    /// The encoder failed, or gave something that is not a number.
    pub fn encode_planes(
        &self,
        planes: &[f32],
        width: usize,
        height: usize,
        pieces: &Pieces,
    ) -> Result<Tensor> {
        let failed = |e| error::model("cannot encode the image", e);
        let images = Tensor::from_slice(planes, (1, 3, height, width), &self.device)
            .map_err(error::tensor("giving an image to the encoder"))?;
        let vae = self.vae()?;
        self.counter
            .add(self.vae_config().encode_operations((height / self.factor(), width / self.factor())));
        let latents = vae.scale(&pieces.encode(&vae, &images).map_err(failed)?.mean).map_err(failed)?;
        let values: Vec<f32> =
            latents.flatten_all().and_then(|t| t.to_vec1()).map_err(error::tensor("reading latents"))?;
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(latents),
            false => Err(Error::internal("the encoder gave latents that are not numbers")
                .hint("16-bit floats can overflow: try `--precision f32`")),
        }
    }

    /// Pixels per latent on a side.
    pub fn factor(&self) -> usize {
        self.vae_config().factor()
    }

    /// Shape of the latents of an image: batch, channels, height, width.
    pub fn latent_shape(&self, width: u32, height: u32) -> [usize; 4] {
        let factor = self.factor();
        [1, self.vae_config().latent_channels, height as usize / factor, width as usize / factor]
    }

    /// Turns latents (1, channels, height, width), as sampled, into an image.
    ///
    /// # Errors
    /// The decoder failed, or gave something that is not a number.
    pub fn decode(&self, latents: &[f32], shape: [usize; 4], pieces: &Pieces) -> Result<Image> {
        atelier_diffusion::pixels::image(&self.decode_planes(latents, shape, pieces)?)
    }

    /// Turns latents into pixels, (1, 3, height, width) in f32, about -1 to 1.
    ///
    /// # Errors
    /// The decoder failed.
    pub fn decode_planes(&self, latents: &[f32], shape: [usize; 4], pieces: &Pieces) -> Result<Tensor> {
        let latents = Tensor::from_slice(latents, shape.to_vec(), &self.device)
            .map_err(error::tensor("giving latents to the decoder"))?;
        let failed = |e| error::model("cannot decode the image", e);
        let vae = self.vae()?;
        self.counter.add(self.vae_config().decode_operations((shape[2], shape[3])));
        let unscaled = vae.unscale(&latents).map_err(failed)?;
        pieces.decode(&vae, &unscaled).map_err(failed)
    }

    /// The tokenizer; made-up weights have none.
    pub fn tokenizer(&self) -> Option<&ClipTokenizer> {
        self.tokenizer.as_ref()
    }

    /// The text encoder, loaded if it is not.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub fn text_encoder(&self) -> Result<Arc<ClipTextModel>> {
        self.text.get().map_err(|e| self.here(e))
    }

    /// The UNet, loaded if it is not.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub fn unet(&self) -> Result<Arc<UNet2DConditionModel>> {
        self.unet.get().map_err(|e| self.here(e))
    }

    /// What evaluates the UNet, loaded if it is not; counts its operations.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub(crate) fn denoiser(&self) -> Result<Arc<dyn Denoise>> {
        Ok(Arc::new(Counted::new(self.unet()?, self.counter.clone())))
    }

    /// Counts the encoding of a text of so many tokens.
    pub(crate) fn count_text(&self, tokens: usize) {
        self.counter.add(self.text_config().operations(1, tokens));
    }

    /// Floating-point operations of text encoder, UNet and autoencoder since this was last asked; the autoencoder's as
    /// those of whole images.
    pub(crate) fn take_operations(&self) -> u64 {
        self.counter.take()
    }

    /// The autoencoder, loaded if it is not.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub fn vae(&self) -> Result<Arc<AutoencoderKl>> {
        self.vae.get().map_err(|e| self.here(e))
    }

    fn here(&self, e: Error) -> Error {
        if self.place.is_empty() { e } else { e.context(self.place.clone()) }
    }

    /// The configuration of the text encoder.
    pub fn text_config(&self) -> &ClipTextConfig {
        self.text.config()
    }

    /// The configuration of the UNet.
    pub fn unet_config(&self) -> &UNetConfig {
        self.unet.config()
    }

    /// The configuration of the autoencoder.
    pub fn vae_config(&self) -> &VaeConfig {
        self.vae.config()
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
    pub fn precision(&self) -> Precision {
        self.precision
    }
}

/// Latents, a mask, and the latents of the masked image.
fn inpainting_channels(latent: usize) -> usize {
    2 * latent + 1
}
