//! DDIM: predict the image and the noise in it, then mix them again at the next level.

use super::ancestral::ancestral;
use super::{add_noise, combine, levels};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Ddim`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DdimOptions {
    /// Share of fresh noise in each step: 0 is deterministic, 1 has the variance of DDPM.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: f64,
}

/// Denoising diffusion implicit models.
///
/// Equation 12 divided by `sqrt(alpha')` reads `x' = D + sqrt(sigma'^2 - s^2) eps + s n`, with
/// `eps = (x - D) / sigma`, and equation 16 gives `s = eta sigma' / sigma sqrt(sigma^2 - sigma'^2)`.
///
/// Source: Song et al. 2020 (arXiv:2010.02502); diffusers `DDIMScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct Ddim(DdimOptions);

impl Sampler for Ddim {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut n) = (vec![0f32; x.len()], Vec::new());
        for (i, pair) in sigmas.windows(2).enumerate() {
            let (sigma, sigma_next) = (f64::from(pair[0]), f64::from(pair[1]));
            ctx.denoise(x, pair[0], &mut d)?;
            let (direction, s) = ancestral(sigma, sigma_next, self.0.eta);
            let eps = direction / sigma;
            combine(x, eps, [(1.0 - eps, &d)]);
            add_noise(ctx, [pair[0], pair[1]], s, 1.0, x, &mut n)?;
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for Ddim {
    const INFO: SamplerInfo = SamplerInfo {
        key: "ddim",
        title: "DDIM",
        summary: "Deterministic by default; with eta 0 it takes the same steps as Euler.",
        aliases: &[],
        evaluations: 1,
        order: 1,
        stochastic: false,
        source: "Song et al. 2020 (arXiv:2010.02502), equations 12 and 16; diffusers DDIMScheduler",
    };
    type Options = DdimOptions;

    fn new(options: DdimOptions) -> Result<Self> {
        Ok(Self(options))
    }
}
