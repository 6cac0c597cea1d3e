//! Parameters of the tasks.

use crate::decoding::{Decoder, VaeTiling};
use crate::enlarging::Upscale;
use crate::guided::CfgBatch;
use crate::hires::Hires;
use crate::loras::{LoraFile, LoraMode, check_loras};
use crate::memory::MemoryPolicy;
use crate::preview::Preview;
use crate::prompt::conditioning::Strength;
use crate::prompt::drawn::Drawn;
use crate::prompt::encode::{Emphasis, Encoding};
use crate::prompt::inversion::EmbeddingFile;
use atelier_sdk::rng::RngKind;
use atelier_sdk::{PlanCtx, TaskInfo, TaskParams, Violation, task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Largest side of an image in pixels.
const MAX_SIDE: u32 = 4096;
/// Most images of one request.
const MAX_IMAGES: u32 = 10_000;
/// Most pixels of one image.
const MAX_PIXELS: u64 = 4096 * 2304;

/// Draws an image from a text prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Txt2Img {
    /// What the image shows. Weights, changes over the steps and choices: `docs/reference/prompts.md`.
    pub prompt: String,
    /// What the image should keep away from.
    pub negative_prompt: String,
    /// Width in pixels, a multiple of 8.
    #[schemars(range(min = 64, max = 4096), extend("multipleOf" = 8))]
    pub width: u32,
    /// Height in pixels, a multiple of 8.
    #[schemars(range(min = 64, max = 4096), extend("multipleOf" = 8))]
    pub height: u32,
    /// Sampling steps.
    #[schemars(range(min = 1, max = 1000))]
    pub steps: u32,
    /// How strongly the prompt guides (classifier-free guidance, Ho and Salimans 2022); 1 is no guidance.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub cfg_scale: f64,
    /// The sampler.
    #[schemars(extend("x-registry" = "sampler"))]
    pub sampler: String,
    /// Options of the sampler.
    #[schemars(extend("x-options-of" = "sampler"))]
    pub sampler_options: Map<String, Value>,
    /// The schedule of noise levels.
    #[schemars(extend("x-registry" = "schedule"))]
    pub schedule: String,
    /// Options of the schedule.
    #[schemars(extend("x-options-of" = "schedule"))]
    pub schedule_options: Map<String, Value>,
    /// Seed of the first image; each further image counts one up. -1 draws one.
    #[schemars(range(min = -1, max = 9007199254740991i64))]
    pub seed: i64,
    /// Seed of the noise that `subseed_strength` mixes in. -1 draws one.
    #[schemars(range(min = -1, max = 9007199254740991i64))]
    pub subseed: i64,
    /// Variations of one image: how much of the noise is that of `subseed`. Above 0 the seed stays the same for all
    /// images, and the subseed counts up.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub subseed_strength: f64,
    /// Number of images.
    #[schemars(range(min = 1, max = 10000))]
    pub count: u32,
    /// Images that the network sees at once: the same images, sooner on a GPU, with more memory.
    #[schemars(range(min = 1, max = 64))]
    pub batch_size: u32,
    /// Which generator draws the noise.
    pub rng: RngKind,
    /// Which layer of the text encoder gives the embeddings, from the end: 1 is the last, 2 the one before it.
    #[schemars(range(min = 1, max = 12))]
    pub clip_skip: u32,
    /// How weights in the prompts act.
    pub emphasis: Emphasis,
    /// A prompt longer than one chunk of 75 tokens is rather cut at a comma, if there is one among this many
    /// tokens at the chunk's end; 0 cuts anywhere.
    #[schemars(range(min = 0, max = 75))]
    pub comma_backtrack: u32,
    /// Draws `{red|blue}` in the prompts, for each image by its seed; false makes braces letters.
    pub prompt_templates: bool,
    /// Draws `count` images of every combination of the choices in the prompts, all combinations with the same seeds,
    /// instead of choosing by chance.
    pub prompt_matrix: bool,
    /// Learned words (textual inversion, Gal et al. 2022): each name stands for the embeddings of its file.
    pub embeddings: Vec<EmbeddingFile>,
    /// Adapters (LoRA and its relatives), beside those that tags in the prompt name: `docs/reference/lora.md`.
    pub loras: Vec<LoraFile>,
    /// Whether adapters are added to the weights as they are loaded, or beside them in every step: the same images
    /// but for rounding.
    pub lora_mode: LoraMode,
    /// How much of the guided prediction is brought back to the spread it has under the prompt alone, against
    /// burnt colours at high scales (Lin et al. 2023, arXiv:2305.08891).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub cfg_rescale: f64,
    /// Part of the steps after which guidance begins; before, the prompt is followed as at scale 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub guidance_start: f64,
    /// Part of the steps after which guidance ends.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub guidance_end: f64,
    /// How the networks share the memory.
    pub memory: MemoryPolicy,
    /// Memory that a run may take, in GiB, instead of what the machine has free; 0 asks the machine.
    #[schemars(range(min = 0.0, max = 65536.0))]
    pub memory_limit: f64,
    /// Whether the autoencoder works in tiles.
    pub vae_tiling: VaeTiling,
    /// Side of a tile in pixels.
    #[schemars(range(min = 64, max = 4096))]
    pub vae_tile: u32,
    /// With `vae_tiling: blended`, the part of a tile that it shares with the next.
    #[schemars(range(min = 0.0, max = 0.75))]
    pub vae_overlap: f64,
    /// What decodes the finished latents.
    pub decoder: Decoder,
    /// Weights of the tiny autoencoder TAESD, a file or folder, if not those of the model's description.
    #[schemars(extend("x-file" = "path"))]
    pub taesd: String,
    /// How the image in work is shown.
    pub preview: Preview,
    /// A preview each so many steps.
    #[schemars(range(min = 1, max = 1000))]
    pub preview_every: u32,
    /// Whether the network sees the prompt and the negative prompt in one batch.
    pub cfg_batch: CfgBatch,
    /// The whole network is evaluated in every so many steps only, and its outermost layers in the others, with the features
    /// of the last whole evaluation (DeepCache, Ma, Fang and Wang 2023, arXiv:2312.00858). 1 is always whole; 2 or 3 are
    /// faster, and draw a picture that differs in details.
    #[schemars(range(min = 1, max = 100))]
    pub deep_cache: u32,
    /// A second pass at a larger size; for `txt2img`.
    pub hires: Hires,
    /// A finished image goes through an upscaler before it is kept.
    pub upscale: Upscale,
}

