//! Euler ancestral: an Euler step past the target, then fresh noise back up to it.

use super::{ancestral, combine, levels};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`EulerAncestral`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EulerAncestralOptions {
    /// Share of fresh noise in each step: 0 is Euler, 1 the full reverse diffusion.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: f64,
    /// Scale of the fresh noise.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub s_noise: f64,
}

impl Default for EulerAncestralOptions {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0 }
    }
}

/// Ancestral sampling with Euler's step. It does not converge: more steps give another image.
///
/// Source: k-diffusion `sample_euler_ancestral`, diffusers `EulerAncestralDiscreteScheduler`; the posterior
/// variance is that of Ho et al. 2020 (arXiv:2006.11239).
#[derive(Debug, Clone, Copy)]
pub struct EulerAncestral(EulerAncestralOptions);

impl Sampler for EulerAncestral {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut n) = (vec![0f32; x.len()], vec![0f32; x.len()]);
        for (i, pair) in sigmas.windows(2).enumerate() {
            let (sigma, sigma_next) = (f64::from(pair[0]), f64::from(pair[1]));
            ctx.denoise(x, pair[0], &mut d)?;
            let (down, up) = ancestral(sigma, sigma_next, self.0.eta);
            combine(x, down / sigma, [(1.0 - down / sigma, &d)]);
            if up > 0.0 {
                ctx.noise(pair[0], pair[1], &mut n)?;
                combine(x, 1.0, [(self.0.s_noise * up, &n)]);
            }
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
    type Options = EulerAncestralOptions;

    fn new(options: EulerAncestralOptions) -> Result<Self> {
        Ok(Self(options))
    }
}
