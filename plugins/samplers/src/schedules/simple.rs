//! Simple: every so many-th trained level, from the highest down.

use super::{at_timesteps, lerp};
use atelier_sdk::{NoiseLevels, Result, Schedule, ScheduleInfo, SchedulePlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Simple`]: it has none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SimpleOptions {}

/// Timesteps `T - 1 - floor(i T / n)`: whole ones only, and never the lowest.
///
/// With more steps than timesteps they lie on the line of the SGM uniform schedule.
///
/// Where `T / n` is whole it is diffusers' "trailing" spacing.
///
/// Source: ComfyUI `simple_scheduler`, which A1111 has too.
#[derive(Debug, Clone, Copy)]
pub struct Simple;

impl Schedule for Simple {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let top = levels.len() - 1;
        let whole = (0..steps).map(|i| (top - i * levels.len() / steps) as f64);
        at_timesteps(whole, (0..steps).map(|i| lerp(top as f64, 0.0, i as f64 / steps as f64)), levels)
    }
}

impl SchedulePlugin for Simple {
    const INFO: ScheduleInfo = ScheduleInfo {
        key: "simple",
        title: "Simple",
        summary: "Equally spaced trained levels from the highest down, without the lowest.",
        aliases: &[],
        source: "ComfyUI simple_scheduler",
    };
    type Options = SimpleOptions;

    fn new(_options: SimpleOptions) -> Result<Self> {
        Ok(Self)
    }
}