impl Txt2Img {
    /// How its prompts are encoded.
    pub fn encoding(&self) -> Encoding {
        Encoding {
            clip_skip: self.clip_skip as usize,
            emphasis: self.emphasis,
            comma_backtrack: self.comma_backtrack as usize,
        }
    }

    /// The size of its images when they are finished.
    pub fn finished_size(&self) -> (u32, u32) {
        let first = (self.width, self.height);
        if self.hires.is_on() { self.hires.size(first) } else { first }
    }

    fn check_hires(&self) -> Vec<Violation> {
        let hires = &self.hires;
        let mut found = hires.check((self.width, self.height), 8);
        found.extend(
            check_prompts(&hires.prompt, &hires.negative_prompt, self.prompt_templates, false)
                .into_iter()
                .map(|mut violation| {
                    violation.pointer.insert_str(0, "/hires");
                    violation
                }),
        );
        found
    }

    /// Every combination of its prompts, if all are wanted.
    ///
    /// # Errors
    /// More combinations than images may be drawn.
    pub fn matrix(&self) -> atelier_sdk::Result<Option<Vec<Drawn>>> {
        let limit = (MAX_IMAGES / self.count.max(1)) as usize;
        let wanted = self.prompt_matrix && self.prompt_templates;
        wanted.then(|| Drawn::all(&self.prompt, &self.negative_prompt, limit)).transpose()
    }

    /// How strongly its prompts guide.
    pub fn strength(&self) -> Strength {
        Strength {
            scale: self.cfg_scale,
            rescale: self.cfg_rescale,
            start: self.guidance_start,
            end: self.guidance_end,
        }
    }
}

/// What is wrong with the prompts, field by field; `loras` says whether the first may name adapters.
pub(crate) fn check_prompts(prompt: &str, negative: &str, templates: bool, loras: bool) -> Vec<Violation> {
    let fields = [("/prompt", prompt, loras), ("/negative_prompt", negative, false)];
    let found = fields.into_iter().flat_map(|(field, text, tags)| {
        let found = crate::prompt::check(text, templates, tags);
        found.into_iter().map(move |p| Violation::new(field, p.to_string()))
    });
    found.collect()
}

impl Default for Txt2Img {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            negative_prompt: String::new(),
            width: 512,
            height: 512,
            steps: 20,
            cfg_scale: 7.0,
            sampler: "dpmpp_2m".into(),
            sampler_options: Map::new(),
            schedule: "karras".into(),
            schedule_options: Map::new(),
            seed: -1,
            subseed: -1,
            subseed_strength: 0.0,
            count: 1,
            batch_size: 1,
            rng: RngKind::default(),
            clip_skip: 1,
            emphasis: Emphasis::default(),
            comma_backtrack: 20,
            prompt_templates: true,
            prompt_matrix: false,
            embeddings: Vec::new(),
            loras: Vec::new(),
            lora_mode: LoraMode::default(),
            cfg_rescale: 0.0,
            guidance_start: 0.0,
            guidance_end: 1.0,
            memory: MemoryPolicy::default(),
            memory_limit: 0.0,
            vae_tiling: VaeTiling::default(),
            vae_tile: 512,
            vae_overlap: 0.25,
            decoder: Decoder::default(),
            taesd: String::new(),
            preview: Preview::default(),
            preview_every: 1,
            cfg_batch: CfgBatch::default(),
            deep_cache: 1,
            hires: Hires::default(),
            upscale: Upscale::default(),
        }
    }
}

