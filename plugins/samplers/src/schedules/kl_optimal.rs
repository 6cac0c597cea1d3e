//! KL optimal: equal steps in the arc tangent of sigma.

use super::{Compat, Ends, lerp, ramp, then_zero};
use atelier_sdk::{NoiseLevels, Result, Schedule, ScheduleInfo, SchedulePlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`KlOptimal`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KlOptimalOptions {
    /// Lowest level before 0; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_min: Option<f64>,
    /// Highest level; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_max: Option<f64>,
    /// Whose definition: in A1111 the last step goes to the lowest level, in ComfyUI from there to 0.
    pub compat: Compat,
}

/// `sigma = tan((1 - u) atan max + u atan min)`.
///
/// A1111's run ends at the lowest level; a schedule ends at 0 here, so its last step goes to 0 instead.
///
/// Source: Sabour et al. 2024 (arXiv:2404.14507), the optimum for Gaussian data; A1111 "KL Optimal", ComfyUI
/// `kl_optimal_scheduler`.
#[derive(Debug, Clone, Copy)]
pub struct KlOptimal {
    ends: Ends,
    compat: Compat,
}

impl Schedule for KlOptimal {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let (min, max) = self.ends.of(levels)?;
        // A1111 has one point more than steps; the last of them becomes 0.
        let points = if self.compat == Compat::A1111 && steps > 0 { steps + 1 } else { steps };
        then_zero(ramp(points).take(steps).map(|u| lerp(max.atan(), min.atan(), u).tan()))
    }
}

impl SchedulePlugin for KlOptimal {
    const INFO: ScheduleInfo = ScheduleInfo {
        key: "kl_optimal",
        title: "KL Optimal",
        summary: "Equal steps in the arc tangent of sigma: what is best for Gaussian data.",
        aliases: &["kl optimal"],
        source: "Sabour et al. 2024 (arXiv:2404.14507); A1111 and ComfyUI kl_optimal",
    };
    type Options = KlOptimalOptions;

    fn new(options: KlOptimalOptions) -> Result<Self> {
        Ok(Self { ends: Ends::new(options.sigma_min, options.sigma_max)?, compat: options.compat })
    }
}
