//! Batches from a set: which image, mirrored or not, with which noise, at which noise level.

use crate::base::{Base, tensor};
use crate::batch::Batch;
use crate::data::{Record, Set};
use crate::encodings::Encodings;
use crate::loss::{
    self, Draws, Lane, NoiseTable, Order, Prediction, Weighting, caption_is_dropped, draw_noise,
};
use crate::params::{TimestepSampling, TrainLora};
use atelier_sdk::{Error, ErrorKind, Result};
use std::cell::RefCell;

/// A set with what the networks made of it.
pub struct Material<'a> {
    base: &'a Base,
    params: &'a TrainLora,
    set: &'a Set,
    encodings: &'a Encodings,
    order: RefCell<Order>,
    table: NoiseTable,
    prediction: Prediction,
    weighting: Weighting,
}

/// One sample on its way into a batch.
struct Sample {
    noisy: Vec<f32>,
    target: Vec<f32>,
    timestep: usize,
    weight: f64,
    caption: String,
}

impl<'a> Material<'a> {
    /// A set whose encodings are kept.
    ///
    /// # Errors
    /// A model whose process cannot be trained for.
    pub fn new(
        base: &'a Base,
        params: &'a TrainLora,
        set: &'a Set,
        encodings: &'a Encodings,
    ) -> Result<Self> {
        let repeats: Vec<u32> = set.items.iter().map(|i| i.item.repeats).collect();
        let gamma = params.snr_gamma;
        Ok(Self {
            base,
            params,
            set,
            encodings,
            order: RefCell::new(Order::new(params.seed, &repeats).map_err(failed)?),
            table: table(base)?,
            prediction: prediction(base)?,
            weighting: if gamma > 0.0 { Weighting::MinSnr { gamma } } else { Weighting::Uniform },
        })
    }

    /// Different images.
    pub fn len(&self) -> usize {
        self.set.items.len()
    }

    /// Samples of an epoch.
    pub fn samples(&self) -> u64 {
        self.set.per_epoch()
    }

    /// The batch of a pass, counted from 0 over the whole training.
    ///
    /// # Errors
    /// Encodings that are gone; the device failed.
    pub fn batch(&self, pass: u64) -> Result<Batch> {
        let size = u64::from(self.params.batch_size);
        let samples = (pass * size..(pass + 1) * size).map(|n| self.sample(n)).collect::<Result<Vec<_>>>()?;
        let seed = Draws::new(self.params.seed, pass, Lane::Dropout(0)).bits();
        self.together(samples, seed)
    }

    /// Sample `n` of the whole training.
    fn sample(&self, n: u64) -> Result<Sample> {
        let p = self.params;
        let image = &self.set.items[self.order.borrow_mut().at(n).item];
        let flip = p.flip && Draws::new(p.seed, n, Lane::Augment).chance(0.5);
        let record = self.encodings.latents(self.base, image, flip)?;
        let (mean, std, channels) = parts(&record)?;
        let mut latents = vec![0f32; mean.len()];
        Draws::new(p.seed, n, Lane::Latent).fill_normal(&mut latents);
        latents.iter_mut().zip(mean.iter().zip(std)).for_each(|(l, (mean, std))| *l = mean + std * *l);
        let mut noise = vec![0f32; mean.len()];
        draw_noise(p.seed, n, channels, p.noise_offset, &mut noise).map_err(failed)?;
        let timestep = self.timestep(n);
        let dropped = caption_is_dropped(p.seed, n, p.caption_dropout);
        let caption = if dropped { String::new() } else { image.item.caption.clone() };
        let snr = self.table.snr(timestep).map_err(failed)?;
        self.noised(latents, &noise, timestep, self.weighting.weight(snr, self.prediction), caption)
    }

    /// The timestep of sample `n`.
    fn timestep(&self, n: u64) -> usize {
        let (p, count) = (self.params, self.table.len());
        match p.timestep_sampling {
            TimestepSampling::Uniform => Draws::new(p.seed, n, Lane::Timestep).below(count as u64) as usize,
            TimestepSampling::Stratified => {
                let step = u64::from(p.batch_size) * u64::from(p.gradient_accumulation);
                let start = Draws::new(p.seed, n / step, Lane::Timestep).uniform();
                let place = (start + (n % step) as f64 / step as f64).fract();
                ((place * count as f64) as usize).min(count - 1)
            }
        }
    }

    /// An image at a level of so many, the same each time it is asked for.
    ///
    /// # Errors
    /// As for [`Self::batch`].
    pub fn fixed(&self, image: usize, level: u64, levels: u64) -> Result<Batch> {
        let chosen = &self.set.items[image];
        let record = self.encodings.latents(self.base, chosen, false)?;
        let (mean, _, _) = parts(&record)?;
        let number = image as u64 * levels + level;
        let mut noise = vec![0f32; mean.len()];
        Draws::new(self.params.seed, number, Lane::ValidationNoise).fill_normal(&mut noise);
        // The middle of each of as many equal parts.
        let timestep = ((2 * level + 1) * self.table.len() as u64 / (2 * levels)) as usize;
        let sample = self.noised(mean.to_vec(), &noise, timestep, 1.0, chosen.item.caption.clone())?;
        self.together(vec![sample], 0)
    }

