//! The parameters of training: one struct, hence one schema. Names are those that training scripts have for the same
//! things: `batch_size`, `gradient_accumulation`, `num_epochs`, ...

use crate::optim::Shape;
use atelier_sdk::task::TRAIN_LORA;
use atelier_sdk::{PlanCtx, TaskInfo, TaskParams, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The numbers that the networks compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MixedPrecision {
    /// What suits the device: f32 on the CPU, bf16 elsewhere.
    #[default]
    Auto,
    /// f32 throughout.
    F32,
    /// Frozen weights and activations in f16, with dynamic loss scaling; what is trained stays f32.
    Fp16,
    /// Frozen weights and activations in bf16; what is trained stays f32.
    Bf16,
    /// Frozen weights in integers of 8 bits, or in what a GGUF file has them in, after QLoRA (Dettmers et al. 2023,
    /// arXiv:2305.14314); activations and what is trained stay f32. On the CPU only.
    Int8,
}

/// What moves the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    #[default]
    AdamW,
    /// The sign of an interpolated momentum (Chen et al. 2023); wants a third to a tenth of AdamW's rate.
    Lion,
    /// Finds the rate itself (Mishchenko and Defazio 2023); `learning_rate` is a factor, best left at 1.
    Prodigy,
}

/// What the network is trained to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// What the model was made to predict.
    #[default]
    Auto,
    /// The noise.
    Epsilon,
    /// The velocity.
    VPrediction,
}

/// How noise levels are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSampling {
    /// Each by itself.
    #[default]
    Uniform,
    /// Evenly spread over the samples of a step, from a start drawn by lot (Kingma et al. 2021, "Variational Diffusion
    /// Models"): the losses of steps differ less, which lets small sets learn faster.
    Stratified,
}

/// How the first factor starts; the second starts at 0, so that training starts from the base model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Uniform within 1 / sqrt(inputs), as PEFT and kohya start it.
    #[default]
    Kaiming,
    /// Normal with deviation 1 / rank.
    Gaussian,
}

/// Number format of an exported adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// 16-bit floats.
    #[default]
    F16,
    /// 16-bit floats with f32's exponent.
    Bf16,
    /// 32-bit floats.
    F32,
}

