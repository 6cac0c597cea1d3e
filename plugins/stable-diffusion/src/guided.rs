//! The denoiser that samplers see: a UNet under classifier-free guidance.

use crate::pipeline::Pipeline;
use crate::preview::Previews;
use crate::prompt::conditioning::{Conditioning, Now};
use crate::together::{Deep, Denoise, Question};
use atelier_diffusion::error;
use atelier_ops::span;
use atelier_ops::tracing::Span;
use atelier_sdk::rng::NormalRng;
use atelier_sdk::{EngineCtx, Error, Event, PreviewOf, Result, SampleCtx};
use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// What guides the sampling.
#[derive(Debug, Clone)]
pub struct Guidance {
    /// Embeddings of the prompt, (1, tokens, width).
    pub positive: Tensor,
    /// Embeddings of the negative prompt; not needed at scale 1.
    pub negative: Option<Tensor>,
    /// The scale (Ho and Salimans 2022, arXiv:2207.12598); 1 is no guidance.
    pub scale: f64,
}

/// How levels become timesteps of the network.
#[derive(Debug, Clone, Default)]
pub enum Timesteps {
    /// By the training levels, interpolated in log sigma as k-diffusion does.
    #[default]
    Levels,
    /// As listed: (sigma, timestep). Other programs interpolate or round in their own ways.
    Listed(Vec<(f32, f64)>),
}

/// How the network sees the prompt and the negative prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CfgBatch {
    /// What suits the device: one after the other on the CPU, in one batch elsewhere.
    #[default]
    Auto,
    /// In one batch.
    Batch,
    /// One after the other, which takes half the memory for activations.
    Sequential,
}

impl CfgBatch {
    /// Whether this device evaluates one after the other.
    pub fn is_sequential(self, device: &Device) -> bool {
        match self {
            Self::Auto => device.is_cpu(),
            Self::Batch => false,
            Self::Sequential => true,
        }
    }
}

/// The inner features of the network, kept for steps that reuse them.
#[derive(Debug, Default)]
struct Reuse {
    /// Steps from one whole evaluation to the next; 0 and 1 reuse nothing.
    every: usize,
    step: usize,
    /// Of each pass of the network.
    kept: Vec<Tensor>,
}

impl Reuse {
    fn enter(&mut self, step: usize) {
        self.step = step;
    }

    fn forget(&mut self) {
        self.kept.clear();
    }

    /// What the pass with this number asks for.
    fn ask(&self, pass: usize) -> Deep {
        if self.every <= 1 {
            return Deep::Unwanted;
        }
        match self.kept.get(pass) {
            Some(features) if !self.step.is_multiple_of(self.every) => Deep::Given(features.clone()),
            _ => Deep::Wanted,
        }
    }

    /// Keeps what it came with, if anything.
    fn keep(&mut self, pass: usize, features: Option<Tensor>) {
        let Some(features) = features else { return };
        match self.kept.get_mut(pass) {
            Some(kept) => *kept = features,
            None => self.kept.push(features),
        }
    }
}

/// One sampling run on a pipeline.
pub struct Guided<'a> {
    pipeline: &'a Pipeline,
    conditioning: Conditioning,
    now: Now,
    timesteps: Timesteps,
    shape: [usize; 4],
    steps: usize,
    rng: &'a mut NormalRng,
    ctx: &'a mut dyn EngineCtx,
    step_began: Instant,
    /// The step in work, in a profile.
    step: Span,
    channels: Option<Tensor>,
    network: Arc<dyn Denoise>,
    sequential: bool,
    reuse: Reuse,
    /// With the clean image that was last expected.
    previews: Option<(Previews<'a>, Vec<f32>)>,
}

impl<'a> Guided<'a> {
    /// Prepares a run. `steps` is for progress.
    ///
    /// # Errors
    /// Embeddings that do not fit together; a UNet that cannot be loaded.
    pub fn new(
        pipeline: &'a Pipeline,
        guidance: &Guidance,
        timesteps: Timesteps,
        shape: [usize; 4],
        steps: usize,
        rng: &'a mut NormalRng,
        ctx: &'a mut dyn EngineCtx,
    ) -> Result<Self> {
        Self::scheduled(pipeline, guidance.into(), timesteps, shape, steps, rng, ctx)
    }

