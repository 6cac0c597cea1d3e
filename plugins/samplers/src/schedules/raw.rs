//! Raw: the levels that the request gives.

use super::{log_linear, ramp, then_zero};
use atelier_sdk::{Error, NoiseLevels, Result, Schedule, ScheduleInfo, SchedulePlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Raw`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawOptions {
    /// Levels in descending order; a 0 at their end may be left out. Without any they are the model's highest and
    /// lowest.
    #[schemars(inner(range(min = 0.0, max = 1000.0)))]
    pub sigmas: Vec<f64>,
}

/// The given levels, exactly, where there are as many as steps. For another number of steps they are
/// interpolated in log sigma, as aligned steps are.
///
/// Source: none; the interpolation is that of Sabour et al. 2024 (arXiv:2404.14507).
#[derive(Debug, Clone)]
pub struct Raw(Vec<f64>);

impl Schedule for Raw {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let own = [levels.max(), levels.min()];
        let given = if self.0.is_empty() { &own[..] } else { &self.0 };
        if given.len() == steps {
            return then_zero(given.iter().copied());
        }
        if given.len() == 1 && steps > 1 {
            return Err(Error::invalid(format!("{steps} steps cannot be made of one level"))
                .hint("give at least two levels in `sigmas`"));
        }
        then_zero(ramp(steps).map(|u| log_linear(given, u)))
    }
}

impl SchedulePlugin for Raw {
    const INFO: ScheduleInfo = ScheduleInfo {
        key: "raw",
        title: "Raw",
        summary: "The levels of the option `sigmas`, interpolated where their number is not that of the steps.",
        aliases: &["manual"],
        source: "the request's own levels",
    };
    type Options = RawOptions;

    fn new(RawOptions { mut sigmas }: RawOptions) -> Result<Self> {
        if sigmas.last() == Some(&0.0) {
            sigmas.pop();
        }
        let positive = sigmas.iter().all(|s| *s > 0.0 && s.is_finite());
        // As the f32 that they become.
        if !positive || !sigmas.windows(2).all(|w| w[0] as f32 > w[1] as f32) {
            return Err(Error::invalid("`sigmas` must be above 0 and descend; only the last may be 0"));
        }
        Ok(Self(sigmas))
    }
}
