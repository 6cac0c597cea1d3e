//! Whole runs of the engine against reference pipelines (`txt2img.safetensors`): text to latents to pixels.
//!
//! The reference programs place their levels and timesteps in ways of their own; here they are rebuilt from
//! the configuration that the file carries, and the engine is given them as they are. What is compared is
//! everything else: tokens, text encoder, UNet, guidance, sampler, decoder.

use crate::support::golden;
use atelier_samplers as _;
use atelier_sdk::rng::{NormalRng, RngKind};
use atelier_sdk::{
    EngineCtx, Error, Event, Image, NoiseLevels, Registry, Result, Run, SampleCtx, Sampler, SamplerReg,
    Schedule,
};
use atelier_stable_diffusion::decoding::Pieces;
use atelier_stable_diffusion::guided::{Guidance, Guided, Timesteps};
use atelier_stable_diffusion::pipeline::{Part, Pipeline};
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Largest difference allowed, relative to the largest value of the reference.
pub const TOLERANCE: f64 = 1e-3;

pub struct Reference {
    pub tensors: HashMap<String, Tensor>,
    pub meta: HashMap<String, String>,
}

impl Reference {
    pub fn read(name: &str) -> Self {
        Self::read_file(&golden().join(name))
    }

    pub fn read_file(file: &Path) -> Self {
        let bytes = std::fs::read(file).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let meta = header.metadata().clone().unwrap_or_default();
        Self { tensors: candle_core::safetensors::load(file, &Device::Cpu).unwrap(), meta }
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        let t = self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
        t.flatten_all().unwrap().to_vec1().unwrap()
    }

    pub fn number(&self, key: &str) -> f64 {
        self.meta[key].parse().unwrap()
    }

    pub fn scheduler(&self, name: &str) -> (String, Value) {
        let all: Value = serde_json::from_str(&self.meta["schedulers"]).unwrap();
        (all[name][0].as_str().unwrap().to_string(), all[name][1].clone())
    }
}

/// Levels and timesteps of a reference run, and the factor of its first noise in our space.
pub struct Grid {
    pub sigmas: Vec<f32>,
    pub timesteps: Vec<(f32, f64)>,
    pub start: f64,
}

pub fn grid(class: &str, config: &Value, steps: usize) -> Grid {
    let get = |k: &str| config[k].as_f64().unwrap();
    let train = get("num_train_timesteps") as usize;
    let betas = NoiseLevels::scaled_linear_betas(get("beta_start"), get("beta_end"), train);
    let levels = NoiseLevels::from_betas(&betas).unwrap();
    let n = steps as f64;
    let at = |t: f64| levels.level(t as usize).unwrap();
    let (timesteps, mut sigmas): (Vec<f64>, Vec<f64>) = match class {
        // Evenly spaced timesteps, levels interpolated between their neighbours.
        "EulerDiscreteScheduler" | "EulerAncestralDiscreteScheduler" => {
            let last = (train - 1) as f64;
            let ts = (0..steps).map(|i| if steps > 1 { last - last * i as f64 / (n - 1.0) } else { 0.0 });
            let between = |t: f64| {
                let low = t.floor();
                at(low) + (t - low) * (at(t.ceil()) - at(low))
            };
            ts.map(|t| (t, between(t))).unzip()
        }
        // Whole timesteps from 1 up in equal strides; the end is the level of timestep 0.
        "DDIMScheduler" => {
            let stride = train / steps;
            let offset = config["steps_offset"].as_f64().unwrap_or(0.0);
            let ts = (0..steps).rev().map(|i| (i * stride) as f64 + offset);
            ts.map(|t| (t, at(t))).unzip()
        }
        _ if config["use_karras_sigmas"] == true => {
            let (low, high) = (levels.min().powf(1.0 / 7.0), levels.max().powf(1.0 / 7.0));
            let sigma = |i: usize| (high + i as f64 / (n - 1.0) * (low - high)).powi(7);
            (0..steps).map(|i| (round_half_even(levels.timestep(sigma(i))), sigma(i))).unzip()
        }
        // One more evenly spaced timestep than steps, the lowest left out, rounded.
        _ => {
            let last = (train - 1) as f64;
            let ts = (0..steps).map(|i| round_half_even(last - last * i as f64 / n));
            ts.map(|t| (t, at(t))).unzip()
        }
    };
    let vp = !class.starts_with("Euler");
    let start = if vp { (1.0 + sigmas[0] * sigmas[0]).sqrt() } else { sigmas[0] };
    sigmas.push(if class == "DDIMScheduler" { levels.min() } else { 0.0 });
    let sigmas: Vec<f32> = sigmas.iter().map(|s| *s as f32).collect();
    Grid { timesteps: sigmas.iter().copied().zip(timesteps).collect(), sigmas, start }
}