    /// Prepares a run whose conditioning may change from step to step.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn scheduled(
        pipeline: &'a Pipeline,
        conditioning: Conditioning,
        timesteps: Timesteps,
        shape: [usize; 4],
        steps: usize,
        rng: &'a mut NormalRng,
        ctx: &'a mut dyn EngineCtx,
    ) -> Result<Self> {
        let now = conditioning.at(0, steps)?;
        let step_began = Instant::now();
        Ok(Self {
            pipeline,
            conditioning,
            now,
            timesteps,
            shape,
            steps,
            rng,
            ctx,
            step_began,
            step: span!("step", number = 1),
            channels: None,
            sequential: false,
            reuse: Reuse::default(),
            previews: None,
            network: pipeline.denoiser()?,
        })
    }

    /// Gives the network more channels (1, channels, height, width) beside the latents, as models for inpainting take
    /// them.
    #[must_use]
    pub fn with_channels(mut self, channels: Option<Tensor>) -> Self {
        self.channels = channels;
        self
    }

    /// Has the network evaluated by something else.
    #[must_use]
    pub(crate) fn with_network(self, network: Arc<dyn Denoise>) -> Self {
        Self { network, ..self }
    }

    /// Evaluates the prompts one after the other, or in one batch.
    #[must_use]
    pub fn with_batch(mut self, batch: CfgBatch) -> Self {
        self.sequential = batch.is_sequential(self.pipeline.device());
        self
    }

    /// Evaluates the whole network in every so many steps, and its outermost layers in the others.
    #[must_use]
    pub fn with_reuse(mut self, every: u32) -> Self {
        self.reuse.every = every as usize;
        self
    }

    /// Shows what the image looks like after steps.
    #[must_use]
    pub fn with_previews(mut self, previews: Option<Previews<'a>>) -> Self {
        self.previews = previews.map(|p| (p, Vec::new()));
        self
    }

    /// The network's outputs under each prompt, one after the other.
    fn outputs(&mut self, sample: &Tensor, timestep: f64) -> candle_core::Result<Result<Vec<f32>>> {
        let (passes, context) = (self.now.passes(), self.now.context());
        let batch = if self.sequential { 1 } else { passes };
        let sample = if batch > 1 { Tensor::cat(&vec![sample; batch], 0)? } else { sample.clone() };
        let timesteps = Tensor::full(timestep as f32, batch, sample.device())?;
        let mut out = Vec::new();
        for first in (0..passes).step_by(batch) {
            let (sample, timesteps) = (sample.clone(), timesteps.clone());
            let context = context.narrow(0, first, batch)?.contiguous()?;
            let deep = self.reuse.ask(first / batch);
            match self.network.forward(&Question { sample, timesteps, context, deep }) {
                Ok(some) => {
                    out.extend(some.output.flatten_all()?.to_vec1::<f32>()?);
                    self.reuse.keep(first / batch, some.deep);
                }
                Err(e) => return Ok(Err(e)),
            }
        }
        Ok(Ok(out))
    }

    /// Shows the clean image that is expected after step `i`; the last step gives the image itself.
    fn show(&mut self, i: usize) -> Result<()> {
        let Some((previews, denoised)) = &self.previews else { return Ok(()) };
        if !(i + 1).is_multiple_of(previews.every.max(1)) || i + 1 >= self.steps || denoised.is_empty() {
            return Ok(());
        }
        let image = previews.painter.paint(self.pipeline, denoised, self.shape)?;
        self.ctx.preview(image, PreviewOf { image: previews.image, step: i + 1, steps: self.steps })
    }

    fn timestep(&self, sigma: f32) -> Result<f64> {
        match &self.timesteps {
            Timesteps::Levels => Ok(self.pipeline.process().levels.timestep(f64::from(sigma))),
            Timesteps::Listed(list) => {
                let close = |s: f32| (s - sigma).abs() <= 1e-6 * sigma.abs();
                let found = list.iter().find(|(s, _)| close(*s)).map(|(_, t)| *t);
                found.ok_or_else(|| Error::internal(format!("no timestep is listed for sigma {sigma}")))
            }
        }
    }

    /// The network's output under guidance, on the host.
    fn predict(&mut self, x: &[f32], scale_in: f64, timestep: f64) -> candle_core::Result<Result<Vec<f32>>> {
        let device = self.pipeline.device();
        let scaled: Vec<f32> = x.iter().map(|v| (f64::from(*v) * scale_in) as f32).collect();
        // f32 on both sides: the network converts to what it computes in.
        let sample = Tensor::from_vec(scaled, self.shape.to_vec(), device)?;
        let sample = match &self.channels {
            Some(channels) => Tensor::cat(&[&sample, channels], 1)?,
            None => sample,
        };
        let out = match self.outputs(&sample, timestep)? {
            Ok(out) => out,
            Err(e) => return Ok(Err(e)),
        };
        Ok(Ok(self.now.combine(out)))
    }

    /// The conditioning of the step that is to be taken. Counted by steps done, not by evaluations: samplers
    /// differ in how often they evaluate, and all evaluations of a step should see the same prompt.
    fn enter(&mut self, step: usize) -> Result<()> {
        self.reuse.enter(step);
        if !self.now.holds(&self.conditioning, step, self.steps) {
            self.now = self.conditioning.at(step, self.steps)?;
            // Features under other prompts are of no use.
            self.reuse.forget();
        }
        Ok(())
    }
}

impl SampleCtx for Guided<'_> {
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()> {
        let _span = span!("denoise", sigma);
        let c = self.pipeline.process().coefficients(f64::from(sigma));
        let timestep = self.timestep(sigma)?;
        let prediction = atelier_ops::scope(|| self.predict(x, c.scale, timestep))
            .map_err(error::tensor("evaluating the UNet"))??;
        for ((o, x), p) in out.iter_mut().zip(x).zip(&prediction) {
            *o = (c.skip * f64::from(*x) + c.out * f64::from(*p)) as f32;
        }
        match out.iter().find(|v| !v.is_finite()) {
            None => {
                if let Some((_, denoised)) = &mut self.previews {
                    denoised.clear();
                    denoised.extend_from_slice(out);
                }
                Ok(())
            }
            Some(v) => Err(Error::internal(format!("the UNet produced {v} at sigma {sigma}"))
                .hint("16-bit floats can overflow: try `--precision f32`")),
        }
    }

    fn noise(&mut self, _: f32, _: f32, out: &mut [f32]) -> Result<()> {
        self.rng.fill_normal(out);
        Ok(())
    }

    fn step_done(&mut self, i: usize, _: &[f32]) -> Result<()> {
        let seconds = self.step_began.elapsed().as_secs_f64();
        self.step = Span::none();
        self.enter(i + 1)?;
        self.ctx.event(Event::Step { step: i + 1, steps: self.steps, seconds })?;
        self.show(i)?;
        if i + 1 < self.steps {
            self.step = span!("step", number = i + 2);
        }
        self.step_began = Instant::now();
        Ok(())
    }

    fn cancelled(&self) -> bool {
        self.ctx.cancelled()
    }
}
