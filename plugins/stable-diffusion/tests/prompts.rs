//! Prompts at work: the tiny model draws, and what a rule promises is seen in the pixels.

#![allow(clippy::unwrap_used)]

use atelier_sdk::{
    EngineCtx, Error, Event, Image, NoiseLevels, Result, Run, SampleCtx, Sampler, Schedule, Session,
    TaskParams,
};
use atelier_stable_diffusion::guided::{Guidance, Guided, Timesteps};
use atelier_stable_diffusion::params::Txt2Img;
use atelier_stable_diffusion::pipeline::Pipeline;
use atelier_stable_diffusion::prompt::conditioning::{Conditioning, Strength};
use atelier_stable_diffusion::prompt::encode::{Emphasis, Encoder, Encoding};
use atelier_stable_diffusion::prompt::inversion::{Named, TextualInversion};
use atelier_stable_diffusion::session::SdSession;
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;

fn golden() -> PathBuf {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/golden");
    std::env::var_os("ATELIER_GOLDEN_DIR").map_or_else(|| here.into(), PathBuf::from)
}

fn pipeline() -> Pipeline {
    Pipeline::open(&golden().join("tiny-sd"), DType::F32, &Device::Cpu).unwrap()
}

struct Euler;

impl Sampler for Euler {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let mut denoised = vec![0f32; x.len()];
        for (i, w) in run.sigmas.windows(2).enumerate() {
            ctx.denoise(x, w[0], &mut denoised)?;
            for (x, d) in x.iter_mut().zip(&denoised) {
                *x += (*x - d) / w[0] * (w[1] - w[0]);
            }
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

struct Even;

impl Schedule for Even {
    fn sigmas(&self, steps: usize, _: &NoiseLevels) -> Result<Vec<f32>> {
        Ok((0..=steps).map(|i| 10.0 * (steps - i) as f32 / steps as f32).collect())
    }
}

#[derive(Default)]
struct Host {
    images: Vec<(Image, Value)>,
}

impl EngineCtx for Host {
    fn event(&mut self, _: Event) -> Result<()> {
        Ok(())
    }
    fn cancelled(&self) -> bool {
        false
    }
    fn sampler(&mut self, _: &str, _: &Value) -> Result<Box<dyn Sampler>> {
        Ok(Box::new(Euler))
    }
    fn schedule(&mut self, _: &str, _: &Value) -> Result<Box<dyn Schedule>> {
        Ok(Box::new(Even))
    }
    fn input_image(&mut self, _: &str) -> Result<Image> {
        Err(Error::internal("not asked for here"))
    }
    fn input_bytes(&mut self, _: &str) -> Result<Vec<u8>> {
        Err(Error::internal("not asked for here"))
    }
    fn image(&mut self, image: Image, facts: Value) -> Result<()> {
        self.images.push((image, facts));
        Ok(())
    }
}

struct Studio(SdSession);

impl Studio {
    fn open() -> Self {
        Self(SdSession::new(pipeline()))
    }

    /// Draws with these parameters over small ones; gives the images' pixels and facts.
    fn draw(&mut self, changes: Value) -> Result<Vec<(Vec<u8>, Value)>> {
        let mut params = json!({"width": 64, "height": 64, "steps": 4, "seed": 5, "prompt": "a red shoe"});
        let map = params.as_object_mut().unwrap();
        map.extend(changes.as_object().unwrap().clone());
        let params: Txt2Img = serde_json::from_value(params).unwrap();
        let mut host = Host::default();
        self.0.run("txt2img", &serde_json::to_value(params).unwrap(), &mut host)?;
        Ok(host.images.into_iter().map(|(image, facts)| (image.data().to_vec(), facts)).collect())
    }

    fn pixels(&mut self, prompt: &str) -> Vec<u8> {
        self.with(json!({"prompt": prompt}))
    }

    fn with(&mut self, changes: Value) -> Vec<u8> {
        self.draw(changes).unwrap().remove(0).0
    }
}

#[test]
fn a_weight_changes_the_image_and_a_weight_of_one_does_not() {
    let mut studio = Studio::open();
    let plain = studio.pixels("a red shoe");
    assert_eq!(plain, studio.pixels("a (red:1.0) shoe"));
    let heavy = studio.pixels("a (red:1.5) shoe");
    assert_ne!(plain, heavy);
    assert_eq!(studio.pixels("a (red) shoe"), studio.pixels("a (red:1.1) shoe"));
    assert_eq!(studio.pixels("a ((red)) shoe"), studio.pixels("a ((red:1.1):1.1) shoe"));
    assert_ne!(heavy, studio.with(json!({"prompt": "a (red:1.5) shoe", "emphasis": "no_norm"})));
    let letters = studio.with(json!({"prompt": "a (red:1.5) shoe", "emphasis": "none"}));
    assert_eq!(letters, studio.pixels(r"a \(red:1.5\) shoe"));
}

#[test]
fn a_long_prompt_is_seen_to_its_end_on_either_side() {
    let mut studio = Studio::open();
    let long = "a photo of a person ".repeat(20);
    let (a, b) = (format!("{long} red"), format!("{long} blue"));
    assert_ne!(studio.pixels(&a), studio.pixels(&b));
    let negative = |text: &str| json!({"negative_prompt": text});
    assert_ne!(studio.with(negative(&a)), studio.with(negative(&b)));
    assert_ne!(studio.with(json!({"prompt": a, "negative_prompt": b})), studio.pixels(&a));
}

#[test]
fn break_gives_each_side_a_chunk_of_its_own() {
    let mut studio = Studio::open();
    let broken = studio.pixels("a red shoe BREAK white background");
    assert_ne!(broken, studio.pixels("a red shoe white background"));
    assert_eq!(broken, studio.pixels("a red shoe BREAK  white background "));
}

#[test]
fn prompts_joined_with_and_pull_by_their_weights() {
    let mut studio = Studio::open();
    let plain = studio.pixels("a red shoe");
    assert_eq!(plain, studio.pixels("a red shoe:1 AND a boat:0"));
    let joined = studio.pixels("a red shoe AND a boat:0.5");
    assert_ne!(plain, joined);
    assert_ne!(joined, studio.pixels("a red shoe AND a boat:0.9"));
    let unguided = |prompt: &str| json!({"prompt": prompt, "cfg_scale": 1.0});
    assert_ne!(studio.with(unguided("a red shoe AND a boat")), studio.with(unguided("a red shoe")));
}

#[test]
fn a_change_at_the_very_start_or_end_is_the_plain_prompt() {
    let mut studio = Studio::open();
    let (red, blue) = (studio.pixels("a red shoe"), studio.pixels("a blue shoe"));
    assert_eq!(blue, studio.pixels("a [red:blue:0] shoe"));
    assert_eq!(red, studio.pixels("a [red:blue:1.0] shoe"));
    let changed = studio.pixels("a [red:blue:0.5] shoe");
    assert!(changed != red && changed != blue);
    assert_eq!(changed, studio.pixels("a [red:blue:2] shoe"));
    assert_eq!(studio.pixels("a [red::0] shoe"), studio.pixels("a  shoe"));
    assert_eq!(studio.pixels("a [red:0] shoe"), red);
    let negative = |text: &str| json!({"negative_prompt": text});
    assert_ne!(studio.with(negative("[red:blue:0.5]")), studio.with(negative("red")));
}

#[test]
fn alternation_takes_turns() {
    let mut studio = Studio::open();
    let turns = studio.pixels("a [red|blue] shoe");
    assert_ne!(turns, studio.pixels("a red shoe"));
    assert_ne!(turns, studio.pixels("a blue shoe"));
    assert_ne!(turns, studio.pixels("a [blue|red] shoe"));
    assert_eq!(studio.pixels("a [red|red] shoe"), studio.pixels("a red shoe"));
    // Texts of the four steps: red, red, blue, red.
    assert_eq!(turns, studio.pixels("a [red:[blue:red:2]:1] shoe"));
}

#[test]
fn a_lora_that_is_not_found_is_an_error_and_not_ignored() {
    let mut studio = Studio::open();
    let e = studio.draw(json!({"prompt": "a <lora:shoes:0.8> shoe"})).unwrap_err();
    assert!(e.message().contains("shoes"), "{e:?}");
    let params: Txt2Img = serde_json::from_value(json!({"negative_prompt": "<lora:shoes:0.8>"})).unwrap();
    let found = params.plan(&atelier_sdk::PlanCtx { entropy: 0 }).unwrap_err();
    assert_eq!(found[0].pointer, "/negative_prompt");
    let hires = json!({"hires": {"scale": 2.0, "prompt": "<lora:shoes:0.8>"}});
    let params: Txt2Img = serde_json::from_value(hires).unwrap();
    let found = params.plan(&atelier_sdk::PlanCtx { entropy: 0 }).unwrap_err();
    assert_eq!(found[0].pointer, "/hires/prompt");
}

#[test]
fn each_image_draws_from_the_template_by_its_seed_and_says_what() {
    let mut studio = Studio::open();
    let template = json!({"prompt": "a {red|blue|green|white|black} {shoe|boat|house}", "count": 3});
    let images = studio.draw(template).unwrap();
    let texts: Vec<_> = images.iter().map(|(_, facts)| facts["prompt"].as_str().unwrap()).collect();
    assert!(texts.iter().all(|t| !t.contains('{')), "{texts:?}");
    assert!(texts.iter().any(|t| *t != texts[0]), "{texts:?}");
    for (pixels, facts) in &images {
        assert_eq!(*pixels, studio.with(facts.clone()), "{facts}");
    }
    let letters = studio.draw(json!({"prompt": "{red|blue}", "prompt_templates": false})).unwrap();
    assert_eq!(letters[0].1.get("prompt"), None);
}

#[test]
fn rescale_interval_and_clip_skip_each_change_the_image() {
    let mut studio = Studio::open();
    let plain = studio.pixels("a red shoe");
    for change in [
        json!({"cfg_rescale": 0.7}),
        json!({"guidance_start": 0.5}),
        json!({"guidance_end": 0.5}),
        json!({"clip_skip": 2}),
    ] {
        assert_ne!(plain, studio.with(change.clone()), "{change}");
    }
    let unguided = studio.with(json!({"cfg_scale": 1.0}));
    assert_eq!(unguided, studio.with(json!({"guidance_start": 1.0})));
    let e = studio.draw(json!({"clip_skip": 4})).unwrap_err();
    assert!(e.chain().join(" ").contains("3 layers"), "{e:?}");
}

fn encoding(clip_skip: usize) -> Encoding {
    Encoding { clip_skip, emphasis: Emphasis::Original, comma_backtrack: 20 }
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()))
}

