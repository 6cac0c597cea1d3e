//! Restart: Heun's method, which goes back up with fresh noise and comes down again.

use super::{add_noise, heun, levels};
use atelier_sdk::{Error, Result, Run, SampleCtx, Sampler, SamplerInfo, SamplerPlugin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of [`Restart`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RestartOptions {
    /// How often it goes back up.
    #[schemars(range(min = 0, max = 10))]
    pub restart_times: usize,
    /// Steps of each way down again, beside those of the run.
    #[schemars(range(min = 1, max = 50))]
    pub restart_steps: usize,
    /// It goes back up once it has reached the level of the run nearest to this one.
    #[schemars(range(min = 0.001, max = 1000.0))]
    pub s_tmin: f64,
    /// It goes back up to the level of the run nearest to this one.
    #[schemars(range(min = 0.001, max = 1000.0))]
    pub s_tmax: f64,
    /// Scale of the added noise.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub s_noise: f64,
}

impl Default for RestartOptions {
    fn default() -> Self {
        Self { restart_times: 1, restart_steps: 9, s_tmin: 0.1, s_tmax: 2.0, s_noise: 1.0 }
    }
}

/// Restart sampling with one interval, Heun's steps, and the levels of Karras et al. within the interval.
///
/// The ways down again count as part of the step that reached the interval's end, and come beside the steps of
/// the run: A1111's label takes them off the number of steps instead, and restarts only from 20 steps up.
///
/// Source: Xu et al. 2023 (arXiv:2306.14878), Algorithm 1 and the settings for Stable Diffusion in its appendix;
/// A1111's `restart_sampler`.
#[derive(Debug, Clone, Copy)]
pub struct Restart(RestartOptions);

impl Sampler for Restart {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let sigmas = levels(run, x)?;
        let (low, high) = (nearest(sigmas, self.0.s_tmin), nearest(sigmas, self.0.s_tmax));
        let (mut n, mut buffers) = (Vec::new(), heun::Buffers::new(x.len()));
        for (i, pair) in sigmas.windows(2).enumerate() {
            heun::step(ctx, pair[0], pair[1], x, &mut buffers)?;
            if i + 1 == low && high < low {
                self.again(sigmas[high], sigmas[low], ctx, x, &mut n, &mut buffers)?;
            }
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

impl Restart {
    /// From `low` up to `high` and down again, as often as the options say.
    fn again(
        &self,
        high: f32,
        low: f32,
        ctx: &mut dyn SampleCtx,
        x: &mut [f32],
        n: &mut Vec<f32>,
        buffers: &mut heun::Buffers,
    ) -> Result<()> {
        let down = karras(high, low, self.0.restart_steps);
        let added = (f64::from(high).powi(2) - f64::from(low).powi(2)).sqrt();
        for _ in 0..self.0.restart_times {
            add_noise(ctx, [low, high], added, self.0.s_noise, x, n)?;
            for pair in down.windows(2) {
                heun::step(ctx, pair[0], pair[1], x, buffers)?;
            }
        }
        Ok(())
    }
}

/// Which level of the run above 0 is nearest to `sigma`.
fn nearest(sigmas: &[f32], sigma: f64) -> usize {
    let distance = |i: &usize| (f64::from(sigmas[*i]) - sigma).abs();
    let above_zero = 0..sigmas.iter().filter(|s| **s > 0.0).count();
    above_zero.min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(0)
}

/// `steps + 1` levels from `high` to `low`, both exact, on a line in `sigma^(1/7)` (Karras et al. 2022, equation 5).
fn karras(high: f32, low: f32, steps: usize) -> Vec<f32> {
    let root = |s: f32| f64::from(s).powf(1.0 / 7.0);
    let inner = (1..steps).map(|i| {
        let u = i as f64 / steps as f64;
        (root(high) * (1.0 - u) + root(low) * u).powi(7) as f32
    });
    std::iter::once(high).chain(inner).chain([low]).collect()
}

impl SamplerPlugin for Restart {
    const INFO: SamplerInfo = SamplerInfo {
        key: "restart",
        title: "Restart",
        summary: "Heun, which once goes back up with fresh noise and comes down again: mends earlier errors.",
        aliases: &[],
        evaluations: 2,
        order: 0,
        stochastic: true,
        source: "Xu et al. 2023 (arXiv:2306.14878), Algorithm 1; A1111 restart_sampler",
    };
    type Options = RestartOptions;

    fn new(options: RestartOptions) -> Result<Self> {
        if !(options.s_tmin > 0.0 && options.s_tmin < options.s_tmax) {
            let RestartOptions { s_tmin, s_tmax, .. } = options;
            return Err(Error::invalid(format!(
                "`s_tmin` {s_tmin} must lie between 0 and `s_tmax` {s_tmax}"
            )));
        }
        if options.restart_steps == 0 {
            return Err(Error::invalid("`restart_steps` is 0, but a way down has at least one step"));
        }
        Ok(Self(options))
    }
}
