//! Align your steps: levels that were optimised for a model.

use super::{Compat, log_linear, ramp, then_zero};
use atelier_sdk::{Error, NoiseLevels, Result, Schedule, ScheduleInfo, SchedulePlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// For which model the levels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// Stable Diffusion 1.5.
    #[default]
    Sd1,
    /// SDXL.
    Sdxl,
}

/// Options of [`AlignYourSteps`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AysOptions {
    /// For which model the levels are.
    pub model: Model,
    /// Whose definition: A1111 puts 0 after the lowest level, ComfyUI in its place, so that its levels are others.
    pub compat: Compat,
}

/// The authors' ten steps, to three decimals, as A1111 has them.
const SD1: [f64; 11] = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029];
const SDXL: [f64; 11] = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029];

/// The same with more decimals, as ComfyUI has them: up to 0.6 % off, the second last of SDXL 1.4 %.
#[rustfmt::skip]
const SD1_COMFY: [f64; 11] = [
    14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904,
    0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582,
];
#[rustfmt::skip]
const SDXL_COMFY: [f64; 11] = [
    14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289,
    0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582,
];

/// The authors' table, interpolated in log sigma where the number of steps is not that of the table.
///
/// The first level exceeds the highest of the model by its rounding, and is lowered to it.
///
/// Source: Sabour et al. 2024 (arXiv:2404.14507) and its quick-start guide; A1111 "Align Your Steps", ComfyUI
/// `AlignYourStepsScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct AlignYourSteps(AysOptions);

impl Schedule for AlignYourSteps {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let table = match (self.0.model, self.0.compat) {
            (Model::Sd1, Compat::A1111) => SD1,
            (Model::Sdxl, Compat::A1111) => SDXL,
            (Model::Sd1, Compat::Comfy) => SD1_COMFY,
            (Model::Sdxl, Compat::Comfy) => SDXL_COMFY,
        };
        if levels.max() <= table[1] {
            let max = levels.max();
            return Err(Error::invalid(format!("aligned steps start at 14.6, but this model ends at {max}"))
                .hint("take another schedule: these levels are for Stable Diffusion and SDXL"));
        }
        let points = if self.0.compat == Compat::Comfy && steps > 0 { steps + 1 } else { steps };
        then_zero(ramp(points).take(steps).map(|u| log_linear(&table, u).min(levels.max())))
    }
}

impl SchedulePlugin for AlignYourSteps {
    const INFO: ScheduleInfo = ScheduleInfo {
        key: "ays",
        title: "Align Your Steps",
        summary: "Levels that were optimised for Stable Diffusion 1.5 or SDXL: made for ten steps.",
        aliases: &["align your steps", "align_your_steps"],
        source: "Sabour et al. 2024 (arXiv:2404.14507); A1111 Align Your Steps",
    };
    type Options = AysOptions;

    fn new(options: AysOptions) -> Result<Self> {
        Ok(Self(options))
    }
}
