//! DPM2 ancestral: the midpoint method past the target, then fresh noise back up to it.

use super::ancestral::{AncestralOptions, ancestral};
use super::dpm2::through_the_middle;
use super::{add_noise, levels};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};

/// Ancestral sampling with the step of [`Dpm2`](super::Dpm2).
///
/// Source: k-diffusion `sample_dpm_2_ancestral`, diffusers `KDPM2AncestralDiscreteScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct Dpm2Ancestral(AncestralOptions);

impl Sampler for Dpm2Ancestral {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut n) = (vec![0f32; x.len()], Vec::new());
        for (i, pair) in sigmas.windows(2).enumerate() {
            let sigma = f64::from(pair[0]);
            ctx.denoise(x, pair[0], &mut d)?;
            let (down, up) = ancestral(sigma, f64::from(pair[1]), self.0.eta);
            through_the_middle(ctx, sigma, down, x, &mut d)?;
            add_noise(ctx, [pair[0], pair[1]], up, self.0.s_noise, x, &mut n)?;
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for Dpm2Ancestral {
    const INFO: SamplerInfo = SamplerInfo {
        key: "dpm2_a",
        title: "DPM2 a",
        summary: "The midpoint method with fresh noise in every step.",
        aliases: &["dpm2 a", "dpm_2_ancestral", "k_dpm_2_a", "k_dpm_2_ancestral", "kdpm2_a"],
        evaluations: 2,
        order: 0,
        stochastic: true,
        source: "k-diffusion sample_dpm_2_ancestral; diffusers KDPM2AncestralDiscreteScheduler",
    };
    type Options = AncestralOptions;

    fn new(options: AncestralOptions) -> Result<Self> {
        Ok(Self(options))
    }
}