struct Reference {
    tensors: HashMap<String, Tensor>,
}

impl Reference {
    fn read(name: &str) -> Self {
        Self { tensors: candle_core::safetensors::load(golden().join(name), &Device::Cpu).unwrap() }
    }
    fn values(&self, name: &str) -> Vec<f32> {
        values(&self.tensors[name])
    }
}

const PROMPT: &str = "a photo of red casual shoes, white background";
const NEGATIVE: &str = "blurry, low quality";

#[test]
fn a_plain_prompt_has_the_bits_of_the_plain_encoder() {
    let pipeline = pipeline();
    let mut encoder = Encoder::new(&pipeline, encoding(1));
    for text in [PROMPT, NEGATIVE, ""] {
        let plain = pipeline.encode_prompt(text).unwrap().context;
        assert_eq!(values(&plain), values(&encoder.text(text).unwrap()));
    }
}

#[test]
fn clip_skip_2_is_the_reference_s_state_before_the_last_layer() {
    let pipeline = pipeline();
    let mut encoder = Encoder::new(&pipeline, encoding(2));
    let reference = Reference::read("text.safetensors").values("clip_skip1");
    let found: Vec<f32> =
        [PROMPT, NEGATIVE, ""].iter().flat_map(|t| values(&encoder.text(t).unwrap())).collect();
    assert!(difference(&found, &reference) < 5e-5);
}

