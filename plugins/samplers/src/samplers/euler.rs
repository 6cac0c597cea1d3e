//! Euler: one straight step along the tangent.

use super::{churn::Churn, combine, levels};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};

/// Euler's method on the probability-flow ODE `dx/dsigma = (x - D(x, sigma)) / sigma`.
///
/// Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 2 without the correction; k-diffusion
/// `sample_euler`, diffusers `EulerDiscreteScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct Euler(Churn);

impl Sampler for Euler {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut n) = (vec![0f32; x.len()], Vec::new());
        for (i, pair) in sigmas.windows(2).enumerate() {
            let sigma = self.0.raise(pair[0], sigmas.len() - 1, ctx, x, &mut n)?;
            ctx.denoise(x, sigma, &mut d)?;
            // x + (sigma' - sigma) (x - D) / sigma
            let q = f64::from(pair[1]) / f64::from(sigma);
            combine(x, q, [(1.0 - q, &d)]);
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for Euler {
    const INFO: SamplerInfo = SamplerInfo {
        key: "euler",
        title: "Euler",
        summary: "The simplest: one evaluation and one straight step per level, optionally with churn.",
        aliases: &["k_euler"],
        evaluations: 1,
        order: 1,
        stochastic: false,
        source: "Karras et al. 2022 (arXiv:2206.00364), Algorithm 2 without correction; k-diffusion sample_euler",
    };
    type Options = Churn;

    fn new(options: Churn) -> Result<Self> {
        Ok(Self(options.checked()?))
    }
}
