//! LCM: jump to the image, then put noise back up to the next level.

use super::{add_noise, levels};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Lcm`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LcmOptions {
    /// Scale of the fresh noise.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub s_noise: f64,
}

impl Default for LcmOptions {
    fn default() -> Self {
        Self { s_noise: 1.0 }
    }
}

/// Multistep consistency sampling, for models distilled to predict the end of the trajectory: `x' = D + sigma' n`.
///
/// The paper's `c_skip` and `c_out` belong to the model; at the levels where one samples they differ from 0 and
/// 1 by less than 1e-6, and are left out as in ComfyUI.
///
/// Source: Luo et al. 2023 (arXiv:2310.04378), Algorithm 3; diffusers `LCMScheduler`, ComfyUI `lcm`.
#[derive(Debug, Clone, Copy)]
pub struct Lcm(LcmOptions);

impl Sampler for Lcm {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut n) = (vec![0f32; x.len()], Vec::new());
        for (i, pair) in sigmas.windows(2).enumerate() {
            ctx.denoise(x, pair[0], &mut d)?;
            x.copy_from_slice(&d);
            add_noise(ctx, [pair[0], pair[1]], f64::from(pair[1]), self.0.s_noise, x, &mut n)?;
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for Lcm {
    const INFO: SamplerInfo = SamplerInfo {
        key: "lcm",
        title: "LCM",
        summary: "For latent consistency models and LoRAs, 2 to 8 steps; blurs with any other model.",
        aliases: &[],
        evaluations: 1,
        order: 0,
        stochastic: true,
        source: "Luo et al. 2023 (arXiv:2310.04378), Algorithm 3; diffusers LCMScheduler",
    };
    type Options = LcmOptions;

    fn new(options: LcmOptions) -> Result<Self> {
        Ok(Self(options))
    }
}
