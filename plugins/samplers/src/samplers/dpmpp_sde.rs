//! DPM++ SDE: the single-step second-order solver with noise in both of its halves.

use super::ancestral::ancestral;
use super::dpmpp_2s_a::SingleStepOptions;
use super::{add_noise, combine, levels, middle};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};

/// DPM-Solver++ (2S) for the SDE: as [`DpmPp2sAncestral`](super::DpmPp2sAncestral), but the state of the middle
/// has its own noise too.
///
/// Both draws are asked of the host with their levels. k-diffusion takes them from one Brownian path, so that
/// the second contains the first; here that is up to the host's source of noise, and plain noise makes them
/// independent.
///
/// Source: k-diffusion `sample_dpmpp_sde`, after Lu et al. 2022 (arXiv:2211.01095), Algorithm 1; diffusers
/// `DPMSolverSDEScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct DpmPpSde(SingleStepOptions);

impl Sampler for DpmPpSde {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut d2, mut n) = (vec![0f32; x.len()], vec![0f32; x.len()], Vec::new());
        let SingleStepOptions { eta, s_noise, r } = self.0;
        for (i, pair) in sigmas.windows(2).enumerate() {
            let (sigma, sigma_next) = (f64::from(pair[0]), f64::from(pair[1]));
            ctx.denoise(x, pair[0], &mut d)?;
            if sigma_next > 0.0 {
                let mid = middle(sigma, sigma_next, r);
                let (down, up) = ancestral(sigma, f64::from(mid), eta);
                let mut u = x.to_vec();
                combine(&mut u, down / sigma, [(1.0 - down / sigma, &d)]);
                add_noise(ctx, [pair[0], mid], up, s_noise, &mut u, &mut n)?;
                ctx.denoise(&u, mid, &mut d2)?;

                let (down, up) = ancestral(sigma, sigma_next, eta);
                let (q, (first, second)) = (down / sigma, self.0.weights());
                combine(x, q, [((1.0 - q) * first, &d), ((1.0 - q) * second, &d2)]);
                add_noise(ctx, [pair[0], pair[1]], up, s_noise, x, &mut n)?;
            } else {
                x.copy_from_slice(&d);
            }
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for DpmPpSde {
    const INFO: SamplerInfo = SamplerInfo {
        key: "dpmpp_sde",
        title: "DPM++ SDE",
        summary: "Two evaluations and two draws of noise per step: slow, rich in detail with few steps.",
        aliases: &["dpm++ sde", "k_dpmpp_sde"],
        evaluations: 2,
        order: 0,
        stochastic: true,
        source: "k-diffusion sample_dpmpp_sde; Lu et al. 2022 (arXiv:2211.01095), Algorithm 1",
    };
    type Options = SingleStepOptions;

    fn new(options: SingleStepOptions) -> Result<Self> {
        Ok(Self(options.checked()?))
    }
}
