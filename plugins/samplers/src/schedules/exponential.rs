//! Exponential: equal steps in log sigma.

use super::{Ends, lerp, ramp, then_zero};
use atelier_sdk::{NoiseLevels, Result, Schedule, ScheduleInfo, SchedulePlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Exponential`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExponentialOptions {
    /// Lowest level before 0; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_min: Option<f64>,
    /// Highest level; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_max: Option<f64>,
}

/// Levels on a line in log sigma.
///
/// Source: k-diffusion `get_sigmas_exponential`.
#[derive(Debug, Clone, Copy)]
pub struct Exponential(Ends);

impl Schedule for Exponential {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let (min, max) = self.0.of(levels)?;
        then_zero(ramp(steps).map(|u| lerp(max.ln(), min.ln(), u).exp()))
    }
}

impl SchedulePlugin for Exponential {
    const INFO: ScheduleInfo = ScheduleInfo {
        key: "exponential",
        title: "Exponential",
        summary: "Each level is the same fraction of the one before.",
        aliases: &[],
        source: "k-diffusion get_sigmas_exponential",
    };
    type Options = ExponentialOptions;

    fn new(options: ExponentialOptions) -> Result<Self> {
        Ok(Self(Ends::new(options.sigma_min, options.sigma_max)?))
    }
}
