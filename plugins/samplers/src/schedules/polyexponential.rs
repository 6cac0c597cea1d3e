//! Polyexponential: a power law in log sigma.

use super::{Ends, lerp, ramp, then_zero};
use atelier_sdk::{Error, NoiseLevels, Result, Schedule, ScheduleInfo, SchedulePlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Polyexponential`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolyexponentialOptions {
    /// Curvature: 1 is the exponential schedule, larger values put more levels where little noise is left.
    #[schemars(range(min = 0.1, max = 100.0))]
    pub rho: f64,
    /// Lowest level before 0; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_min: Option<f64>,
    /// Highest level; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_max: Option<f64>,
}

impl Default for PolyexponentialOptions {
    fn default() -> Self {
        Self { rho: 1.0, sigma_min: None, sigma_max: None }
    }
}

/// `log sigma = log min + (1 - u)^rho (log max - log min)`, with `u` from 0 to 1.
///
/// Source: k-diffusion `get_sigmas_polyexponential`.
#[derive(Debug, Clone, Copy)]
pub struct Polyexponential {
    rho: f64,
    ends: Ends,
}

impl Schedule for Polyexponential {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let (min, max) = self.ends.of(levels)?;
        then_zero(ramp(steps).map(|u| lerp(min.ln(), max.ln(), (1.0 - u).powf(self.rho)).exp()))
    }
}

impl SchedulePlugin for Polyexponential {
    const INFO: ScheduleInfo = ScheduleInfo {
        key: "polyexponential",
        title: "Polyexponential",
        summary: "A power law in log sigma; with rho 1 the exponential schedule.",
        aliases: &[],
        source: "k-diffusion get_sigmas_polyexponential",
    };
    type Options = PolyexponentialOptions;

    fn new(options: PolyexponentialOptions) -> Result<Self> {
        if !(options.rho > 0.0 && options.rho.is_finite()) {
            return Err(Error::invalid(format!("`rho` is {}, but must be above 0", options.rho)));
        }
        Ok(Self { rho: options.rho, ends: Ends::new(options.sigma_min, options.sigma_max)? })
    }
}