/// Trains a LoRA.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainLora {
    /// The folder of training images: a split of a prepared set, a Hugging Face image folder, kohya's `N_name`
    /// folders, or images with .txt captions.
    #[schemars(extend("x-file" = "path", "x-config" = "datasets"))]
    pub train_dir: String,
    /// The folder of validation images; without one there is no validation.
    #[schemars(extend("x-file" = "path", "x-config" = "datasets"))]
    pub val_dir: String,
    /// The folder for everything that training leaves: checkpoints, exports, samples, curves.
    #[schemars(extend("x-file" = "out"))]
    pub out: String,
    /// What the adapter is called.
    #[schemars(length(min = 1, max = 100))]
    pub name: String,
    /// Side of the training images in pixels, a multiple of 8; images are resized and cropped in the middle.
    #[schemars(range(min = 16, max = 2048), extend("multipleOf" = 8))]
    pub resolution: u32,
    /// The caption of images that have none.
    pub caption: String,
    /// Train only on images with these attributes, each `field=value`; needs a prepared set.
    pub filter: Vec<String>,
    /// Train only on so many images, drawn with each subgroup in its share; 0 for all.
    pub prototype: u32,
    /// Show each image mirrored half of the time.
    pub flip: bool,
    /// Keep latents and text embeddings here, for other runs to use [default: `cache` in `out`].
    #[schemars(extend("x-file" = "out"))]
    pub cache_dir: String,

    /// Rank of the factors.
    #[schemars(range(min = 1, max = 1024))]
    pub lora_rank: u32,
    /// The change is scaled by alpha / rank.
    #[schemars(range(min = 0.0001, max = 4096.0))]
    pub lora_alpha: f64,
    /// Share of the inputs of each adapter that is dropped in training.
    #[schemars(range(min = 0.0, max = 0.95))]
    pub lora_dropout: f64,
    /// Modules of the UNet that get an adapter: ends of their names (`to_q`), or patterns with `*`
    /// (`down_blocks.*.attn1.to_k`).
    pub targets: Vec<String>,
    /// How the factors start.
    pub init: Init,
    /// Also train the text encoder.
    pub train_text_encoder: bool,
    /// Modules of the text encoder that get an adapter.
    pub text_encoder_targets: Vec<String>,
    /// The text encoder's learning rate [default: half of `learning_rate`].
    #[schemars(range(min = 0.0, max = 10.0))]
    pub text_encoder_lr: Option<f64>,

    /// Images of one pass through the network.
    #[schemars(range(min = 1, max = 256))]
    pub batch_size: u32,
    /// Passes whose gradients are added before the weights move.
    #[schemars(range(min = 1, max = 1024))]
    pub gradient_accumulation: u32,
    /// How often each image is seen.
    #[schemars(range(min = 1, max = 100_000))]
    pub num_epochs: u32,
    /// Stop after so many steps of the weights, whatever `num_epochs` says; 0 for no such limit.
    pub max_steps: u64,
    /// Learning rate.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub learning_rate: f64,
    /// How the rate changes.
    pub lr_schedule: Shape,
    /// Steps over which the rate rises from 0.
    pub lr_warmup_steps: u64,
    /// Number of half cosines, with `cosine_with_restarts`.
    #[schemars(range(min = 1, max = 1000))]
    pub lr_cycles: u32,
    /// What moves the weights.
    pub optimizer: OptimizerKind,
    /// Decay of the weights [default: 0.01; 0 for prodigy].
    #[schemars(range(min = 0.0, max = 10.0))]
    pub weight_decay: Option<f64>,
    /// Decay of the averages of gradients [default: what the optimiser's paper has].
    pub betas: Option<[f64; 2]>,
    /// Keeps divisions by small numbers in bounds (AdamW, Prodigy).
    #[schemars(range(min = 1e-16, max = 0.1))]
    pub eps: f64,
    /// Gradients longer than this, all together, are shortened to it; 0 for no limit.
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: f64,
    /// Number format of frozen weights and activations.
    pub mixed_precision: MixedPrecision,
    /// Compute activations again in the backward pass instead of keeping them: less memory, a third more time.
    pub gradient_checkpointing: bool,

    /// Min-SNR weighting (Hang et al. 2023): weights of low noise levels are cut at this signal-to-noise ratio; 5 is
    /// usual, 0 is no weighting.
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub snr_gamma: f64,
    /// Adds a constant to the noise of each channel, of this deviation: learns brighter and darker images.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub noise_offset: f64,
    /// How the noise levels of training are drawn.
    pub timestep_sampling: TimestepSampling,
    /// What the network learns to predict.
    pub prediction_type: Target,
    /// Share of the captions that are left away, for guidance.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub caption_dropout: f64,
    /// Layers of the text encoder that are skipped, counted from the last.
    #[schemars(range(min = 0, max = 11))]
    pub clip_skip: u32,
    /// Decay of the moving average of the weights that is exported instead of the last ones; 0 for none.
    #[schemars(range(min = 0.0, max = 0.99999))]
    pub ema_decay: f64,
    /// Seed of everything that is drawn: start, order, noise, timesteps.
    pub seed: u64,

    /// Validate after so many steps; 0 for after each epoch.
    pub val_every: u64,
    /// Most images that are validated on; 0 for all.
    pub val_images: u32,
    /// Noise levels at which each validation image is looked at.
    #[schemars(range(min = 1, max = 100))]
    pub val_timesteps: u32,
    /// Stop when so many validations in a row were no better than the best; 0 for never.
    pub early_stopping: u32,
    /// Save a checkpoint after so many steps; 0 for after each epoch.
    pub save_every: u64,
    /// Checkpoints that are kept besides the best.
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_checkpoints: u32,
    /// Draw samples after so many steps; 0 for after each epoch.
    pub sample_every: u64,
    /// The prompts of the samples; none, no samples.
    pub sample_prompts: Vec<String>,
    /// Sampling steps of a sample.
    #[schemars(range(min = 1, max = 1000))]
    pub sample_steps: u32,
    /// Guidance of a sample.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub sample_cfg_scale: f64,
    /// Sampler of the samples.
    #[schemars(extend("x-registry" = "sampler"))]
    pub sampler: String,
    /// Schedule of the samples.
    #[schemars(extend("x-registry" = "schedule"))]
    pub schedule: String,

    /// Number format of the exported adapter.
    pub export_format: ExportFormat,
    /// Go on from the last checkpoint in `out`.
    pub resume: bool,
    /// Look at the data and try one step: how many steps, how long, how much memory. Nothing is kept.
    pub dry_run: bool,
}