/// The reference's levels: evenly spaced timesteps of the training levels, interpolated.
fn grid(pipeline: &Pipeline, steps: usize) -> (Vec<f32>, Vec<(f32, f64)>) {
    let levels = &pipeline.process().levels;
    let last = (levels.len() - 1) as f64;
    let at = |t: f64| levels.level(t as usize).unwrap();
    let level = |t: f64| at(t.floor()) + (t - t.floor()) * (at(t.ceil()) - at(t.floor()));
    let timesteps: Vec<f64> = (0..steps).map(|i| last - last * i as f64 / (steps - 1) as f64).collect();
    let mut sigmas: Vec<f32> = timesteps.iter().map(|t| level(*t) as f32).collect();
    let listed = sigmas.iter().copied().zip(timesteps).collect();
    sigmas.push(0.0);
    (sigmas, listed)
}

fn run(pipeline: &Pipeline, reference: &Reference, conditioning: Conditioning) -> Vec<f32> {
    let (sigmas, listed) = grid(pipeline, 6);
    let shape = [1, 4, 8, 8];
    let mut x: Vec<f32> = reference.values("latents").iter().map(|v| v * sigmas[0]).collect();
    let mut rng = atelier_sdk::rng::NormalRng::new(Default::default(), 0);
    let mut host = Host::default();
    let mut guided =
        Guided::scheduled(pipeline, conditioning, Timesteps::Listed(listed), shape, 6, &mut rng, &mut host)
            .unwrap();
    let run = Run { sigmas: &sigmas, shape, extra: &json!({}) };
    Euler.sample(&run, &mut guided, &mut x).unwrap();
    x
}

