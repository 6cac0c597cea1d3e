//! PNDM: pseudo linear multistep, the sampler of the first latent diffusion models.

use super::levels;
use super::tangents::{Tangents, adams_bashforth};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Pndm`]: it has none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PndmOptions {}

/// Pseudo linear multistep: the predicted noise is extrapolated with the weights of Adams and Bashforth, then
/// DDIM's transfer goes the whole way with it (equation 11, which here reads `x' = x + (sigma' - sigma) eps`).
///
/// The first step, which has no past, is a pseudo improved Euler step of two evaluations, in place of the
/// paper's Runge-Kutta steps: CompVis latent-diffusion's PLMS and diffusers' `skip_prk_steps` do the same.
///
/// Source: Liu et al. 2022 (arXiv:2202.09778), section 3.3 and Algorithm 2; diffusers `PNDMScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct Pndm;

impl Sampler for Pndm {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let mut past = Tangents::new(4, x.len());
        for (i, pair) in sigmas.windows(2).enumerate() {
            past.evaluate(ctx, x, pair[0])?;
            let h = f64::from(pair[1]) - f64::from(pair[0]);
            // At level 0 there is no tangent to correct with.
            if i == 0 && pair[1] > 0.0 {
                start(&mut past, ctx, pair[1], h, x)?;
            } else {
                past.advance(x, adams_bashforth(past.len(), h));
            }
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

/// The first step, with the mean of the tangents at both of its ends. The second is not kept: it belongs to a
/// state that was only tried.
fn start(past: &mut Tangents, ctx: &mut dyn SampleCtx, next: f32, h: f64, x: &mut [f32]) -> Result<()> {
    let mut tried = x.to_vec();
    past.advance(&mut tried, [h]);
    past.evaluate(ctx, &tried, next)?;
    past.advance(x, [h / 2.0; 2]);
    past.drop_newest();
    Ok(())
}

impl SamplerPlugin for Pndm {
    const INFO: SamplerInfo = SamplerInfo {
        key: "pndm",
        title: "PLMS",
        summary: "Pseudo linear multistep, the first default of Stable Diffusion; one more evaluation than steps.",
        aliases: &["plms"],
        evaluations: 1,
        order: 2,
        stochastic: false,
        source: "Liu et al. 2022 (arXiv:2202.09778), section 3.3; diffusers PNDMScheduler with skip_prk_steps",
    };
    type Options = PndmOptions;

    fn new(_options: PndmOptions) -> Result<Self> {
        Ok(Self)
    }
}
