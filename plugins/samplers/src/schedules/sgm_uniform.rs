//! SGM uniform: equally spaced training timesteps without the last.

use super::{Compat, Ends, lerp, then_zero};
use atelier_sdk::{NoiseLevels, Result, Schedule, ScheduleInfo, SchedulePlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`SgmUniform`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SgmUniformOptions {
    /// Level where the line of timesteps would end, within the model's range; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_min: Option<f64>,
    /// Highest level, within the model's range; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_max: Option<f64>,
    /// Whose definition: ComfyUI's moves ends that are set to the nearest trained levels.
    pub compat: Compat,
}

/// Timesteps on a line of `n + 1` points from `T - 1` to 0, the last left out, with levels between them
/// interpolated in log sigma: the last step starts higher than with the normal schedule.
///
/// Source: Stability's generative-models `LegacyDDPMDiscretization`, in the form of A1111's and ComfyUI's
/// "SGM Uniform".
#[derive(Debug, Clone, Copy)]
pub struct SgmUniform {
    ends: Ends,
    compat: Compat,
}

impl Schedule for SgmUniform {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let (min, max) = self.ends.of(levels)?;
        let (first, last) = (self.compat.timestep(levels, max), self.compat.timestep(levels, min));
        then_zero((0..steps).map(|i| levels.sigma(lerp(first, last, i as f64 / steps as f64))))
    }
}

impl SchedulePlugin for SgmUniform {
    const INFO: ScheduleInfo = ScheduleInfo {
        key: "sgm_uniform",
        title: "SGM Uniform",
        summary: "Equally spaced training timesteps without the last; what few-step distilled models expect.",
        aliases: &["sgm uniform", "sgmuniform"],
        source: "Stability generative-models LegacyDDPMDiscretization; A1111 and ComfyUI sgm_uniform",
    };
    type Options = SgmUniformOptions;

    fn new(options: SgmUniformOptions) -> Result<Self> {
        Ok(Self { ends: Ends::new(options.sigma_min, options.sigma_max)?, compat: options.compat })
    }
}
