//! Schedules: the sequence of noise levels, an axis of its own beside the sampler.

use crate::error::Result;
use crate::registration::{Info, Reg, parse_options};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The noise levels that a model was trained on: `sigma[t]` for `t = 0 .. T-1`, ascending.
///
/// For a variance-preserving model `sigma[t] = sqrt((1 - abar[t]) / abar[t])` with `abar` the cumulative
/// product of the alphas (Ho et al. 2020, arXiv:2006.11239).
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseLevels {
    sigmas: Vec<f64>,
    log_sigmas: Vec<f64>,
}

impl NoiseLevels {
    /// Levels given directly.
    ///
    /// # Errors
    /// Fewer than two levels, levels that do not ascend, or a level that is not a positive number.
    pub fn new(sigmas: Vec<f64>) -> Result<Self> {
        let ascending = sigmas.windows(2).all(|w| w[0] < w[1]);
        let finite = sigmas.iter().all(|s| s.is_finite() && *s > 0.0);
        if sigmas.len() < 2 || !ascending || !finite {
            return Err(crate::Error::invalid("noise levels must be positive, finite and ascending"));
        }
        let log_sigmas = sigmas.iter().map(|s| s.ln()).collect();
        Ok(Self { sigmas, log_sigmas })
    }

    /// Levels of a variance-preserving model from its betas.
    ///
    /// # Errors
    /// Betas outside (0, 1), or levels that [`Self::new`] refuses.
    pub fn from_betas(betas: &[f64]) -> Result<Self> {
        if betas.iter().any(|b| !(*b > 0.0 && *b < 1.0)) {
            return Err(crate::Error::invalid("every beta must lie between 0 and 1"));
        }
        let mut abar = 1.0f64;
        let sigmas = betas
            .iter()
            .map(|b| {
                abar *= 1.0 - b;
                ((1.0 - abar) / abar).sqrt()
            })
            .collect();
        Self::new(sigmas)
    }

    /// `sqrt` of a line between the square roots of `start` and `end`, squared: diffusers' "scaled_linear".
    pub fn scaled_linear_betas(start: f64, end: f64, n: usize) -> Vec<f64> {
        Self::linear_betas(start.sqrt(), end.sqrt(), n).iter().map(|b| b * b).collect()
    }

    /// A line from `start` to `end`: diffusers' "linear".
    pub fn linear_betas(start: f64, end: f64, n: usize) -> Vec<f64> {
        let step = if n > 1 { (end - start) / (n - 1) as f64 } else { 0.0 };
        (0..n).map(|i| start + step * i as f64).collect()
    }

    /// All levels, ascending.
    pub fn as_slice(&self) -> &[f64] {
        &self.sigmas
    }

    /// Number of training timesteps `T`.
    pub fn len(&self) -> usize {
        self.sigmas.len()
    }

    /// Never true: there are always at least two levels.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The level of training timestep `t`.
    pub fn level(&self, t: usize) -> Option<f64> {
        self.sigmas.get(t).copied()
    }

    /// The lowest level, of `t = 0`.
    pub fn min(&self) -> f64 {
        self.sigmas[0]
    }

    /// The highest level, of `t = T - 1`.
    pub fn max(&self) -> f64 {
        self.sigmas[self.sigmas.len() - 1]
    }

    /// The level of a fractional timestep, interpolated in log sigma (k-diffusion's `t_to_sigma`).
    pub fn sigma(&self, t: f64) -> f64 {
        let t = t.clamp(0.0, (self.len() - 1) as f64);
        let low = (t.floor() as usize).min(self.len() - 2);
        let w = t - low as f64;
        ((1.0 - w) * self.log_sigmas[low] + w * self.log_sigmas[low + 1]).exp()
    }

    /// The fractional timestep of a level, interpolated in log sigma and clamped to the trained range
    /// (k-diffusion's `sigma_to_t`).
    pub fn timestep(&self, sigma: f64) -> f64 {
        let log = sigma.ln();
        let high = self.log_sigmas.partition_point(|l| *l < log).clamp(1, self.len() - 1);
        let (a, b) = (self.log_sigmas[high - 1], self.log_sigmas[high]);
        let w = ((log - a) / (b - a)).clamp(0.0, 1.0);
        (high - 1) as f64 + w
    }
}

/// A schedule with its options set.
pub trait Schedule: Send {
    /// `steps + 1` levels for a model, descending, the last 0.
    ///
    /// # Errors
    /// A number of steps that this schedule cannot do.
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>>;
}

/// Describes a schedule.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ScheduleInfo {
    /// `karras`, ...
    pub key: &'static str,
    /// The name people know.
    pub title: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Other names that find it.
    pub aliases: &'static [&'static str],
    /// Where it comes from: paper or reference implementation.
    pub source: &'static str,
}

/// A schedule as a plugin: an options type (hence a schema) and a constructor.
pub trait SchedulePlugin: Schedule + Sized + 'static {
    /// What it is.
    const INFO: ScheduleInfo;
    /// Its options; must deserialise from `{}` and refuse unknown fields.
    type Options: DeserializeOwned + Serialize + JsonSchema;
    /// Makes one.
    ///
    /// # Errors
    /// Options that cannot work together.
    fn new(options: Self::Options) -> Result<Self>;
}

/// Registers a schedule.
pub type ScheduleReg = Reg<ScheduleInfo, dyn Schedule>;

impl ScheduleReg {
    /// The registration of `T`; `origin` is the crate's name.
    pub const fn of<T: SchedulePlugin>(origin: &'static str) -> Self {
        assert!(crate::key::is_valid(T::INFO.key), "not a key: see atelier_sdk::key");
        Self { info: &T::INFO, schema: crate::params::schema_json::<T::Options>, make: make::<T>, origin }
    }
}

fn make<T: SchedulePlugin>(options: &Value) -> Result<Box<dyn Schedule>> {
    Ok(Box::new(T::new(parse_options("schedule", T::INFO.key, options)?)?))
}

impl Info for ScheduleInfo {
    fn key(&self) -> &'static str {
        self.key
    }
    fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }
}

inventory::collect!(ScheduleReg);

#[cfg(test)]
mod tests {
    use super::*;

    fn sd() -> NoiseLevels {
        NoiseLevels::from_betas(&NoiseLevels::scaled_linear_betas(0.00085, 0.012, 1000)).unwrap()
    }

    #[test]
    fn stable_diffusion_trains_between_its_known_levels() {
        assert!((sd().min() - 0.029167).abs() < 1e-5);
        assert!((sd().max() - 14.614647).abs() < 1e-4);
    }

    #[test]
    fn timestep_is_the_inverse_of_sigma() {
        let levels = sd();
        for t in [0.0, 0.25, 1.0, 437.5, 998.9, 999.0] {
            assert!((levels.timestep(levels.sigma(t)) - t).abs() < 1e-6, "{t}");
        }
        assert_eq!(levels.timestep(1e-9), 0.0);
        assert_eq!(levels.timestep(1e9), 999.0);
    }

    #[test]
    fn levels_that_do_not_ascend_are_refused() {
        for bad in [vec![], vec![1.0], vec![2.0, 1.0], vec![0.0, 1.0], vec![1.0, f64::NAN]] {
            assert!(NoiseLevels::new(bad).is_err());
        }
        assert!(NoiseLevels::from_betas(&[0.1, 1.5]).is_err());
    }
}