    fn noised(
        &self,
        mut latents: Vec<f32>,
        noise: &[f32],
        timestep: usize,
        weight: f64,
        caption: String,
    ) -> Result<Sample> {
        let vae = self.base.vae.config();
        let (scale, shift) = (vae.scaling_factor as f32, vae.shift_factor as f32);
        latents.iter_mut().for_each(|l| *l = (*l - shift) * scale);
        let (mut noisy, mut target) = (vec![0f32; noise.len()], vec![0f32; noise.len()]);
        self.table.add_noise(&latents, noise, timestep, &mut noisy).map_err(failed)?;
        self.table.target(self.prediction, &latents, noise, timestep, &mut target).map_err(failed)?;
        Ok(Sample { noisy, target, timestep, weight, caption })
    }

    fn together(&self, samples: Vec<Sample>, seed: u64) -> Result<Batch> {
        let shape = latent_shape(self.base, self.params, samples.len());
        let noisy: Vec<f32> = samples.iter().flat_map(|s| s.noisy.iter().copied()).collect();
        let timesteps: Vec<f32> = samples.iter().map(|s| s.timestep as f32).collect();
        let context = |s: &Sample| self.encodings.text(self.base, &s.caption);
        let contexts = if self.params.train_text_encoder {
            Vec::new()
        } else {
            samples.iter().map(context).collect::<Result<_>>()?
        };
        Ok(Batch {
            seed,
            noisy: tensor(&noisy, &shape, &self.base.device)?,
            timesteps: tensor(&timesteps, &[samples.len()], &self.base.device)?,
            weights: samples.iter().map(|s| s.weight).collect(),
            target: samples.iter().flat_map(|s| s.target.iter().copied()).collect(),
            captions: samples.into_iter().map(|s| s.caption).collect(),
            contexts,
        })
    }
}

/// A batch of nothing in particular, for measuring.
///
/// # Errors
/// The device failed.
pub fn made_up(base: &Base, params: &TrainLora) -> Result<Batch> {
    let count = params.batch_size as usize;
    let shape = latent_shape(base, params, count);
    let mut numbers = vec![0f32; shape.iter().product()];
    Draws::new(params.seed, 0, Lane::Noise).fill_normal(&mut numbers);
    let text = base.text.config();
    let tokens = [1, text.max_position_embeddings, base.unet.config().cross_attention_dim[0]];
    let context = vec![0.1f32; tokens.iter().product()];
    let contexts = (0..count).map(|_| tensor(&context, &tokens, &base.device));
    Ok(Batch {
        seed: 0,
        noisy: tensor(&numbers, &shape, &base.device)?,
        timesteps: tensor(&vec![500.0; count], &[count], &base.device)?,
        target: numbers,
        weights: vec![1.0; count],
        captions: vec![String::new(); count],
        contexts: contexts.collect::<Result<_>>()?,
    })
}

fn latent_shape(base: &Base, params: &TrainLora, count: usize) -> [usize; 4] {
    let vae = base.vae.config();
    let side = params.resolution as usize / vae.factor();
    [count, vae.latent_channels, side, side]
}

/// Mean, deviation, and the number of channels.
fn parts(record: &Record) -> Result<(&[f32], &[f32], usize)> {
    match (record.get("mean"), record.get("std")) {
        (Some(mean), Some(std)) if mean.data.len() == std.data.len() => {
            Ok((&mean.data, &std.data, mean.shape.get(1).copied().unwrap_or(1)))
        }
        _ => Err(Error::new(ErrorKind::Corrupt, "a kept latent has no mean or no deviation")
            .hint("remove the cache and go on with `--resume`")),
    }
}

/// The process as shares of the image that are left.
fn table(base: &Base) -> Result<NoiseTable> {
    let levels = base.process.levels.as_slice().iter();
    NoiseTable::new(levels.map(|sigma| 1.0 / (1.0 + sigma * sigma)).collect()).map_err(failed)
}

fn prediction(base: &Base) -> Result<Prediction> {
    match base.process.prediction {
        atelier_diffusion::Prediction::Epsilon => Ok(Prediction::Epsilon),
        atelier_diffusion::Prediction::VPrediction => Ok(Prediction::VPrediction),
        atelier_diffusion::Prediction::Sample => Err(Error::new(
            ErrorKind::Unsupported,
            "a model that predicts the clean image is not trained here",
        )
        .hint("set `prediction_type`, if it predicts something else")),
    }
}

fn failed(e: loss::Error) -> Error {
    Error::internal("a batch cannot be made").because(e)
}
