//! DDPM: the reverse diffusion itself, one draw from the posterior per step.

use super::ancestral::ancestral;
use super::{add_noise, combine, levels};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Ddpm`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DdpmOptions {
    /// Scale of the fresh noise.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub s_noise: f64,
}

impl Default for DdpmOptions {
    fn default() -> Self {
        Self { s_noise: 1.0 }
    }
}

/// Denoising diffusion probabilistic models: the posterior `q(x' | x, x0)` with the model's `D` for `x0`.
///
/// Its mean, equation 7 divided by `sqrt(abar')`, is `D + (sigma' / sigma)^2 (x - D)`; its variance, the smaller
/// of the two of the paper, is `(sigma' / sigma)^2 (sigma^2 - sigma'^2)`.
///
/// Source: Ho et al. 2020 (arXiv:2006.11239), equations 6 and 7; diffusers `DDPMScheduler` ("fixed_small").
#[derive(Debug, Clone, Copy)]
pub struct Ddpm(DdpmOptions);

impl Sampler for Ddpm {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut n) = (vec![0f32; x.len()], Vec::new());
        for (i, pair) in sigmas.windows(2).enumerate() {
            let (sigma, sigma_next) = (f64::from(pair[0]), f64::from(pair[1]));
            ctx.denoise(x, pair[0], &mut d)?;
            let mean = (sigma_next / sigma).powi(2);
            combine(x, mean, [(1.0 - mean, &d)]);
            let (_, up) = ancestral(sigma, sigma_next, 1.0);
            add_noise(ctx, [pair[0], pair[1]], up, self.0.s_noise, x, &mut n)?;
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for Ddpm {
    const INFO: SamplerInfo = SamplerInfo {
        key: "ddpm",
        title: "DDPM",
        summary: "The reverse diffusion as it was first published; wants many steps.",
        aliases: &[],
        evaluations: 1,
        order: 0,
        stochastic: true,
        source: "Ho et al. 2020 (arXiv:2006.11239), equations 6 and 7; diffusers DDPMScheduler",
    };
    type Options = DdpmOptions;

    fn new(options: DdpmOptions) -> Result<Self> {
        Ok(Self(options))
    }
}
