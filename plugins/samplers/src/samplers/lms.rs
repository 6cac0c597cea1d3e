//! LMS: a linear multistep method with weights for unequal steps.

use super::levels;
use super::tangents::{Tangents, lagrange};
use atelier_sdk::{Error, Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Lms`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LmsOptions {
    /// How many tangents a step combines; the first steps have fewer, for want of a past.
    #[schemars(range(min = 1, max = 4))]
    pub order: usize,
}

impl Default for LmsOptions {
    fn default() -> Self {
        Self { order: 4 }
    }
}

/// Adams-Bashforth with variable steps: the polynomial in sigma through the last tangents, integrated exactly.
///
/// Source: k-diffusion `sample_lms`, diffusers `LMSDiscreteScheduler`, which integrate it numerically.
#[derive(Debug, Clone, Copy)]
pub struct Lms(LmsOptions);

impl Sampler for Lms {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let mut past = Tangents::new(self.0.order, x.len());
        for (i, pair) in sigmas.windows(2).enumerate() {
            past.evaluate(ctx, x, pair[0])?;
            let from = f64::from(pair[0]);
            let h = f64::from(pair[1]) - from;
            let nodes: Vec<f64> = (0..past.len()).map(|k| f64::from(sigmas[i - k]) - from).collect();
            let moments: Vec<f64> = (1..=past.len() as i32).map(|j| h.powi(j) / f64::from(j)).collect();
            past.advance(x, lagrange(&nodes, &moments));
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for Lms {
    const INFO: SamplerInfo = SamplerInfo {
        key: "lms",
        title: "LMS",
        summary: "Reuses the last four tangents: high order for one evaluation per step, but it wants many steps.",
        aliases: &["k_lms"],
        evaluations: 1,
        // Measured: between the order 4 of its formula and the order 2 of a start with Euler's step.
        order: 3,
        stochastic: false,
        source: "k-diffusion sample_lms; diffusers LMSDiscreteScheduler",
    };
    type Options = LmsOptions;

    fn new(options: LmsOptions) -> Result<Self> {
        if !(1..=4).contains(&options.order) {
            return Err(Error::invalid(format!("`order` is {}, but LMS has orders 1 to 4", options.order)));
        }
        Ok(Self(options))
    }
}