fn assert_follows(found: &[f32], reference: &Reference, name: &str) {
    let expected = reference.values(name);
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let error = difference(found, &expected) / largest;
    println!("{name:<32} {error:.1e}");
    assert!(error < 1e-3, "{name}: {error}");
}

#[test]
fn rescaled_and_skipping_runs_follow_the_reference() {
    let (pipeline, reference) = (pipeline(), Reference::read("txt2img.safetensors"));
    for (name, skip, rescale) in [("euler", 1, 0.0), ("euler_rescale07", 1, 0.7), ("euler_clipskip1", 2, 0.0)]
    {
        let strength = Strength { rescale, ..Strength::scale(7.5) };
        let mut encoder = Encoder::new(&pipeline, encoding(skip));
        let mut conditioning = encoder.conditioning(PROMPT, NEGATIVE, strength, 6).unwrap();
        if skip == 2 {
            // The reference takes the negative prompt from the last layer.
            let mut last = Encoder::new(&pipeline, encoding(1));
            conditioning.negative = last.conditioning(PROMPT, NEGATIVE, strength, 6).unwrap().negative;
        }
        assert_follows(
            &run(&pipeline, &reference, conditioning),
            &reference,
            &format!("{name}.final_latents"),
        );
    }
}

#[test]
fn a_conditioning_that_does_not_change_has_the_bits_of_a_constant_one() {
    let (pipeline, reference) = (pipeline(), Reference::read("txt2img.safetensors"));
    let mut encoder = Encoder::new(&pipeline, encoding(1));
    let guidance = Guidance {
        positive: encoder.text(PROMPT).unwrap(),
        negative: Some(encoder.text(NEGATIVE).unwrap()),
        scale: 7.5,
    };
    let constant = run(&pipeline, &reference, (&guidance).into());
    let scheduled = encoder.conditioning(PROMPT, NEGATIVE, Strength::scale(7.5), 6).unwrap();
    assert_eq!(constant, run(&pipeline, &reference, scheduled));
}

/// The vectors that the vocabulary has for a text, as a file for them would hold them.
fn vectors_of(text: &str, pipeline: &Pipeline) -> Tensor {
    let file = golden().join("tiny-sd/text_encoder/model.safetensors");
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let table = tensors.iter().find(|(n, _)| n.ends_with("token_embedding.weight")).unwrap().1;
    let ids = pipeline.tokenizer().unwrap().tokens(text).unwrap();
    let ids = Tensor::from_vec(ids.clone(), ids.len(), &Device::Cpu).unwrap();
    table.to_dtype(DType::F32).unwrap().index_select(&ids, 0).unwrap()
}

#[test]
fn a_learned_word_with_the_vectors_of_a_text_is_that_text() {
    let pipeline = pipeline();
    let word = TextualInversion { vectors: vectors_of("casual shoes", &pipeline) };
    let named = Named::new(&pipeline, "zqx", word).unwrap();
    let mut encoder = Encoder::new(&pipeline, encoding(2)).with_embeddings(vec![named]);
    for (learned, plain) in [
        ("a red zqx, white", "a red casual shoes, white"),
        ("a (red zqx:1.4) BREAK ZQX", "a (red casual shoes:1.4) BREAK casual shoes"),
    ] {
        let (learned, plain) = (encoder.text(learned).unwrap(), encoder.text(plain).unwrap());
        assert_eq!(values(&learned), values(&plain));
    }
    assert_ne!(values(&encoder.text("zqx").unwrap()), values(&encoder.text("zq").unwrap()));
}

#[test]
fn a_learned_word_of_another_width_or_without_a_name_is_refused() {
    let pipeline = pipeline();
    let word = |width: usize| TextualInversion {
        vectors: Tensor::ones((1, width), DType::F32, &Device::Cpu).unwrap(),
    };
    let e = Named::new(&pipeline, "zqx", word(768)).unwrap_err();
    assert!(e.message().contains("768") && e.message().contains("32"), "{e:?}");
    assert!(Named::new(&pipeline, " ", word(32)).is_err());
}