fn round_half_even(v: f64) -> f64 {
    v.round_ties_even()
}

/// A host for the engine's denoiser that keeps nothing.
pub struct Nowhere;

impl EngineCtx for Nowhere {
    fn event(&mut self, _: Event) -> Result<()> {
        Ok(())
    }
    fn cancelled(&self) -> bool {
        false
    }
    fn sampler(&mut self, _: &str, _: &Value) -> Result<Box<dyn Sampler>> {
        Err(Error::internal("not asked for here"))
    }
    fn schedule(&mut self, _: &str, _: &Value) -> Result<Box<dyn Schedule>> {
        Err(Error::internal("not asked for here"))
    }
    fn input_image(&mut self, _: &str) -> Result<Image> {
        Err(Error::internal("not asked for here"))
    }
    fn input_bytes(&mut self, _: &str) -> Result<Vec<u8>> {
        Err(Error::internal("not asked for here"))
    }
    fn image(&mut self, _: Image, _: Value) -> Result<()> {
        Ok(())
    }
}

/// The engine's denoiser with the reference's noise, which also keeps every state.
pub struct Replay<'a> {
    pub inner: Guided<'a>,
    pub noises: Vec<Vec<f32>>,
    pub drawn: usize,
    pub states: Vec<Vec<f32>>,
}

impl SampleCtx for Replay<'_> {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        self.inner.denoise(x, sigma, out)
    }
    fn noise(&mut self, _: f32, _: f32, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&self.noises[self.drawn]);
        self.drawn += 1;
        Ok(())
    }
    fn step_done(&mut self, i: usize, x: &[f32]) -> Result<()> {
        self.states.push(x.to_vec());
        self.inner.step_done(i, x)
    }
    fn cancelled(&self) -> bool {
        false
    }
}

pub fn error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    let worst = found.iter().zip(expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(found.iter().all(|v| v.is_finite()));
    f64::from(worst / largest)
}

/// Runs `sampler` as the reference `name` ran; gives the states after each step in the reference's space.
pub fn states(
    reference: &Reference,
    pipeline: &Pipeline,
    name: &str,
    sampler: &str,
    guidance: &Guidance,
) -> Vec<Vec<f32>> {
    let (class, config) = reference.scheduler(name);
    let steps = reference.number("steps") as usize;
    let grid = grid(&class, &config, steps);
    let latents = reference.values("latents");
    let dims = reference.tensors["latents"].dims();
    let shape = [dims[0], dims[1], dims[2], dims[3]];
    let mut x: Vec<f32> = latents.iter().map(|v| (f64::from(*v) * grid.start) as f32).collect();
    let noises = (0..steps)
        .filter(|i| reference.tensors.contains_key(&format!("{name}.noise_{i}")))
        .map(|i| reference.values(&format!("{name}.noise_{i}")))
        .collect();
    let (mut rng, mut ctx) = (NormalRng::new(RngKind::Cpu, 0), Nowhere);
    let listed = Timesteps::Listed(grid.timesteps.clone());
    let inner = Guided::new(pipeline, guidance, listed, shape, steps, &mut rng, &mut ctx).unwrap();
    let mut replay = Replay { inner, noises, drawn: 0, states: Vec::new() };
    let samplers =
        Registry::new("sampler", atelier_sdk::inventory::iter::<SamplerReg>.into_iter().copied()).unwrap();
    // diffusers' UniPC is of order 2, its default.
    let options = if sampler == "unipc" { json!({"order": 2, "variant": "bh2"}) } else { json!({}) };
    let mut plugin = (samplers.get(sampler).unwrap().make)(&options).unwrap();
    let run = Run { sigmas: &grid.sigmas, shape, extra: &json!({"parameterization": "ve"}) };
    plugin.sample(&run, &mut replay, &mut x).unwrap();
    let vp = !class.starts_with("Euler");
    let scale = |i: usize| {
        let sigma = f64::from(grid.sigmas[i + 1]);
        if vp { 1.0 / (1.0 + sigma * sigma).sqrt() } else { 1.0 }
    };
    let in_space = |(i, x): (usize, &Vec<f32>)| x.iter().map(|v| (f64::from(*v) * scale(i)) as f32).collect();
    replay.states.iter().enumerate().map(in_space).collect()
}

