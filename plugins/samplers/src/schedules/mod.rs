//! Schedules.

pub mod ays;
pub mod beta;
pub mod ddim_uniform;
pub mod exponential;
pub mod karras;
pub mod kl_optimal;
pub mod normal;
pub mod polyexponential;
pub mod raw;
pub mod sgm_uniform;
pub mod simple;

pub use ays::AlignYourSteps;
pub use beta::Beta;
pub use ddim_uniform::DdimUniform;
pub use exponential::Exponential;
pub use karras::Karras;
pub use kl_optimal::KlOptimal;
pub use normal::Normal;
pub use polyexponential::Polyexponential;
pub use raw::Raw;
pub use sgm_uniform::SgmUniform;
pub use simple::Simple;

use atelier_sdk::{Error, NoiseLevels, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose definition a name has, where two programs give it different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// That of A1111's stable-diffusion-webui.
    #[default]
    A1111,
    /// That of ComfyUI.
    Comfy,
}

impl Compat {
    /// The timestep of a level: between the trained ones in A1111, the nearest in ComfyUI.
    pub(crate) fn timestep(self, levels: &NoiseLevels, sigma: f64) -> f64 {
        let t = levels.timestep(sigma);
        if self == Self::A1111 {
            return t;
        }
        let apart = |t: f64| (levels.sigma(t) / sigma).ln().abs();
        if apart(t.floor()) < apart(t.ceil()) { t.floor() } else { t.ceil() }
    }
}

/// The levels between which a schedule runs: the model's own where nothing is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    min: Option<f64>,
    max: Option<f64>,
}

impl Ends {
    /// Ends from the options of a schedule.
    pub(crate) fn new(min: Option<f64>, max: Option<f64>) -> Result<Self> {
        for (name, value) in [("sigma_min", min), ("sigma_max", max)] {
            if value.is_some_and(|v| !(v > 0.0 && v.is_finite())) {
                return Err(Error::invalid(format!("`{name}` must be above 0")));
            }
        }
        match (min, max) {
            (Some(min), Some(max)) => Self::ordered(min, max)?,
            _ => (min.unwrap_or(0.0), max.unwrap_or(0.0)),
        };
        Ok(Self { min, max })
    }

    /// The lowest and the highest level for a model.
    pub(crate) fn of(&self, levels: &NoiseLevels) -> Result<(f64, f64)> {
        Self::ordered(self.min.unwrap_or(levels.min()), self.max.unwrap_or(levels.max()))
    }

    fn ordered(min: f64, max: f64) -> Result<(f64, f64)> {
        if min < max {
            return Ok((min, max));
        }
        Err(Error::invalid(format!(
            "the schedule cannot descend from `sigma_max` {max} to `sigma_min` {min}"
        ))
        .hint("leave out both for the model's own levels"))
    }
}

/// `steps` points from 0 to 1, both included; the single point of one step is 0.
pub(crate) fn ramp(steps: usize) -> impl Iterator<Item = f64> {
    (0..steps).map(move |i| i as f64 / (steps - 1).max(1) as f64)
}

/// The levels followed by 0.
pub(crate) fn then_zero(levels: impl Iterator<Item = f64>) -> Result<Vec<f32>> {
    let mut sigmas: Vec<f32> = levels.map(|s| s as f32).collect();
    if sigmas.is_empty() {
        return Err(Error::invalid("a schedule needs at least one step, but the number of steps is 0"));
    }
    sigmas.push(0.0);
    Ok(sigmas)
}

/// From `a` (at `u` = 0) to `b` (at `u` = 1), exact at both ends.
pub(crate) fn lerp(a: f64, b: f64, u: f64) -> f64 {
    (1.0 - u) * a + u * b
}

/// The levels of whole timesteps, followed by 0; those of the timesteps `between` them where the whole ones do not
/// descend, or leave the trained range: a run has as many levels as it has steps.
pub(crate) fn at_timesteps(
    whole: impl Iterator<Item = f64>,
    between: impl Iterator<Item = f64>,
    levels: &NoiseLevels,
) -> Result<Vec<f32>> {
    let whole: Vec<f64> = whole.collect();
    let trained = 0.0..=(levels.len() - 1) as f64;
    let descend = whole.windows(2).all(|w| w[0] > w[1]) && whole.iter().all(|t| trained.contains(t));
    if descend {
        return then_zero(whole.into_iter().map(|t| levels.sigma(t)));
    }
    then_zero(between.map(|t| levels.sigma(t)))
}

/// The value at `u`, from 0 to 1, of the curve through equally spaced `points` that is straight in their
/// logarithms: the paper on aligned steps calls this log-linear interpolation.
pub(crate) fn log_linear(points: &[f64], u: f64) -> f64 {
    let at = u * (points.len() - 1) as f64;
    let low = (at.floor() as usize).min(points.len().saturating_sub(2));
    match points.get(low + 1) {
        Some(next) => lerp(points[low].ln(), next.ln(), at - low as f64).exp(),
        None => points[low],
    }
}
