//! The model that is trained on: its files, opened, with no network loaded yet.

use atelier_diffusion::{Files, Prediction, Process, device, error, memory};
use atelier_models::{AutoencoderKl, ClipTextModel, ClipTokenizer, Network, Prepared, UNet2DConditionModel};
use atelier_sdk::{Error, ErrorKind, LoadRequest, Result};
use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A model, and where its networks are to compute.
pub struct Base {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// The tokenizer.
    pub tokenizer: ClipTokenizer,
    /// The text encoder.
    pub text: Prepared<ClipTextModel>,
    /// The UNet.
    pub unet: Prepared<UNet2DConditionModel>,
    /// The autoencoder.
    pub vae: Prepared<AutoencoderKl>,
    /// The process it was trained for.
    pub process: Process,
    /// Where the networks compute.
    pub device: Device,
    /// What tells the text encoder's files from others.
    pub text_print: String,
    /// What tells the UNet's files from others.
    pub unet_print: String,
    /// What tells the autoencoder's files from others.
    pub vae_print: String,
}

impl Base {
    /// Opens the model of a request.
    ///
    /// # Errors
    /// Missing, damaged or misfit files; a model that cannot be trained here.
    pub fn open(request: &LoadRequest<'_>) -> Result<Self> {
        let spec = request.model()?;
        if request.fake_weights {
            return Err(Error::new(ErrorKind::Unsupported, "training on made-up weights leads nowhere"));
        }
        let path = spec.weights()?;
        let files = Files::of(spec, path)?;
        let (text, unet, vae) = (files.text()?, files.unet()?, files.vae()?);
        if unet.config().in_channels != vae.config().latent_channels {
            let what = format!("the UNet of `{}` takes more than latents", spec.key);
            return Err(Error::new(ErrorKind::Unsupported, what)
                .hint("models for inpainting cannot be trained; train on the one they come from"));
        }
        let width = unet.config().cross_attention_dim.first().copied().unwrap_or(0);
        let (process, _) = files.process(width)?;
        Ok(Self {
            name: spec.key.clone(),
            path: path.to_path_buf(),
            tokenizer: files.tokenizer(text.config())?,
            text_print: print_of(&text)?,
            unet_print: print_of(&unet)?,
            vae_print: print_of(&vae)?,
            text,
            unet,
            vae,
            process,
            device: device::open(request.device)?,
        })
    }

    /// Loads the autoencoder.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub fn load_vae(&self) -> Result<AutoencoderKl> {
        let dtype = device::vae_dtype(DType::F32, &self.device);
        let built = self.vae.build(dtype, &self.device);
        built.map(|opened| opened.model).map_err(|e| atelier_diffusion::files::failed("vae", e))
    }

    /// Gives the memory of networks that were dropped back to the system.
    pub fn release(&self) {
        self.text.tensors().release();
        self.vae.tensors().release();
        memory::return_freed();
    }

    /// Loads the text encoder without adapters.
    ///
    /// # Errors
    /// Missing or misshapen tensors.
    pub fn load_text(&self) -> Result<ClipTextModel> {
        let built = self.text.build(DType::F32, &self.device);
        built.map(|opened| opened.model).map_err(|e| atelier_diffusion::files::failed("text_encoder", e))
    }

    /// The tokens of a caption, and how many of it are cut away.
    ///
    /// # Errors
    /// The tokenizer failed.
    pub fn tokens(&self, caption: &str) -> Result<(Vec<u32>, usize)> {
        let encoded = self.tokenizer.encode(caption).map_err(|e| error::model("cannot read a caption", e))?;
        Ok((encoded.ids, encoded.dropped))
    }

    /// Whether Stable Diffusion 2.x's text encoder is in it.
    pub fn is_v2(&self) -> bool {
        self.unet.config().cross_attention_dim.first() == Some(&1024)
    }

    /// Whether the model predicts velocities.
    pub fn predicts_velocity(&self) -> bool {
        self.process.prediction == Prediction::VPrediction
    }
}

/// The files of all three networks told apart from others, by lengths and samples of their content: hashing
/// gigabytes at each start would be slower than the first steps.
fn print_of<M: Network>(network: &Prepared<M>) -> Result<String> {
    let mut hash = Sha256::new();
    for path in network.tensors().paths() {
        sample(path, &mut hash).map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
    }
    Ok(hex(&hash.finalize()))
}

/// Bytes that are read at each of the places.
const PIECE: u64 = 64 << 10;
/// Places over the length of a file.
const PLACES: u64 = 64;

fn sample(path: &Path, hash: &mut Sha256) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    hash.update(length.to_le_bytes());
    let mut buffer = vec![0u8; PIECE as usize];
    let step = (length / PLACES).max(PIECE);
    let mut at = 0;
    while at < length {
        file.seek(SeekFrom::Start(at))?;
        let n = PIECE.min(length - at) as usize;
        file.read_exact(&mut buffer[..n])?;
        hash.update(&buffer[..n]);
        at += step;
    }
    Ok(())
}

/// In hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, b| {
        // Writing to a text does not fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// The elements of a tensor as f32, in order.
///
/// # Errors
/// The device failed.
pub fn values(t: &Tensor) -> Result<Vec<f32>> {
    let read = t.to_dtype(DType::F32).and_then(|t| t.flatten_all()?.to_vec1());
    read.map_err(error::tensor("reading a tensor"))
}

/// A tensor on a device.
///
/// # Errors
/// Values that do not fill the shape; the device failed.
pub fn tensor(values: &[f32], shape: &[usize], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(values, shape, device).map_err(error::tensor("making a tensor"))
}

/// The files that the model is in, for its metadata.
pub fn files(base: &Base) -> Vec<(&'static str, PathBuf)> {
    let named = |role, paths: &[PathBuf]| paths.iter().map(|p| (role, p.clone())).collect::<Vec<_>>();
    [
        named("unet", base.unet.tensors().paths()),
        named("vae", base.vae.tensors().paths()),
        named("text_encoder", base.text.tensors().paths()),
    ]
    .concat()
}