fn setup() -> (Reference, Pipeline) {
    let pipeline = Pipeline::open(&golden().join("tiny-sd"), DType::F32, &Device::Cpu).unwrap();
    for part in Part::ALL {
        pipeline.load(part).unwrap();
        assert_eq!(pipeline.unused(part), None);
    }
    (Reference::read("txt2img.safetensors"), pipeline)
}

pub fn guidance(reference: &Reference, pipeline: &Pipeline, scale: f64) -> Guidance {
    let encode = |key: &str| pipeline.encode_prompt(&reference.meta[key]).unwrap().context;
    Guidance { positive: encode("prompt"), negative: Some(encode("negative")), scale }
}

#[test]
fn prompts_are_embedded_as_in_the_reference() {
    let (reference, pipeline) = setup();
    for (key, name) in [("prompt", "prompt_embeds"), ("negative", "negative_embeds")] {
        let context = pipeline.encode_prompt(&reference.meta[key]).unwrap().context;
        let found: Vec<f32> = context.flatten_all().unwrap().to_vec1().unwrap();
        let error = error(&found, &reference.values(name));
        println!("{name:<32} {error:.1e}");
        assert!(error < 1e-4, "{name}: {error}");
    }
}

#[test]
fn whole_runs_follow_the_reference_to_the_last_pixel() {
    let (reference, pipeline) = setup();
    let scale = reference.number("guidance_scale");
    let guidance = guidance(&reference, &pipeline, scale);
    for (name, sampler) in [
        ("euler", "euler"),
        ("euler_a", "euler_a"),
        ("ddim", "ddim"),
        ("dpmpp_2m_karras", "dpmpp_2m"),
        ("unipc", "unipc"),
    ] {
        let states = states(&reference, &pipeline, name, sampler, &guidance);
        for (i, state) in states.iter().enumerate() {
            let error = error(state, &reference.values(&format!("{name}.step_{i}")));
            assert!(error < TOLERANCE, "{name} step {i}: {error}");
        }
        let last = states.last().unwrap();
        let latents = error(last, &reference.values(&format!("{name}.final_latents")));
        let dims = reference.tensors[&format!("{name}.final_latents")].dims().to_vec();
        let planes =
            pipeline.decode_planes(last, [dims[0], dims[1], dims[2], dims[3]], &Pieces::Whole).unwrap();
        let image: Vec<f32> = planes.flatten_all().unwrap().to_vec1().unwrap();
        let image: Vec<f32> = image.iter().map(|v| (v * 0.5 + 0.5).clamp(0.0, 1.0)).collect();
        let pixels = error(&image, &reference.values(&format!("{name}.image")));
        println!("{name:<32} latents {latents:.1e} pixels {pixels:.1e}");
        assert!(latents < TOLERANCE && pixels < TOLERANCE, "{name}: {latents} {pixels}");
    }
}

#[test]
fn a_run_without_guidance_needs_no_negative_prompt() {
    let (reference, pipeline) = setup();
    let mut guidance = guidance(&reference, &pipeline, 1.0);
    guidance.negative = None;
    let states = states(&reference, &pipeline, "euler", "euler", &guidance);
    let error = error(states.last().unwrap(), &reference.values("euler_nocfg.final_latents"));
    println!("{:<32} latents {error:.1e}", "euler_nocfg");
    assert!(error < TOLERANCE, "{error}");
}
