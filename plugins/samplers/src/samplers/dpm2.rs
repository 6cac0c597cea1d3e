//! DPM2: the midpoint method, its middle taken in log sigma.

use super::{churn::Churn, combine, levels, middle};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};

/// The midpoint method on `dx/dsigma = (x - D(x, sigma)) / sigma`, with the geometric mean of both levels for
/// the middle. It is DPM-Solver-2 but for the length of the second half-step, which that solver takes in log
/// sigma as well.
///
/// Source: Karras et al. 2022 (arXiv:2206.00364), Algorithm 2 with another second-order step; Lu et al. 2022
/// (arXiv:2206.00927), Algorithm 1; k-diffusion `sample_dpm_2`, diffusers `KDPM2DiscreteScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct Dpm2(Churn);

impl Sampler for Dpm2 {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut n) = (vec![0f32; x.len()], Vec::new());
        for (i, pair) in sigmas.windows(2).enumerate() {
            let sigma = self.0.raise(pair[0], sigmas.len() - 1, ctx, x, &mut n)?;
            ctx.denoise(x, sigma, &mut d)?;
            through_the_middle(ctx, f64::from(sigma), f64::from(pair[1]), x, &mut d)?;
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

/// Brings `x` from `sigma`, where the evaluation is `d`, to `target` with the tangent of the middle; in one
/// straight step where the target is 0 and has no geometric mean with anything.
pub(super) fn through_the_middle(
    ctx: &mut dyn SampleCtx,
    sigma: f64,
    target: f64,
    x: &mut [f32],
    d: &mut [f32],
) -> Result<()> {
    if target <= 0.0 {
        x.copy_from_slice(d);
        return Ok(());
    }
    let mid = middle(sigma, target, 0.5);
    let mut x2 = x.to_vec();
    combine(&mut x2, f64::from(mid) / sigma, [(1.0 - f64::from(mid) / sigma, d)]);
    ctx.denoise(&x2, mid, d)?;
    // x + (target - sigma) (x2 - D2) / mid
    let h = (target - sigma) / f64::from(mid);
    combine(x, 1.0, [(h, &x2), (-h, d)]);
    Ok(())
}

impl SamplerPlugin for Dpm2 {
    const INFO: SamplerInfo = SamplerInfo {
        key: "dpm2",
        title: "DPM2",
        summary: "The midpoint method: twice the work per step, far less error.",
        aliases: &["dpm_2", "k_dpm_2", "kdpm2"],
        evaluations: 2,
        order: 2,
        stochastic: false,
        source: "Karras et al. 2022 (arXiv:2206.00364), Algorithm 2; k-diffusion sample_dpm_2",
    };
    type Options = Churn;

    fn new(options: Churn) -> Result<Self> {
        Ok(Self(options.checked()?))
    }
}
