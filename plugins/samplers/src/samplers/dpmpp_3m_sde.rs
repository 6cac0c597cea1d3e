//! DPM++ 3M SDE: three-step multistep in log-SNR with noise.

use super::dpmpp_2m_sde::SolverType;
use super::{add_noise, combine, levels};
use atelier_sdk::{Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`DpmPp3mSde`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DpmPp3mSdeOptions {
    /// Share of fresh noise in each step: 0 is DPM++ 3M, 1 the full reverse diffusion.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: f64,
    /// Scale of the fresh noise.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub s_noise: f64,
    /// How the steps of order 2, where a third evaluation is missing, weigh the slope of the evaluations.
    pub solver_type: SolverType,
    /// Whether the last steps have a lower order; steadier with few steps. A step to level 0 always has order 1.
    pub lower_order_final: bool,
}

impl Default for DpmPp3mSdeOptions {
    fn default() -> Self {
        Self { eta: 1.0, s_noise: 1.0, solver_type: SolverType::Heun, lower_order_final: false }
    }
}

/// DPM-Solver++ (3M) for the SDE.
///
/// With `g = (1 + eta) h`, `phi_2 = (exp(-g) - 1) / g + 1` and `phi_3 = phi_2 / g - 1/2`:
/// `x' = exp(-g) x + (1 - exp(-g)) D + phi_2 D' - phi_3 D'' + sigma' sqrt(1 - exp(-2 eta h)) n`, where `D'` and
/// `D''` are differences of the last three evaluations over this step.
///
/// Plain noise is asked of the host; k-diffusion's Brownian path is a matter of the host's source of noise.
///
/// Source: Lu et al. 2022 (arXiv:2211.01095), the multistep solver of order 3; k-diffusion
/// `sample_dpmpp_3m_sde`; without noise, diffusers `DPMSolverMultistepScheduler` (`solver_order` 3).
#[derive(Debug, Clone, Copy)]
pub struct DpmPp3mSde(DpmPp3mSdeOptions);

impl Sampler for DpmPp3mSde {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let steps = sigmas.len().saturating_sub(1);
        // Evaluations and the steps after them, newest first.
        let (mut d, mut h) = ([(); 3].map(|()| vec![0f32; x.len()]), [0f64; 3]);
        let mut n = Vec::new();
        for (i, pair) in sigmas.windows(2).enumerate() {
            d.rotate_right(1);
            ctx.denoise(x, pair[0], &mut d[0])?;
            if pair[1] > 0.0 {
                h.rotate_right(1);
                h[0] = (f64::from(pair[0]) / f64::from(pair[1])).ln();
                let lower = if self.0.lower_order_final { steps - i } else { 3 };
                let (own, weights) = self.weights(&h, lower.min(i + 1));
                combine(x, own, [(weights[0], &d[0]), (weights[1], &d[1]), (weights[2], &d[2])]);
                let amount = f64::from(pair[1]) * (-(-2.0 * self.0.eta * h[0]).exp_m1()).sqrt();
                add_noise(ctx, [pair[0], pair[1]], amount, self.0.s_noise, x, &mut n)?;
            } else {
                x.copy_from_slice(&d[0]);
            }
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl DpmPp3mSde {
    /// The weights of the state and of the evaluations, newest first, in a step of this order.
    fn weights(&self, h: &[f64; 3], order: usize) -> (f64, [f64; 3]) {
        let g = (1.0 + self.0.eta) * h[0];
        let (own, way) = ((-g).exp(), -(-g).exp_m1());
        let (r0, r1) = (h[1] / h[0], h[2] / h[0]);
        // The weights of (D_0 - D_1) / r0 and of (D_1 - D_2) / r1.
        let (a, b) = match order {
            0 | 1 => return (own, [way, 0.0, 0.0]),
            2 => (self.0.solver_type.slope(g) / r0, 0.0),
            _ => {
                let phi_2 = 1.0 - way / g;
                let phi_3 = phi_2 / g - 0.5;
                let second = (phi_2 * r0 - phi_3) / (r0 + r1);
                ((phi_2 + second) / r0, -second / r1)
            }
        };
        (own, [way + a, b - a, -b])
    }
}

impl SamplerPlugin for DpmPp3mSde {
    const INFO: SamplerInfo = SamplerInfo {
        key: "dpmpp_3m_sde",
        title: "DPM++ 3M SDE",
        summary: "Three evaluations combined and fresh noise in every step: wants more than 20 steps.",
        aliases: &["dpm++ 3m sde", "k_dpmpp_3m_sde"],
        evaluations: 1,
        order: 0,
        stochastic: true,
        source: "Lu et al. 2022 (arXiv:2211.01095), multistep order 3; k-diffusion sample_dpmpp_3m_sde",
    };
    type Options = DpmPp3mSdeOptions;

    fn new(options: DpmPp3mSdeOptions) -> Result<Self> {
        Ok(Self(options))
    }
}
