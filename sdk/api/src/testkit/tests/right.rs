//! Samplers of every sort that keep the contract pass.

use super::*;
use crate::sampler::{Run, SampleCtx};

/// Levels that descend to 0 or above.
pub(super) fn levels<'a>(run: &Run<'a>) -> Result<&'a [f32]> {
    let possible = run.sigmas.iter().all(|s| s.is_finite() && *s >= 0.0);
    match possible && run.sigmas.windows(2).all(|w| w[0] > w[1]) {
        true => Ok(run.sigmas),
        false => Err(Error::invalid("levels must descend")),
    }
}

/// The classical Runge-Kutta method of order 4 in log sigma, or of order 2 (midpoint) or 1.
struct RungeKutta(u32);

impl RungeKutta {
    /// The slope `dx / d ln sigma` at the state that `slope` leads to after `h`.
    fn slope(ctx: &mut dyn SampleCtx, x: &[f32], slope: &[f32], sigma: f32, h: f32) -> Result<Vec<f32>> {
        let x: Vec<f32> = x.iter().zip(slope).map(|(x, k)| x + h * k).collect();
        let mut d = vec![0f32; x.len()];
        ctx.denoise(&x, sigma, &mut d)?;
        Ok(x.iter().zip(&d).map(|(x, d)| x - d).collect())
    }
}

impl Sampler for RungeKutta {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        for (i, pair) in levels(run)?.windows(2).enumerate() {
            let (h, middle) = ((pair[1] / pair[0]).ln(), (pair[0] * pair[1]).sqrt());
            let k = Self::slope(ctx, x, &vec![0f32; x.len()], pair[0], 0.0)?;
            let step = match self.0 {
                _ if pair[1] == 0.0 => k.iter().map(|k| -k).collect(),
                1 => k.iter().map(|k| (pair[1] / pair[0] - 1.0) * k).collect(),
                2 => Self::slope(ctx, x, &k, middle, h / 2.0)?.iter().map(|k| h * k).collect(),
                _ => {
                    let k2 = Self::slope(ctx, x, &k, middle, h / 2.0)?;
                    let k3 = Self::slope(ctx, x, &k2, middle, h / 2.0)?;
                    let k4 = Self::slope(ctx, x, &k3, pair[1], h)?;
                    let sum = |j: usize| k[j] + 2.0 * k2[j] + 2.0 * k3[j] + k4[j];
                    (0..x.len()).map(|j| h / 6.0 * sum(j)).collect::<Vec<f32>>()
                }
            };
            x.iter_mut().zip(step).for_each(|(x, s)| *x += s);
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

/// Takes the denoised image for the end of the way, and adds noise for the next level.
struct Consistency;

impl Sampler for Consistency {
    fn sample(&mut self, run: &Run<'_>, ctx: &mut dyn SampleCtx, x: &mut [f32]) -> Result<()> {
        let (mut d, mut n) = (vec![0f32; x.len()], vec![0f32; x.len()]);
        for (i, pair) in levels(run)?.windows(2).enumerate() {
            ctx.denoise(x, pair[0], &mut d)?;
            x.copy_from_slice(&d);
            if pair[1] > 0.0 {
                ctx.noise(pair[0], pair[1], &mut n)?;
                x.iter_mut().zip(&n).for_each(|(x, n)| *x += pair[1] * n);
            }
            ctx.step_done(i, x)?;
        }
        Ok(())
    }
}

#[test]
fn deterministic_samplers_of_any_order_pass() {
    for (evaluations, order) in [(1, 1), (2, 2), (4, 4)] {
        let report = with_sampler(
            (evaluations, order),
            || Box::new(RungeKutta(order)),
            |s| check_sampler(s, &json!({})),
        );
        assert_eq!(failed(&report), [""; 0]);
        assert_eq!(outcome(&report, "converges_with_its_order"), &Outcome::Passed);
        assert_eq!(report.checks.len(), SAMPLER_CHECKS.len());
    }
}

#[test]
fn a_sampler_for_consistency_models_passes() {
    let report = with_sampler((1, 0), || Box::new(Consistency), |s| check_sampler(s, &json!({})));
    assert_eq!(failed(&report), [""; 0]);
    assert_eq!(outcome(&report, "keeps_the_variance_of_the_process"), &Outcome::Passed);
}
