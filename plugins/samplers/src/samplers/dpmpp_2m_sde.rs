//! DPM++ 2M SDE: two-step multistep in log-SNR with noise.

use super::{add_noise, combine, levels};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a step of order 2 weighs the slope of the evaluations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SolverType {
    /// Half of the weight of the evaluation itself: the paper's form.
    #[default]
    Midpoint,
    /// The exact integral of a line.
    Heun,
}

impl SolverType {
    /// The weight of the slope over one step, for `h` steps in log sigma that take `1 - exp(-h)` of the way.
    pub(crate) fn slope(self, h: f64) -> f64 {
        let way = -(-h).exp_m1();
        match self {
            Self::Midpoint => way / 2.0,
            Self::Heun => 1.0 - way / h,
        }
    }
}

/// Options of [`DpmPp2mSde`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DpmPp2mSdeOptions {
    /// Share of fresh noise in each step: 0 is DPM++ 2M, 1 the full reverse diffusion.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: f64,
    /// Scale of the fresh noise.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub s_noise: f64,
    /// How a step weighs the slope of the evaluations.
    pub solver_type: SolverType,
}

impl Default for DpmPp2mSdeOptions {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0, solver_type: SolverType::Midpoint }
    }
}

/// SDE-DPM-Solver++ (2M).
///
/// With `lambda = -ln sigma`, `h` the step in it, `g = (1 + eta) h` and `r` the last `h` over this one:
/// `x' = exp(-g) x + (1 - exp(-g)) D + w (D - D_last) / r + sigma' sqrt(1 - exp(-2 eta h)) n`.
///
/// Plain noise is asked of the host; k-diffusion's Brownian path is a matter of the host's source of noise.
///
/// Source: Lu et al. 2022 (arXiv:2211.01095), appendix on SDE-DPM-Solver++ (2M); k-diffusion
/// `sample_dpmpp_2m_sde`, diffusers `DPMSolverMultistepScheduler` ("sde-dpmsolver++").
#[derive(Debug, Clone, Copy)]
pub struct DpmPp2mSde(DpmPp2mSdeOptions);

impl Sampler for DpmPp2mSde {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (mut d, mut d_last, mut n) = (vec![0f32; x.len()], vec![0f32; x.len()], Vec::new());
        let DpmPp2mSdeOptions { eta, s_noise, solver_type } = self.0;
        let mut h_last = None;
        for (i, pair) in sigmas.windows(2).enumerate() {
            ctx.denoise(x, pair[0], &mut d)?;
            if pair[1] > 0.0 {
                let h = (f64::from(pair[0]) / f64::from(pair[1])).ln();
                let g = (1.0 + eta) * h;
                let slope = h_last.map_or(0.0, |h_last: f64| solver_type.slope(g) * h / h_last);
                combine(x, (-g).exp(), [(slope - (-g).exp_m1(), &d), (-slope, &d_last)]);
                let amount = f64::from(pair[1]) * (-(-2.0 * eta * h).exp_m1()).sqrt();
                add_noise(ctx, [pair[0], pair[1]], amount, s_noise, x, &mut n)?;
                h_last = Some(h);
            } else {
                x.copy_from_slice(&d);
            }
            std::mem::swap(&mut d, &mut d_last);
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl SamplerPlugin for DpmPp2mSde {
    const INFO: SamplerInfo = SamplerInfo {
        key: "dpmpp_2m_sde",
        title: "DPM++ 2M SDE",
        summary: "DPM++ 2M with fresh noise in every step.",
        aliases: &["dpm++ 2m sde", "k_dpmpp_2m_sde"],
        evaluations: 1,
        order: 0,
        stochastic: true,
        source: "Lu et al. 2022 (arXiv:2211.01095), SDE-DPM-Solver++ (2M); k-diffusion sample_dpmpp_2m_sde",
    };
    type Options = DpmPp2mSdeOptions;

    fn new(options: DpmPp2mSdeOptions) -> Result<Self> {
        Ok(Self(options))
    }
}