/// The tokenizer knows no upper case, so names that differ in it alone are one.
pub(crate) fn check_embeddings(embeddings: &[EmbeddingFile]) -> Vec<Violation> {
    let name = |e: &EmbeddingFile| e.name.trim().to_lowercase();
    let mut found = Vec::new();
    for (i, embedding) in embeddings.iter().enumerate() {
        let at = |field: &str, message: &str| Violation::new(format!("/embeddings/{i}/{field}"), message);
        if embedding.name.trim().is_empty() {
            found.push(at("name", "an embedding needs a name"));
        } else if embeddings[..i].iter().any(|e| name(e) == name(embedding)) {
            found.push(at("name", &format!("`{}` is the name of another embedding too", embedding.name)));
        }
        if embedding.path.is_empty() {
            found.push(at("path", "an embedding needs a file"));
        }
    }
    found
}

impl TaskParams for Txt2Img {
    const TASK: &'static TaskInfo = &task::TXT2IMG;

    fn plan(mut self, ctx: &PlanCtx) -> Result<Self, Vec<Violation>> {
        let pixels = u64::from(self.width) * u64::from(self.height);
        if pixels > MAX_PIXELS {
            return Err(vec![
                Violation::new("/width", format!("{}x{} has {pixels} pixels", self.width, self.height))
                    .hint(format!("at most {MAX_PIXELS} pixels and {MAX_SIDE} a side")),
            ]);
        }
        let violations = check_prompts(&self.prompt, &self.negative_prompt, self.prompt_templates, true);
        if !violations.is_empty() {
            return Err(violations);
        }
        let violations = check_embeddings(&self.embeddings);
        if !violations.is_empty() {
            return Err(violations);
        }
        let matrix = self.matrix().err().map(|e| Violation::new("/prompt_matrix", e.message()));
        let violations = [
            self.check_hires(),
            self.upscale.check(),
            check_loras(&self.loras),
            matrix.into_iter().collect(),
        ]
        .concat();
        if !violations.is_empty() {
            return Err(violations);
        }
        if self.guidance_start > self.guidance_end {
            let message = format!("{} is after guidance_end {}", self.guidance_start, self.guidance_end);
            return Err(vec![Violation::new("/guidance_start", message)]);
        }
        if self.seed < 0 {
            // 32 bits: what every program in the field can take back.
            self.seed = i64::from(ctx.entropy as u32);
        }
        if self.subseed < 0 && self.subseed_strength > 0.0 {
            self.subseed = i64::from((ctx.entropy >> 32) as u32);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_seed_is_drawn_when_planned_and_a_given_one_kept() {
        let ctx = PlanCtx { entropy: 0x1_0000_0007 };
        assert_eq!(Txt2Img::default().plan(&ctx).unwrap().seed, 7);
        let given = Txt2Img { seed: 42, ..Txt2Img::default() };
        assert_eq!(given.plan(&ctx).unwrap().seed, 42);
    }

    #[test]
    fn more_pixels_than_any_model_draws_are_refused() {
        let huge = Txt2Img { width: 4096, height: 4096, ..Txt2Img::default() };
        let found = huge.plan(&PlanCtx { entropy: 0 }).unwrap_err();
        assert_eq!(found[0].pointer, "/width");
    }

    #[test]
    fn prompts_and_embeddings_are_checked_before_anything_is_loaded() {
        let file = |name: &str, path: &str| EmbeddingFile { name: name.into(), path: path.into() };
        let pointers = |params: Txt2Img| {
            let found = params.plan(&PlanCtx { entropy: 0 }).unwrap_err();
            found.into_iter().map(|v| v.pointer).collect::<Vec<_>>()
        };
        let prompts = Txt2Img {
            prompt: "<lora:a:x>".into(),
            negative_prompt: "{0::a|0::b}".into(),
            ..Txt2Img::default()
        };
        assert_eq!(pointers(prompts), ["/prompt", "/negative_prompt"]);
        let embeddings = vec![file("a", "x"), file("A ", "y"), file("", "")];
        let expected = ["/embeddings/1/name", "/embeddings/2/name", "/embeddings/2/path"];
        assert_eq!(pointers(Txt2Img { embeddings, ..Txt2Img::default() }), expected);
        let interval = Txt2Img { guidance_start: 0.6, guidance_end: 0.5, ..Txt2Img::default() };
        assert_eq!(pointers(interval), ["/guidance_start"]);
    }

    /// Requests and presets written before these fields were there must mean what they meant.
    #[test]
    fn an_empty_request_has_plain_guidance() {
        let params: Txt2Img = serde_json::from_str("{}").unwrap();
        assert_eq!(params.strength(), Strength::scale(7.0));
        assert_eq!((params.encoding().clip_skip, params.encoding().emphasis), (1, Emphasis::Original));
    }
}
