//! Where the networks of a model are: a diffusers folder, one file, or some of both.

use crate::error;
use crate::process::{Prediction, Process};
use atelier_models::{
    AutoencoderKl, ClipTextConfig, ClipTextModel, ClipTokenizer, Network, Padding, Prepared,
    UNet2DConditionModel,
};
use atelier_ops::Activation;
use atelier_sdk::{Error, ErrorKind, ModelSpec, Result};
use atelier_weights::{Checkpoint, CheckpointPart, Component, DiffusersFolder};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Pipelines of diffusers whose folders have the networks that are needed here.
const PIPELINES: [&str; 4] = [
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInpaintPipelineLegacy",
];

/// What may be taken from elsewhere: the names of a folder's parts.
const PARTS: [&str; 5] = ["unet", "vae", "text_encoder", "tokenizer", "taesd"];

/// The width of the context in Stable Diffusion 2.x, whose checkpoints predict one thing or the other.
const SD2_CONTEXT: usize = 1024;

enum Home {
    Folder(PathBuf),
    File(Checkpoint),
}

impl Home {
    /// A folder of one network, or a file with it.
    fn of_part(path: &Path) -> atelier_weights::Result<Self> {
        Ok(if path.is_dir() { Self::Folder(path.into()) } else { Self::File(Checkpoint::open(path)?) })
    }
}

/// The files of a model, found and of the right kind, with nothing loaded yet.
pub struct Files {
    home: Home,
    parts: BTreeMap<String, PathBuf>,
    prediction: Option<Prediction>,
}

/// Finds a network in a checkpoint of one file.
type Pick = fn(&Checkpoint) -> atelier_weights::Result<CheckpointPart>;

impl Files {
    /// The files at `path`, a diffusers folder or a checkpoint in one file.
    ///
    /// # Errors
    /// Nothing there, a damaged file, a pipeline of another kind.
    pub fn open(path: &Path) -> Result<Self> {
        let wrong = |e| error::weights("this is not a model", e);
        let home = if path.is_file() {
            Home::File(Checkpoint::open(path).map_err(wrong)?)
        } else {
            check_kind(DiffusersFolder::open(path).map_err(wrong)?.pipeline())?;
            Home::Folder(path.into())
        };
        Ok(Self { home, parts: BTreeMap::new(), prediction: None })
    }

    /// The files of a described model.
    ///
    /// # Errors
    /// Those of [`Self::open`]; a part or a prediction that does not exist.
    pub fn of(spec: &ModelSpec, path: &Path) -> Result<Self> {
        let mut files = Self::open(path)?;
        if let Some(unknown) = spec.parts.keys().find(|part| !PARTS.contains(&part.as_str())) {
            return Err(Error::invalid(format!("the model's description has a part `{unknown}`"))
                .hint(format!("there are: {}", PARTS.join(", "))));
        }
        files.parts.clone_from(&spec.parts);
        files.prediction = spec.prediction_type.as_deref().map(Prediction::parse).transpose()?;
        Ok(files)
    }

    /// The UNet.
    ///
    /// # Errors
    /// Missing or damaged files, a configuration out of bounds.
    pub fn unet(&self) -> Result<Prepared<UNet2DConditionModel>> {
        self.network("unet", Checkpoint::unet)
    }

    /// The autoencoder.
    ///
    /// # Errors
    /// As for [`Self::unet`].
    pub fn vae(&self) -> Result<Prepared<AutoencoderKl>> {
        self.network("vae", Checkpoint::vae)
    }

    /// The text encoder.
    ///
    /// # Errors
    /// As for [`Self::unet`].
    pub fn text(&self) -> Result<Prepared<ClipTextModel>> {
        self.network("text_encoder", Checkpoint::text_encoder)
    }

    /// Where the description says that a tiny autoencoder for the model's latents is.
    pub fn tiny(&self) -> Option<&Path> {
        self.parts.get("taesd").map(PathBuf::as_path)
    }

    fn network<M: Network>(&self, name: &str, pick: Pick) -> Result<Prepared<M>> {
        let open = || -> atelier_models::Result<Prepared<M>> {
            let other = self.parts.get(name).map(|path| Home::of_part(path)).transpose()?;
            Prepared::new(match (&other, &self.home) {
                (Some(Home::Folder(path)), _) => Component::folder(path)?,
                (None, Home::Folder(root)) => Component::folder(root.join(name))?,
                (Some(Home::File(file)), _) | (None, Home::File(file)) => pick(file)?.into(),
            })
        };
        open().map_err(|e| failed(name, e))
    }

    /// The tokenizer for a text encoder: the folder named or the one beside the file, else CLIP's own.
    ///
    /// # Errors
    /// Missing or damaged files; a file whose vocabulary is not CLIP's, with no tokenizer beside it.
    pub fn tokenizer(&self, text: &ClipTextConfig) -> Result<ClipTokenizer> {
        let beside = match &self.home {
            Home::Folder(root) => Some(root.join("tokenizer")),
            Home::File(file) => file.path().parent().map(|p| p.join("tokenizer")).filter(|p| p.is_dir()),
        };
        let failed = |e| error::model("cannot load the tokenizer", e);
        if let Some(folder) = self.parts.get("tokenizer").cloned().or(beside) {
            return ClipTokenizer::open(folder).map_err(failed);
        }
        let clip = ClipTextConfig::sd15().vocab_size;
        if text.vocab_size != clip {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "the file has no tokenizer, and its {} tokens are not CLIP's {clip}",
                    text.vocab_size
                ),
            )
            .hint("put its folder `tokenizer` beside the file, or name it: `parts: {tokenizer: ...}`"));
        }
        // OpenCLIP, told by its activation, was trained with another padding.
        let padding = if text.hidden_act == Activation::Gelu { Padding::Zero } else { Padding::End };
        ClipTokenizer::clip(padding).map_err(failed)
    }

    /// The process, and a remark if what the network predicts had to be guessed.
    ///
    /// # Errors
    /// A folder whose scheduler's configuration is missing or not understood.
    pub fn process(&self, context: usize) -> Result<(Process, Option<String>)> {
        let (mut process, said) = match &self.home {
            Home::Folder(root) => (Process::read(&root.join("scheduler/scheduler_config.json"))?, true),
            Home::File(file) => {
                let said = file.prediction_type().map(Prediction::parse).transpose()?;
                let mut process = Process::sd1()?;
                process.prediction = said.unwrap_or_default();
                (process, said.is_some())
            }
        };
        if let Some(prediction) = self.prediction {
            process.prediction = prediction;
        }
        let guessed = !said && self.prediction.is_none() && context == SD2_CONTEXT;
        let remark = "the file does not say what it predicts, and is taken to predict noise; if images are noise, \
                      describe the model with `prediction_type: v_prediction`";
        Ok((process, guessed.then(|| remark.to_string())))
    }
}

/// That a network of the model cannot be had.
pub fn failed(name: &str, e: atelier_models::Error) -> Error {
    use atelier_weights::Error::MissingPart;
    let elsewhere = matches!(e, atelier_models::Error::Weights(MissingPart { .. }));
    let e = error::model(&format!("cannot load the model's {name}"), e);
    if elsewhere { e.hint(format!("describe the model and name it: `parts: {{{name}: ...}}`")) } else { e }
}

fn check_kind(class: Option<&str>) -> Result<()> {
    match class {
        None => Ok(()),
        Some(known) if PIPELINES.contains(&known) => Ok(()),
        Some(other) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("this is a model for `{other}`, which this engine does not perform"),
        )
        .hint(format!("it loads folders of: {}", PIPELINES[0]))),
    }
}
