//! Normal: equally spaced training timesteps, first and last included.

use super::{Compat, Ends, lerp, ramp, then_zero};
use atelier_sdk::{NoiseLevels, Result, Schedule, ScheduleInfo, SchedulePlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Normal`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NormalOptions {
    /// Lowest level before 0, within the model's range; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_min: Option<f64>,
    /// Highest level, within the model's range; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_max: Option<f64>,
    /// Whose definition: ComfyUI's moves ends that are set to the nearest trained levels.
    pub compat: Compat,
}

/// Timesteps on a line from `T - 1` to 0, with levels between them interpolated in log sigma.
///
/// Source: k-diffusion `DiscreteSchedule.get_sigmas`; A1111's "Uniform" and "Normal".
#[derive(Debug, Clone, Copy)]
pub struct Normal {
    ends: Ends,
    compat: Compat,
}

impl Schedule for Normal {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let (min, max) = self.ends.of(levels)?;
        let (first, last) = (self.compat.timestep(levels, max), self.compat.timestep(levels, min));
        then_zero(ramp(steps).map(|u| levels.sigma(lerp(first, last, u))))
    }
}

impl SchedulePlugin for Normal {
    const INFO: ScheduleInfo = ScheduleInfo {
        key: "normal",
        title: "Normal",
        summary: "Equally spaced training timesteps, the first and the last included.",
        aliases: &["uniform"],
        source: "k-diffusion DiscreteSchedule.get_sigmas",
    };
    type Options = NormalOptions;

    fn new(options: NormalOptions) -> Result<Self> {
        Ok(Self { ends: Ends::new(options.sigma_min, options.sigma_max)?, compat: options.compat })
    }
}
