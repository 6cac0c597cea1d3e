//! What is told of a training in the files that come of it.

use std::collections::BTreeMap;

/// Of a training. Places on the machine it ran on are none of a reader's business: of names with folders before them
/// only the last part is written.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The adapter's name.
    pub name: String,
    /// The words that bring it out, if there are such.
    pub trigger: String,
    /// Anything else, in words.
    pub comment: String,
    /// The model that was adapted.
    pub base: BaseModel,
    /// What was learned from.
    pub folders: Vec<Folder>,
    /// Images that kept the model from forgetting.
    pub regularization_images: u64,
    /// Width and height in pixels.
    pub resolution: (usize, usize),
    /// Whether images were mirrored at random.
    pub flip: bool,
    /// How often a caption was left out.
    pub caption_dropout: f64,
    /// The optimizer, with its settings in brackets.
    pub optimizer: String,
    /// The learning rate where no other is given.
    pub learning_rate: f64,
    /// The UNet's; none if it was not trained.
    pub unet_lr: Option<f64>,
    /// The text encoder's; none if it was not trained.
    pub text_encoder_lr: Option<f64>,
    /// How the rates went.
    pub lr_scheduler: String,
    /// Steps until they were reached.
    pub lr_warmup_steps: u64,
    /// The most that gradients may measure.
    pub max_grad_norm: Option<f64>,
    /// Dropout in the adapter.
    pub network_dropout: Option<f64>,
    /// Epochs begun.
    pub epoch: u64,
    /// Epochs planned.
    pub epochs: u64,
    /// Steps of the optimizer made.
    pub steps: u64,
    /// Steps planned.
    pub max_steps: u64,
    /// Batches in an epoch.
    pub batches_per_epoch: u64,
    /// Images in a batch.
    pub batch_size: u64,
    /// Batches in a step.
    pub gradient_accumulation: u64,
    /// Whether activations were computed twice to save memory.
    pub gradient_checkpointing: bool,
    /// `no`, `fp16` or `bf16`.
    pub mixed_precision: String,
    /// Layers of the text encoder that were left out, plus one.
    pub clip_skip: Option<u64>,
    /// Tokens of a caption, where it is not what the text encoder takes at once.
    pub max_token_length: Option<u64>,
    /// The seed.
    pub seed: u64,
    /// Noise that is the same over a whole channel.
    pub noise_offset: Option<f64>,
    /// The most that a step may weigh for its signal.
    pub min_snr_gamma: Option<f64>,
    /// Start, in seconds since 1970.
    pub started_at: u64,
    /// End.
    pub finished_at: u64,
}

/// The model that was adapted.
#[derive(Clone, Debug, Default)]
pub struct BaseModel {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub base: Base,
    /// Whether it predicts velocities instead of noise.
    pub velocity: bool,
    /// SHA-256 of its file, where it is one file.
    pub sha256: Option<String>,
    /// The same file's [`super::legacy_hash`].
    pub legacy_hash: Option<String>,
}

/// Kinds of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Base {
    /// Stable Diffusion 1.x.
    #[default]
    V1,
    /// Stable Diffusion 2.x.
    V2,
}

/// Images of one folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Its name.
    pub name: String,
    /// Images in it.
    pub images: u64,
    /// How often each comes in an epoch.
    pub repeats: u64,
    /// How many captions have each tag.
    pub tags: BTreeMap<String, u64>,
}

impl Folder {
    /// A folder whose images, each once, have these captions: tags between commas.
    pub fn of<'a>(name: impl Into<String>, captions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut folder = Self { name: name.into(), repeats: 1, ..Self::default() };
        for caption in captions {
            folder.images += 1;
            for tag in caption.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
                *folder.tags.entry(tag.to_lowercase()).or_default() += 1;
            }
        }
        folder
    }
}
