//! DDIM uniform: the timesteps of DDIM's own code.

use super::{at_timesteps, lerp, ramp};
use atelier_sdk::{NoiseLevels, Result, Schedule, ScheduleInfo, SchedulePlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`DdimUniform`]: it has none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DdimUniformOptions {}

/// Timesteps `1 + i floor(T / n)`, upwards from the lowest but one: a run starts below the highest level.
///
/// It is diffusers' "leading" spacing with `steps_offset` 1. A1111 and ComfyUI go on to the highest timestep that
/// the stride reaches, so that some numbers of steps (30 of 1000 timesteps) give one step more than was asked for;
/// here there are always as many as asked for. With so many that the stride would leave the trained levels, they
/// lie on a line.
///
/// Source: Song et al. 2020 (arXiv:2010.02502), in the form of CompVis latent-diffusion; diffusers "leading".
#[derive(Debug, Clone, Copy)]
pub struct DdimUniform;

impl Schedule for DdimUniform {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let stride = (levels.len() / steps.max(1)).max(1);
        let top = (levels.len() - 1) as f64;
        let whole = (0..steps).rev().map(|i| (1 + i * stride) as f64);
        at_timesteps(whole, ramp(steps).map(|u| lerp(top, 1.0, u)), levels)
    }
}

impl SchedulePlugin for DdimUniform {
    const INFO: ScheduleInfo = ScheduleInfo {
        key: "ddim_uniform",
        title: "DDIM",
        summary: "Equally spaced timesteps upwards from the lowest, as in DDIM's own code; the highest is not reached.",
        aliases: &["ddim", "ddim uniform"],
        source: "Song et al. 2020 (arXiv:2010.02502), CompVis latent-diffusion; diffusers \"leading\"",
    };
    type Options = DdimUniformOptions;

    fn new(_options: DdimUniformOptions) -> Result<Self> {
        Ok(Self)
    }
}
