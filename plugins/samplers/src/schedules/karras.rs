//! Karras: equal steps in `sigma^(1/rho)`.

use super::{Ends, lerp, ramp, then_zero};
use atelier_sdk::{Error, NoiseLevels, Result, Schedule, ScheduleInfo, SchedulePlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Karras`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KarrasOptions {
    /// Curvature: 1 spaces the levels equally, larger values put more of them where little noise is left.
    #[schemars(range(min = 0.1, max = 100.0))]
    pub rho: f64,
    /// Lowest level before 0; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_min: Option<f64>,
    /// Highest level; the model's own when absent.
    #[schemars(range(min = 0.0001, max = 1000.0))]
    pub sigma_max: Option<f64>,
}

impl Default for KarrasOptions {
    fn default() -> Self {
        Self { rho: 7.0, sigma_min: None, sigma_max: None }
    }
}

/// `sigma_i = (max^(1/rho) + u_i (min^(1/rho) - max^(1/rho)))^rho`, with `u` from 0 to 1.
///
/// Source: Karras et al. 2022 (arXiv:2206.00364), equation 5; k-diffusion `get_sigmas_karras`.
#[derive(Debug, Clone, Copy)]
pub struct Karras {
    rho: f64,
    ends: Ends,
}

impl Schedule for Karras {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let (min, max) = self.ends.of(levels)?;
        let (first, last) = (max.powf(1.0 / self.rho), min.powf(1.0 / self.rho));
        then_zero(ramp(steps).map(|u| lerp(first, last, u).powf(self.rho)))
    }
}

impl SchedulePlugin for Karras {
    const INFO: ScheduleInfo = ScheduleInfo {
        key: "karras",
        title: "Karras",
        summary: "Many steps where little noise is left; rho sets how many.",
        aliases: &[],
        source: "Karras et al. 2022 (arXiv:2206.00364), equation 5; k-diffusion get_sigmas_karras",
    };
    type Options = KarrasOptions;

    fn new(options: KarrasOptions) -> Result<Self> {
        if !(options.rho > 0.0 && options.rho.is_finite()) {
            return Err(Error::invalid(format!("`rho` is {}, but must be above 0", options.rho)));
        }
        Ok(Self { rho: options.rho, ends: Ends::new(options.sigma_min, options.sigma_max)? })
    }
}
