//! Runs that begin with an image against reference pipelines (`img2img.safetensors`, `inpaint.safetensors`).
//!
//! As in `parity`, levels and timesteps are the reference's own. What is compared is everything else: the encoder,
//! where a strength begins, the noisy start, what stays of the image, the channels of a model for inpainting.

use crate::parity::{Nowhere, Reference, Replay, TOLERANCE, error, grid, guidance};
use crate::support::golden;
use atelier_models::{AutoencoderKl, Network};
use atelier_sdk::rng::{NormalRng, RngKind};
use atelier_sdk::{Registry, Run, SamplerReg};
use atelier_stable_diffusion::guided::{Guided, Timesteps};
use atelier_stable_diffusion::image_params::{Fill, StepRule};
use atelier_stable_diffusion::pipeline::Pipeline;
use atelier_stable_diffusion::start::{Blended, Start};
use candle_core::{DType, Device, Tensor};
use serde_json::json;

const SAMPLERS: [(&str, &str); 4] =
    [("ddim", "ddim"), ("euler", "euler"), ("euler_a", "euler_a"), ("dpmpp_2m_karras", "dpmpp_2m")];

/// The latents of a reference's image: a sample of the encoder's distribution, scaled.
fn latents(reference: &Reference, image: &Tensor, noise: &str) -> Tensor {
    let vae = AutoencoderKl::open(golden().join("tiny-sd/vae"), DType::F32, &Device::Cpu).unwrap().model;
    vae.scale(&vae.encode(image).unwrap().sample(&reference.tensors[noise]).unwrap()).unwrap()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Where a run of the reference begins.
struct Case<'a> {
    scheduler: &'a str,
    sampler: &'a str,
    strength: f64,
    noise: Vec<f32>,
    step_noises: Vec<Vec<f32>>,
    start: Start,
    /// Whether what stays is put back at every evaluation.
    blends: bool,
}

/// Runs it here; gives the largest difference of the final latents.
fn compare(pipeline: &Pipeline, reference: &Reference, case: Case<'_>, expected: &str) -> f64 {
    // The configurations of the schedulers stand in another file.
    let (class, config) = Reference::read("txt2img.safetensors").scheduler(case.scheduler);
    let steps = reference.number("steps") as usize;
    let grid = grid(&class, &config, steps);
    let (all, taken) = StepRule::Diffusers.steps(steps as u32, case.strength);
    assert_eq!(all, steps);
    let sigmas = &grid.sigmas[steps - taken..];
    let mut x = case.noise;
    case.start.begin(&mut x, sigmas[0]);
    let guidance = guidance(reference, pipeline, reference.number("guidance_scale"));
    let (mut rng, mut ctx) = (NormalRng::new(RngKind::Cpu, 0), Nowhere);
    let shape = [1, 4, 8, 8];
    let listed = Timesteps::Listed(grid.timesteps.clone());
    let inner = Guided::new(pipeline, &guidance, listed, shape, taken, &mut rng, &mut ctx).unwrap();
    let inner = inner.with_channels(case.start.channels.clone());
    let mut replay = Replay { inner, noises: case.step_noises, drawn: 0, states: Vec::new() };
    let samplers =
        Registry::new("sampler", atelier_sdk::inventory::iter::<SamplerReg>.into_iter().copied()).unwrap();
    let mut sampler = (samplers.get(case.sampler).unwrap().make)(&json!({})).unwrap();
    let run = Run { sigmas, shape, extra: &json!({"parameterization": "ve"}) };
    if case.blends {
        let mut blended = Blended { inner: &mut replay, start: &case.start };
        sampler.sample(&run, &mut blended, &mut x).unwrap();
        case.start.blend(&mut x);
    } else {
        sampler.sample(&run, &mut replay, &mut x).unwrap();
    }
    // The reference's last latents are not scaled down, but its DDIM ends at the level of timestep 0.
    let last = f64::from(*sigmas.last().unwrap());
    let vp = !class.starts_with("Euler");
    let scale = if vp { 1.0 / (1.0 + last * last).sqrt() } else { 1.0 };
    let found: Vec<f32> = x.iter().map(|v| (f64::from(*v) * scale) as f32).collect();
    error(&found, &reference.values(expected))
}

#[test]
fn img2img_runs_follow_the_reference_at_every_strength() {
    let reference = Reference::read("img2img.safetensors");
    let pipeline = Pipeline::open(&golden().join("tiny-sd"), DType::F32, &Device::Cpu).unwrap();
    let image = (&reference.tensors["image"] * 2.0).unwrap().affine(1.0, -1.0).unwrap();
    for (scheduler, sampler) in SAMPLERS {
        for strength in [0.3, 0.75, 1.0] {
            let tag = format!("{scheduler}.s{strength:?}");
            let start = Start {
                latents: flat(&latents(&reference, &image, &format!("{tag}.vae_noise"))),
                mask: None,
                fill: Fill::Original,
                channels: None,
            };
            let named = |i: usize| format!("{tag}.step_noise_{i}");
            let step_noises = (0..8).map(named).filter(|n| reference.tensors.contains_key(n));
            let case = Case {
                scheduler,
                sampler,
                strength,
                noise: reference.values(&format!("{tag}.noise")),
                step_noises: step_noises.map(|n| reference.values(&n)).collect(),
                start,
                blends: false,
            };
            let error = compare(&pipeline, &reference, case, &format!("{tag}.final_latents"));
            println!("img2img {tag:<28} latents {error:.1e}");
            assert!(error < TOLERANCE, "{tag}: {error}");
        }
    }
}

