//! Schedules.

pub mod exponential;
pub mod karras;
pub mod normal;
pub mod sgm_uniform;

pub use exponential::Exponential;
pub use karras::Karras;
pub use normal::Normal;
pub use sgm_uniform::SgmUniform;

use atelier_sdk::{Error, NoiseLevels, Result};

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
