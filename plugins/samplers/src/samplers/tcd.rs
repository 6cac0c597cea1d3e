//! TCD: jump along the trajectory to below the next level, then put noise back up to it.

use super::{add_noise, combine, levels};
use atelier_sdk::{NoiseLevels, Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Tcd`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TcdOptions {
    /// The paper's gamma: how far below the next timestep a jump goes, hence how much fresh noise follows. 0 is
    /// deterministic, 1 jumps to timestep 0 as LCM jumps to the image.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: f64,
    /// Scale of the fresh noise.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub s_noise: f64,
}

impl Default for TcdOptions {
    fn default() -> Self {
        Self { eta: 0.3, s_noise: 1.0 }
    }
}

/// Strategic stochastic sampling of trajectory consistency models: with `s` the level of timestep
/// `floor((1 - eta) t')`, `x' = D + (s / sigma) (x - D) + sqrt(sigma'^2 - s^2) n`.
///
/// A sampler sees no timesteps. They are those of Stable Diffusion and SDXL (scaled linear betas from 0.00085
/// to 0.012), of which all published models of this sort are made.
///
/// Source: Zheng et al. 2024 (arXiv:2402.19159), Algorithm 4; diffusers `TCDScheduler`.
#[derive(Debug, Clone)]
pub struct Tcd {
    options: TcdOptions,
    trained: NoiseLevels,
}

impl Sampler for Tcd {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut n) = (vec![0f32; x.len()], Vec::new());
        for (i, pair) in sigmas.windows(2).enumerate() {
            ctx.denoise(x, pair[0], &mut d)?;
            let sigma_next = f64::from(pair[1]);
            let s = self.below(sigma_next);
            let q = s / f64::from(pair[0]);
            combine(x, q, [(1.0 - q, &d)]);
            let amount = (sigma_next * sigma_next - s * s).sqrt();
            add_noise(ctx, [pair[0], pair[1]], amount, self.options.s_noise, x, &mut n)?;
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl Tcd {
    /// The level that a jump goes to on its way to `sigma`.
    fn below(&self, sigma: f64) -> f64 {
        // A level in f32 is not exactly that of its whole timestep.
        const ROUNDING: f64 = 1e-3;
        let next = self.trained.timestep(sigma);
        // Below timestep 0 there is nothing to jump to.
        if self.options.eta <= 0.0 || next < ROUNDING {
            return sigma;
        }
        let t = ((1.0 - self.options.eta) * next + ROUNDING).floor();
        self.trained.sigma(t).min(sigma)
    }
}

impl SamplerPlugin for Tcd {
    const INFO: SamplerInfo = SamplerInfo {
        key: "tcd",
        title: "TCD",
        summary: "For trajectory consistency models and LoRAs, 4 to 20 steps; eta trades detail for variety.",
        aliases: &[],
        evaluations: 1,
        order: 0,
        stochastic: true,
        source: "Zheng et al. 2024 (arXiv:2402.19159), Algorithm 4; diffusers TCDScheduler",
    };
    type Options = TcdOptions;

    fn new(options: TcdOptions) -> Result<Self> {
        let betas = NoiseLevels::scaled_linear_betas(0.00085, 0.012, 1000);
        Ok(Self { options, trained: NoiseLevels::from_betas(&betas)? })
    }
}