/// The mask at the size of latents, as the reference makes it.
fn latent_mask(reference: &Reference) -> Vec<f32> {
    let mask = reference.values("mask");
    (0..64).map(|i| mask[(i / 8) * 8 * 64 + (i % 8) * 8]).collect()
}

#[test]
fn inpainting_with_an_ordinary_model_follows_the_reference() {
    let reference = Reference::read("inpaint.safetensors");
    let pipeline = Pipeline::open(&golden().join("tiny-sd"), DType::F32, &Device::Cpu).unwrap();
    let image = (&reference.tensors["image"] * 2.0).unwrap().affine(1.0, -1.0).unwrap();
    for (scheduler, sampler) in SAMPLERS.iter().filter(|s| s.0 != "euler_a") {
        // At strength 1 the reference begins with noise alone, also where the image stays; we keep it there.
        let tag = format!("c4.{scheduler}.s0.6");
        let start = Start {
            latents: flat(&latents(&reference, &image, &format!("{tag}.noise_0"))),
            mask: Some(latent_mask(&reference)),
            fill: Fill::Original,
            channels: None,
        };
        let noise = reference.values(&format!("{tag}.noise_1"));
        let case =
            Case { scheduler, sampler, strength: 0.6, noise, step_noises: Vec::new(), start, blends: true };
        let error = compare(&pipeline, &reference, case, &format!("{tag}.final_latents"));
        println!("inpaint {tag:<28} latents {error:.1e}");
        assert!(error < TOLERANCE, "{tag}: {error}");
    }
}

#[test]
fn inpainting_with_a_model_for_it_follows_the_reference() {
    let unet = golden().join("tiny-sd-inpaint9/unet");
    if !unet.is_dir() {
        println!("SKIPPED: the references here have no UNet of nine channels; set ATELIER_GOLDEN_DIR");
        return;
    }
    let reference = Reference::read("inpaint.safetensors");
    let dir = tempfile::tempdir().unwrap();
    crate::support::copy(&golden().join("tiny-sd"), dir.path());
    std::fs::remove_dir_all(dir.path().join("unet")).unwrap();
    crate::support::copy(&unet, &dir.path().join("unet"));
    let pipeline = Pipeline::open(dir.path(), DType::F32, &Device::Cpu).unwrap();
    assert!(pipeline.is_inpainting());
    let image = (&reference.tensors["image"] * 2.0).unwrap().affine(1.0, -1.0).unwrap();
    let mask = &reference.tensors["mask"];
    let kept = mask.lt(0.5).unwrap().to_dtype(DType::F32).unwrap();
    let masked_image = image.broadcast_mul(&kept).unwrap();
    let small = Tensor::from_vec(latent_mask(&reference), (1, 1, 8, 8), &Device::Cpu).unwrap();
    for (scheduler, sampler) in SAMPLERS.iter().filter(|s| s.0 != "euler_a") {
        for strength in [0.6, 1.0] {
            let tag = format!("c9.{scheduler}.s{strength:?}");
            // At strength 1 the reference draws no noise for the image, which it does not use.
            let full = strength == 1.0;
            let (latent_noise, masked_noise) = if full { (0, 1) } else { (1, 2) };
            let x0 = match full {
                true => vec![0.0; 256],
                false => flat(&latents(&reference, &image, &format!("{tag}.noise_0"))),
            };
            let masked = latents(&reference, &masked_image, &format!("{tag}.noise_{masked_noise}"));
            let channels = Some(Tensor::cat(&[&small, &masked], 1).unwrap());
            let start = Start { latents: x0, mask: None, fill: Fill::Original, channels };
            let mut noise = reference.values(&format!("{tag}.noise_{latent_noise}"));
            if full && *scheduler != "euler" {
                // Noise of variance 1 in all, not beside an image: a little less of it in our space.
                let (class, config) = Reference::read("txt2img.safetensors").scheduler(scheduler);
                let grid = grid(&class, &config, reference.number("steps") as usize);
                let factor = grid.start / f64::from(grid.sigmas[0]);
                noise.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
            }
            let case =
                Case { scheduler, sampler, strength, noise, step_noises: Vec::new(), start, blends: false };
            let error = compare(&pipeline, &reference, case, &format!("{tag}.final_latents"));
            println!("inpaint {tag:<28} latents {error:.1e}");
            assert!(error < TOLERANCE, "{tag}: {error}");
        }
    }
}
