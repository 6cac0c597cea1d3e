//! Samplers of one evaluation a step, for which the loop is always the same.

use crate::error::Result;
use crate::sampler::{Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

/// One step, after the model was evaluated at its start.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Number of the step, from 0.
    pub index: usize,
    /// Noise level at its start.
    pub sigma: f32,
    /// Noise level at its end.
    pub sigma_next: f32,
    /// `D(x, sigma)`, the denoised estimate.
    pub denoised: &'a [f32],
    /// Standard normal noise; empty unless [`StepPlugin::WANTS_NOISE`], and in the step to level 0.
    pub noise: &'a [f32],
}

/// A sampler as a plugin that evaluates the model once a step; [`Steps`] makes a [`SamplerPlugin`] of it.
///
/// `export_plugin! { step_sampler Mine; }` registers one.
pub trait StepPlugin: Send + Sized + 'static {
    /// What it is; `evaluations` is 1.
    const INFO: SamplerInfo;
    /// Whether steps want noise.
    const WANTS_NOISE: bool = false;
    /// Its options; must deserialise from `{}` and refuse unknown fields.
    type Options: DeserializeOwned + Serialize + JsonSchema;

    /// Makes one.
    ///
    /// # Errors
    /// Options that cannot work together.
    fn new(options: Self::Options) -> Result<Self>;

    /// Forgets the run before, where steps remember something.
    ///
    /// # Errors
    /// A run that this sampler cannot do.
    fn begin(&mut self, _run: &Run<'_>) -> Result<()> {
        Ok(())
    }

    /// Takes `x` from `step.sigma` to `step.sigma_next`, in place.
    ///
    /// # Errors
    /// A step that this sampler cannot do.
    fn step(&mut self, step: &Step<'_>, x: &mut [f32]) -> Result<()>;
}

/// Drives the steps of a [`StepPlugin`].
#[derive(Debug, Clone, Copy)]
pub struct Steps<T>(T);

impl<T: StepPlugin> Sampler for Steps<T> {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        run.check(x)?;
        self.0.begin(run)?;
        let mut denoised = vec![0f32; x.len()];
        let mut noise = vec![0f32; if T::WANTS_NOISE { x.len() } else { 0 }];
        for (index, pair) in run.sigmas.windows(2).enumerate() {
            let (sigma, sigma_next) = (pair[0], pair[1]);
            ctx.denoise(x, sigma, &mut denoised)?;
            let noise = if T::WANTS_NOISE && sigma_next > 0.0 {
                ctx.noise(sigma, sigma_next, &mut noise)?;
                &noise[..]
            } else {
                &[]
            };
            self.0.step(&Step { index, sigma, sigma_next, denoised: &denoised, noise }, x)?;
            ctx.step_done(index, x)?;
        }
        Ok(())
    }
}

impl<T: StepPlugin> SamplerPlugin for Steps<T> {
    const INFO: SamplerInfo = T::INFO;
    type Options = T::Options;

    fn new(options: T::Options) -> Result<Self> {
        T::new(options).map(Self)
    }
}
