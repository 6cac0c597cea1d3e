//! Heun: Euler's step, then the mean of the tangents at both of its ends.

use super::{churn::Churn, combine, levels};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};

/// Heun's second-order method on the probability-flow ODE `dx/dsigma = (x - D(x, sigma)) / sigma`.
///
/// Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 2; k-diffusion `sample_heun`, diffusers
/// `HeunDiscreteScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct Heun(Churn);

impl Sampler for Heun {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut n, mut buffers) = (Vec::new(), Buffers::new(x.len()));
        for (i, pair) in sigmas.windows(2).enumerate() {
            let sigma = self.0.raise(pair[0], sigmas.len() - 1, ctx, x, &mut n)?;
            step(ctx, sigma, pair[1], x, &mut buffers)?;
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

/// What a step works in: both evaluations, and the state of the second.
pub(super) struct Buffers {
    d: Vec<f32>,
    d2: Vec<f32>,
    x2: Vec<f32>,
}

impl Buffers {
    pub(super) fn new(size: usize) -> Self {
        let zeros = || vec![0f32; size];
        Self { d: zeros(), d2: zeros(), x2: zeros() }
    }
}

/// One step from `sigma` to `sigma_next`.
pub(super) fn step(
    ctx: &mut dyn SampleCtx,
    sigma: f32,
    sigma_next: f32,
    x: &mut [f32],
    Buffers { d, d2, x2 }: &mut Buffers,
) -> Result<()> {
    ctx.denoise(x, sigma, d)?;
    let q = f64::from(sigma_next) / f64::from(sigma);
    x2.copy_from_slice(x);
    combine(x2, q, [(1.0 - q, d)]);
    if sigma_next > 0.0 {
        ctx.denoise(x2, sigma_next, d2)?;
        // x + (sigma' - sigma) / 2 ((x - D) / sigma + (x2 - D2) / sigma'), with q = sigma' / sigma
        let (h, h2) = ((q - 1.0) / 2.0, (1.0 - 1.0 / q) / 2.0);
        combine(x, 1.0 + h, [(-h, d), (h2, x2), (-h2, d2)]);
    } else {
        // At level 0 the tangent does not exist, and Euler's step has already reached D.
        x.copy_from_slice(x2);
    }
    Ok(())
}

impl SamplerPlugin for Heun {
    const INFO: SamplerInfo = SamplerInfo {
        key: "heun",
        title: "Heun",
        summary: "Euler with a correction: twice the work per step, far less error.",
        aliases: &["k_heun"],
        evaluations: 2,
        order: 2,
        stochastic: false,
        source: "Karras et al. 2022 (arXiv:2206.00364), Algorithm 2; k-diffusion sample_heun",
    };
    type Options = Churn;

    fn new(options: Churn) -> Result<Self> {
        Ok(Self(options.checked()?))
    }
}
