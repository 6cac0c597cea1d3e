//! Euler ancestral: an Euler step past the target, then fresh noise back up to it.

use super::ancestral::{AncestralOptions, ancestral};
use super::{add_noise, combine, levels};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};

/// Ancestral sampling with Euler's step. It does not converge: more steps give another image.
///
/// Source: k-diffusion `sample_euler_ancestral`, diffusers `EulerAncestralDiscreteScheduler`; the posterior
/// variance is that of Ho et al. 2020 (arXiv:2006.11239).
#[derive(Debug, Clone, Copy)]
pub struct EulerAncestral(AncestralOptions);

impl Sampler for EulerAncestral {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut n) = (vec![0f32; x.len()], Vec::new());
        for (i, pair) in sigmas.windows(2).enumerate() {
            let (sigma, sigma_next) = (f64::from(pair[0]), f64::from(pair[1]));
            ctx.denoise(x, pair[0], &mut d)?;
            let (down, up) = ancestral(sigma, sigma_next, self.0.eta);
            combine(x, down / sigma, [(1.0 - down / sigma, &d)]);
            add_noise(ctx, [pair[0], pair[1]], up, self.0.s_noise, x, &mut n)?;
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for EulerAncestral {
    const INFO: SamplerInfo = SamplerInfo {
        key: "euler_a",
        title: "Euler a",
        summary: "Euler with fresh noise in every step: varied, soft images that change with the number of steps.",
        aliases: &["euler a", "k_euler_a", "k_euler_ancestral", "euler_ancestral"],
        evaluations: 1,
        order: 0,
        stochastic: true,
        source: "k-diffusion sample_euler_ancestral; posterior of Ho et al. 2020 (arXiv:2006.11239)",
    };
    type Options = AncestralOptions;

    fn new(options: AncestralOptions) -> Result<Self> {
        Ok(Self(options))
    }
}
