//! DEIS: exponential integrator with polynomials in log rho.

use super::levels;
use super::tangents::{Tangents, lagrange};
use atelier_sdk::{Error, Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Deis`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeisOptions {
    /// How many tangents a step combines; the first steps have fewer, for want of a past.
    #[schemars(range(min = 1, max = 3))]
    pub order: usize,
    /// Whether the last steps have a lower order; steadier with few steps. A step to level 0 always has order 1.
    pub lower_order_final: bool,
}

impl Default for DeisOptions {
    fn default() -> Self {
        Self { order: 2, lower_order_final: true }
    }
}

/// The diffusion exponential integrator sampler, multistep, with polynomials in log rho ("log rho AB").
///
/// The paper's `rho` is our sigma: the ODE is `dx = eps drho`, so that a step adds the integral over rho of the
/// polynomial in `log rho` through the last predictions of the noise.
///
/// Source: Zhang and Chen 2022 (arXiv:2204.13902), section 3.3 and appendix on the choice of polynomials;
/// diffusers `DEISMultistepScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct Deis(DeisOptions);

impl Sampler for Deis {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let steps = sigmas.len().saturating_sub(1);
        let mut past = Tangents::new(self.0.order, x.len());
        for (i, pair) in sigmas.windows(2).enumerate() {
            past.evaluate(ctx, x, pair[0])?;
            let mut order = past.len();
            if self.0.lower_order_final {
                order = order.min(steps - i);
            }
            if pair[1] > 0.0 {
                past.advance(x, weights(&sigmas[i + 1 - order..=i + 1]));
            } else {
                x.copy_from_slice(past.denoised());
            }
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

/// Weights of the tangents at all of `levels` but the last, to which the step goes; the newest first.
fn weights(levels: &[f32]) -> Vec<f64> {
    let logs: Vec<f64> = levels.iter().rev().map(|s| f64::from(*s).ln()).collect();
    let (h, order) = (logs[0] - logs[1], levels.len() - 1);
    let nodes: Vec<f64> = logs[1..].iter().map(|l| l - logs[1]).collect();
    // With v = log(rho / sigma), drho = sigma exp(v) dv; by parts, int v^k exp(v) = h^k exp(h) - k int v^(k-1).
    let sigma = f64::from(levels[order - 1]);
    let mut moments = vec![sigma * h.exp_m1()];
    for k in 1..order {
        let lower = moments[k - 1];
        moments.push(sigma * h.powi(k as i32) * h.exp() - k as f64 * lower);
    }
    lagrange(&nodes, &moments)
}

impl SamplerPlugin for Deis {
    const INFO: SamplerInfo = SamplerInfo {
        key: "deis",
        title: "DEIS",
        summary: "Multistep exponential integrator: second order for one evaluation per step.",
        aliases: &[],
        evaluations: 1,
        order: 2,
        stochastic: false,
        source: "Zhang and Chen 2022 (arXiv:2204.13902), section 3.3; diffusers DEISMultistepScheduler",
    };
    type Options = DeisOptions;

    fn new(options: DeisOptions) -> Result<Self> {
        if !(1..=3).contains(&options.order) {
            return Err(Error::invalid(format!("`order` is {}, but DEIS has orders 1 to 3", options.order)));
        }
        Ok(Self(options))
    }
}