impl Default for TrainLora {
    fn default() -> Self {
        let names = |list: &[&str]| list.iter().map(|s| s.to_string()).collect();
        Self {
            train_dir: String::new(),
            val_dir: String::new(),
            out: String::new(),
            name: "lora".into(),
            resolution: 512,
            caption: String::new(),
            filter: Vec::new(),
            prototype: 0,
            flip: false,
            cache_dir: String::new(),
            lora_rank: 8,
            lora_alpha: 16.0,
            lora_dropout: 0.0,
            targets: names(&["to_q", "to_k", "to_v", "to_out.0"]),
            init: Init::default(),
            train_text_encoder: false,
            text_encoder_targets: names(&["q_proj", "k_proj", "v_proj", "out_proj"]),
            text_encoder_lr: None,
            batch_size: 1,
            gradient_accumulation: 1,
            num_epochs: 10,
            max_steps: 0,
            learning_rate: 1e-4,
            lr_schedule: Shape::default(),
            lr_warmup_steps: 0,
            lr_cycles: 1,
            optimizer: OptimizerKind::default(),
            weight_decay: None,
            betas: None,
            eps: 1e-8,
            max_grad_norm: 1.0,
            mixed_precision: MixedPrecision::default(),
            gradient_checkpointing: true,
            snr_gamma: 0.0,
            noise_offset: 0.0,
            timestep_sampling: TimestepSampling::default(),
            prediction_type: Target::default(),
            caption_dropout: 0.0,
            clip_skip: 0,
            ema_decay: 0.0,
            seed: 42,
            val_every: 0,
            val_images: 64,
            val_timesteps: 4,
            early_stopping: 0,
            save_every: 0,
            keep_checkpoints: 2,
            sample_every: 0,
            sample_prompts: Vec::new(),
            sample_steps: 20,
            sample_cfg_scale: 7.0,
            sampler: "dpmpp_2m".into(),
            schedule: "karras".into(),
            export_format: ExportFormat::default(),
            resume: false,
            dry_run: false,
        }
    }
}

impl TrainLora {
    /// The text encoder's learning rate.
    pub fn text_lr(&self) -> f64 {
        self.text_encoder_lr.unwrap_or(self.learning_rate / 2.0)
    }

    fn violations(&self) -> Vec<Violation> {
        let mut out = Vec::new();
        let mut wrong = |field: &str, message: &str, hint: &str| {
            out.push(Violation::new(format!("/{field}"), message).hint(hint));
        };
        if self.train_dir.is_empty() {
            wrong(
                "train_dir",
                "no folder of training images is named",
                "set `train_dir`; `atelier dataset prepare` makes one, docs/guides/train.md shows how",
            );
        }
        if self.out.is_empty() && !self.dry_run {
            wrong("out", "no folder for the results is named", "set `out` (`--out`)");
        }
        if self.targets.is_empty() && !self.train_text_encoder {
            wrong("targets", "nothing is trained", "name modules, such as `to_q`");
        }
        if self.train_text_encoder && self.text_encoder_targets.is_empty() {
            wrong(
                "text_encoder_targets",
                "no module of the text encoder is named",
                "name some, such as `q_proj`",
            );
        }
        if self.early_stopping > 0 && self.val_dir.is_empty() {
            wrong("early_stopping", "there is no validation to stop by", "set `val_dir`");
        }
        if self.betas.is_some_and(|b| b.iter().any(|b| !(0.0..1.0).contains(b))) {
            wrong("betas", "a decay is not within 0 and 1", "AdamW's are [0.9, 0.999]");
        }
        if self.name.contains(['/', '\\']) || self.name.starts_with('.') {
            wrong("name", "the name is that of a file: it has no `/` and no `.` at its start", "try `lora`");
        }
        if let Some(bad) = self.filter.iter().find(|f| !f.contains('=')) {
            wrong("filter", &format!("`{bad}` has no `=`"), "write `field=value`, such as `baseColour=Red`");
        }
        out
    }
}

impl TaskParams for TrainLora {
    const TASK: &'static TaskInfo = &TRAIN_LORA;

    fn plan(self, _: &PlanCtx) -> Result<Self, Vec<Violation>> {
        let violations = self.violations();
        if violations.is_empty() { Ok(self) } else { Err(violations) }
    }
}
