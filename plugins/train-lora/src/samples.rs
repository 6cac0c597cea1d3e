//! Pictures that show how far the training is: the same prompts and seeds every time.

use crate::base::{Base, tensor, values};
use crate::step::Network;
use atelier_diffusion::error;
use atelier_sdk::files::{cannot_write, write_atomic};
use atelier_sdk::rng::{NormalRng, RngKind};
use atelier_sdk::{EngineCtx, Image, Result, ResultExt, Run, SampleCtx};
use candle_core::Tensor;
use serde_json::json;
use std::path::Path;

/// What is drawn each time.
pub struct Sampling<'a> {
    /// The model.
    pub base: &'a Base,
    /// Sampling steps.
    pub steps: usize,
    /// Guidance.
    pub cfg_scale: f64,
    /// Side of the pictures in pixels.
    pub side: usize,
    /// Seed of the first; the others follow.
    pub seed: u64,
    /// Key of the sampler.
    pub sampler: &'a str,
    /// Key of the schedule.
    pub schedule: &'a str,
}

/// A prompt, and what the text encoder makes of it and of no text.
pub struct Scene {
    /// The prompt.
    pub prompt: String,
    /// Its embeddings, (1, tokens, width).
    pub positive: Tensor,
    /// Those of the empty text.
    pub negative: Tensor,
}

impl Sampling<'_> {
    /// Draws the scenes.
    ///
    /// # Errors
    /// Whatever keeps networks, sampler or schedule from working; the run was stopped.
    pub fn draw(
        &self,
        network: &dyn Network,
        scenes: &[Scene],
        ctx: &mut dyn EngineCtx,
    ) -> Result<Vec<Image>> {
        let levels = &self.base.process.levels;
        let sigmas = ctx.schedule(self.schedule, &json!({}))?.sigmas(self.steps, levels)?;
        let vae_config = self.base.vae.config();
        let side = self.side / vae_config.factor();
        let shape = [1, vae_config.latent_channels, side, side];
        let mut latents = Vec::with_capacity(scenes.len());
        for (i, scene) in scenes.iter().enumerate() {
            let mut rng = NormalRng::new(RngKind::Cpu, self.seed.wrapping_add(i as u64));
            let mut x = vec![0f32; shape.iter().product()];
            rng.fill_normal(&mut x);
            let first = sigmas.first().copied().unwrap_or(1.0);
            x.iter_mut().for_each(|v| *v *= first);
            let mut sampler = ctx.sampler(self.sampler, &json!({}))?;
            let run = Run { sigmas: &sigmas, shape, extra: &json!({}) };
            let mut guided = Guided { sampling: self, network, scene, shape, rng, ctx };
            sampler.sample(&run, &mut guided, &mut x)?;
            latents.push(x);
        }
        let vae = self.base.load_vae()?;
        let decode = |x: &Vec<f32>| {
            let failed = |e| error::model("cannot decode a sample", e);
            let unscaled = vae.unscale(&tensor(x, &shape, &self.base.device)?).map_err(failed)?;
            atelier_diffusion::pixels::image(&vae.decode(&unscaled).map_err(failed)?)
        };
        latents.iter().map(decode).collect()
    }
}

/// Writes samples as PNG files with their prompts beside them. Gives the bytes of the files.
///
/// # Errors
/// The folder is not writable.
pub fn write(folder: &Path, images: &[Image], scenes: &[Scene], seed: u64) -> Result<Vec<Vec<u8>>> {
    std::fs::create_dir_all(folder).map_err(|e| cannot_write(folder, e))?;
    let mut written = Vec::new();
    for (i, image) in images.iter().enumerate() {
        let bytes = png(image)?;
        write_atomic(&folder.join(format!("{:02}.png", i + 1)), &bytes)?;
        written.push(bytes);
    }
    let list = scenes.iter().enumerate().map(|(i, s)| {
        json!({"file": format!("{:02}.png", i + 1), "prompt": s.prompt, "seed": seed.wrapping_add(i as u64)})
    });
    let list = serde_json::to_vec_pretty(&list.collect::<Vec<_>>()).internal("prompts that are no JSON")?;
    write_atomic(&folder.join("prompts.json"), &list)?;
    Ok(written)
}

fn png(image: &Image) -> Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let (width, height) = (image.width(), image.height());
    image::write_buffer_with_format(
        &mut bytes,
        image.data(),
        width,
        height,
        image::ExtendedColorType::Rgb8,
        image::ImageFormat::Png,
    )
    .internal("a picture that is no PNG")?;
    Ok(bytes.into_inner())
}

/// The denoiser that the sampler sees: the network in training, under guidance.
struct Guided<'a> {
    sampling: &'a Sampling<'a>,
    network: &'a dyn Network,
    scene: &'a Scene,
    shape: [usize; 4],
    rng: NormalRng,
    ctx: &'a mut dyn EngineCtx,
}

impl Guided<'_> {
    fn predict(&self, sample: &Tensor, timestep: f64) -> Result<Vec<f32>> {
        let timesteps = tensor(&[timestep as f32], &[1], &self.sampling.base.device)?;
        let under = |context: &Tensor| values(&self.network.predict(sample, &timesteps, context)?);
        let positive = under(&self.scene.positive)?;
        let scale = self.sampling.cfg_scale as f32;
        if scale == 1.0 {
            return Ok(positive);
        }
        let negative = under(&self.scene.negative)?;
        Ok(positive.iter().zip(negative).map(|(p, n)| n + scale * (p - n)).collect())
    }
}

impl SampleCtx for Guided<'_> {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        let process = &self.sampling.base.process;
        let c = process.coefficients(f64::from(sigma));
        let scaled: Vec<f32> = x.iter().map(|v| (f64::from(*v) * c.scale) as f32).collect();
        let sample = tensor(&scaled, &self.shape, &self.sampling.base.device)?;
        let prediction = self.predict(&sample, process.levels.timestep(f64::from(sigma)))?;
        for ((out, x), p) in out.iter_mut().zip(x).zip(prediction) {
            *out = (c.skip * f64::from(*x) + c.out * f64::from(p)) as f32;
        }
        Ok(())
    }

    fn noise(&mut self, _: f32, _: f32, out: &mut [f32]) -> Result<()> {
        self.rng.fill_normal(out);
        Ok(())
    }

    fn step_done(&mut self, _: usize, _: &[f32]) -> Result<()> {
        if self.ctx.cancelled() { Err(atelier_sdk::Error::cancelled()) } else { Ok(()) }
    }

    fn cancelled(&self) -> bool {
        self.ctx.cancelled()
    }
}
