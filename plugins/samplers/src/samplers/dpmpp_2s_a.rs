//! DPM++ 2S ancestral: the single-step second-order solver past the target, then fresh noise back up to it.

use super::ancestral::ancestral;
use super::{add_noise, combine, levels, middle};
use atelier_sdk::{Error, Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`DpmPp2sAncestral`] and [`DpmPpSde`](super::DpmPpSde).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SingleStepOptions {
    /// Share of fresh noise in each step: 0 adds none, 1 is the full reverse diffusion.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: f64,
    /// Scale of the fresh noise.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub s_noise: f64,
    /// Where in the step, in log sigma, the second evaluation is.
    #[schemars(range(min = 0.05, max = 0.95))]
    pub r: f64,
}

impl Default for SingleStepOptions {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0, r: 0.5 }
    }
}

impl SingleStepOptions {
    /// These options, if the second evaluation lies within the step.
    pub(crate) fn checked(self) -> Result<Self> {
        if self.r > 0.0 && self.r < 1.0 {
            return Ok(self);
        }
        Err(Error::invalid(format!("`r` is {}, but must lie between 0 and 1", self.r)))
    }

    /// The weights of the first and the second evaluation.
    pub(crate) fn weights(&self) -> (f64, f64) {
        let second = 1.0 / (2.0 * self.r);
        (1.0 - second, second)
    }
}

/// DPM-Solver++ (2S) with ancestral noise.
///
/// To the middle `s`: `u = (s / sigma) x + (1 - s / sigma) D`; from there, with `q = sigma' / sigma`,
/// `x' = q x + (1 - q) ((1 - 1/2r) D + 1/2r D(u, s))`. With noise the step goes to the lower level of the split.
///
/// Source: Lu et al. 2022 (arXiv:2211.01095), Algorithm 1; k-diffusion `sample_dpmpp_2s_ancestral`; without
/// noise, diffusers `DPMSolverSinglestepScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct DpmPp2sAncestral(SingleStepOptions);

impl Sampler for DpmPp2sAncestral {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut d2, mut n) = (vec![0f32; x.len()], vec![0f32; x.len()], Vec::new());
        for (i, pair) in sigmas.windows(2).enumerate() {
            let sigma = f64::from(pair[0]);
            ctx.denoise(x, pair[0], &mut d)?;
            let (down, up) = ancestral(sigma, f64::from(pair[1]), self.0.eta);
            if down > 0.0 {
                let mid = middle(sigma, down, self.0.r);
                let (s, q) = (f64::from(mid) / sigma, down / sigma);
                let mut u = x.to_vec();
                combine(&mut u, s, [(1.0 - s, &d)]);
                ctx.denoise(&u, mid, &mut d2)?;
                let (first, second) = self.0.weights();
                combine(x, q, [((1.0 - q) * first, &d), ((1.0 - q) * second, &d2)]);
            } else {
                x.copy_from_slice(&d);
            }
            add_noise(ctx, [pair[0], pair[1]], up, self.0.s_noise, x, &mut n)?;
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for DpmPp2sAncestral {
    const INFO: SamplerInfo = SamplerInfo {
        key: "dpmpp_2s_a",
        title: "DPM++ 2S a",
        summary: "Two evaluations per step and fresh noise in each.",
        aliases: &["dpm++ 2s a", "dpmpp_2s_ancestral", "k_dpmpp_2s_a"],
        evaluations: 2,
        order: 0,
        stochastic: true,
        source: "Lu et al. 2022 (arXiv:2211.01095), Algorithm 1; k-diffusion sample_dpmpp_2s_ancestral",
    };
    type Options = SingleStepOptions;

    fn new(options: SingleStepOptions) -> Result<Self> {
        Ok(Self(options.checked()?))
    }
}
