//! DPM-Solver++ (2M): two-step multistep in log-SNR.

use super::{combine, levels};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`DpmPp2m`]: it has none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DpmPp2mOptions {}

/// DPM-Solver++ (2M), the data-prediction multistep solver of order 2.
///
/// With `lambda = -ln sigma`, `h_i = lambda_{i+1} - lambda_i` and `r = h_{i-1} / h_i`:
/// `x' = exp(-h) x + (1 - exp(-h)) ((1 + 1/2r) D_i - 1/2r D_{i-1})`, where `exp(-h) = sigma' / sigma`.
///
/// Source: Lu et al. 2022 (arXiv:2211.01095), Algorithm 2; k-diffusion `sample_dpmpp_2m`, diffusers
/// `DPMSolverMultistepScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct DpmPp2m;

impl Sampler for DpmPp2m {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut d_last) = (vec![0f32; x.len()], vec![0f32; x.len()]);
        let mut h_last = None;
        for (i, pair) in sigmas.windows(2).enumerate() {
            ctx.denoise(x, pair[0], &mut d)?;
            let q = f64::from(pair[1]) / f64::from(pair[0]);
            let h = -q.ln();
            // The first step has no past. At level 0 h is infinite, so 1/2r would be too: x' = D.
            let half_inv_r = match h_last {
                Some(h_last) if pair[1] > 0.0 => h / (2.0 * h_last),
                _ => 0.0,
            };
            combine(x, q, [((1.0 - q) * (1.0 + half_inv_r), &d), (-(1.0 - q) * half_inv_r, &d_last)]);
            std::mem::swap(&mut d, &mut d_last);
            h_last = Some(h);
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for DpmPp2m {
    const INFO: SamplerInfo = SamplerInfo {
        key: "dpmpp_2m",
        title: "DPM++ 2M",
        summary: "Second order for one evaluation per step: a good default, usually with the karras schedule.",
        aliases: &["dpm++ 2m", "k_dpmpp_2m"],
        evaluations: 1,
        order: 2,
        stochastic: false,
        source: "Lu et al. 2022 (arXiv:2211.01095), Algorithm 2; k-diffusion sample_dpmpp_2m",
    };
    type Options = DpmPp2mOptions;

    fn new(_options: DpmPp2mOptions) -> Result<Self> {
        Ok(Self)
    }
}
