//! Samplers: the integrator of the reverse process.
//!
//! A sampler sees sigmas, a denoiser and noise, nothing else: no model, no prompt, no device. It drives the
//! loop itself, in the variance-exploding space of Karras et al. 2022 (arXiv:2206.00364): `x = x0 + sigma * n`,
//! and [`SampleCtx::denoise`] gives the model's estimate `D(x, sigma)` of `x0`. The host converts from and
//! to whatever the network predicts (epsilon, v, flow).

#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::registration::{Info, Reg, parse_options};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// What does not change during one run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Noise levels, finite, strictly descending, `steps + 1` of them; the last is 0 except for runs that stop
    /// early.
    pub sigmas: &'a [f32],
    /// Shape of the latents: batch, channels, height, width.
    pub shape: [usize; 4],
    /// More about the process, extendable: `{"parameterization": "ve"}`.
    pub extra: &'a Value,
}

impl Run<'_> {
    /// Checks that the levels can be integrated - finite, descending, none below 0 - and that `x` has the size of
    /// the run. Samplers call it first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] for the levels, [`ErrorKind::Internal`] for the size.
    pub fn check(&self, x: &[f32]) -> Result<()> {
        let descending = self.sigmas.windows(2).all(|w| w[0] > w[1]);
        let finite = self.sigmas.iter().all(|s| s.is_finite() && *s >= 0.0);
        if !descending || !finite {
            return Err(Error::invalid(
                "the noise levels of a run must be finite, descending, and not below 0",
            )
            .hint("a model with zero terminal SNR has an infinite first level: cap it before sampling"));
        }
        if x.len() != self.shape.iter().product::<usize>() {
            return Err(Error::internal(format!(
                "latents of shape {:?} have {} values",
                self.shape,
                x.len()
            )));
        }
        Ok(())
    }
}

/// What the host does for a running sampler. All buffers are `f32`, contiguous, of the shape of the run.
pub trait SampleCtx {
    /// One evaluation of the model: `out = D(x, sigma)`, the denoised estimate.
    ///
    /// # Errors
    /// A failed evaluation, or [`ErrorKind::Cancelled`]: return it at once.
    fn denoise(&mut self, x: &[f32], sigma: f32, out: &mut [f32]) -> Result<()>;

    /// Standard normal noise for the step from one level to another, from each image's own generator.
    /// The levels matter to Brownian-tree noise; others ignore them.
    ///
    /// # Errors
    /// As for [`Self::denoise`].
    fn noise(&mut self, sigma_from: f32, sigma_to: f32, out: &mut [f32]) -> Result<()>;

    /// Says that step `i` (from 0) is done and `x` is the state after it: progress, preview, cancellation.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`]: return it at once.
    fn step_done(&mut self, i: usize, x: &[f32]) -> Result<()>;

    /// Whether the run is to stop.
    fn cancelled(&self) -> bool;
}

/// A sampler with its options set.
pub trait Sampler: Send {
    /// Integrates from `run.sigmas[0]` to the last sigma, in place: `x` holds the noisy start, then the result.
    ///
    /// # Errors
    /// Whatever the context returned, or a run that this sampler cannot do.
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()>;
}

/// Describes a sampler.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SamplerInfo {
    /// `euler`, ...
    pub key: &'static str,
    /// The name people know, "DPM++ 2M".
    pub title: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Other names that find it: A1111 labels, ComfyUI names.
    pub aliases: &'static [&'static str],
    /// Model evaluations per step (the last step of a second-order sampler may need fewer, and a multistep sampler
    /// some more to start).
    pub evaluations: u32,
    /// Order of convergence, 0 for stochastic samplers.
    pub order: u32,
    /// Whether it draws noise with its default options.
    pub stochastic: bool,
    /// Where it comes from: paper or reference implementation.
    pub source: &'static str,
}

/// A sampler as a plugin: an options type (hence a schema) and a constructor.
pub trait SamplerPlugin: Sampler + Sized + 'static {
    /// What it is.
    const INFO: SamplerInfo;
    /// Its options; must deserialise from `{}` and refuse unknown fields.
    type Options: DeserializeOwned + Serialize + JsonSchema;
    /// Makes one.
    ///
    /// # Errors
    /// Options that cannot work together.
    fn new(options: Self::Options) -> Result<Self>;
}

/// Registers a sampler.
pub type SamplerReg = Reg<SamplerInfo, dyn Sampler>;

impl SamplerReg {
    /// The registration of `T`; `origin` is the crate's name.
    pub const fn of<T: SamplerPlugin>(origin: &'static str) -> Self {
        assert!(crate::key::is_valid(T::INFO.key), "not a key: see atelier_sdk::key");
        Self { info: &T::INFO, schema: crate::params::schema_json::<T::Options>, make: make::<T>, origin }
    }
}

fn make<T: SamplerPlugin>(options: &Value) -> Result<Box<dyn Sampler>> {
    Ok(Box::new(T::new(parse_options("sampler", T::INFO.key, options)?)?))
}

impl Info for SamplerInfo {
    fn key(&self) -> &'static str {
        self.key
    }
    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }
}

inventory::collect!(SamplerReg);
