//! Whether a sampler integrates the right process.

use super::SamplerSubject;
use super::probe::{Denoiser, consistency, constant, numbered, one_point, posterior_mean};
use super::trial::{Seen, TOP, Trial, draws_noise};
use crate::testkit::report::{Checked, ensure, fail, skip};
use serde_json::Value;

/// Errors below this are mostly rounding of the `f32` state.
const ROUNDING: f64 = 2e-6;

/// The measured order may be this much lower than the declared one, and this much higher: on this one problem
/// the next term of the error may be as large as the first.
const LOWER: f64 = 0.25;
const HIGHER: f64 = 0.5;

pub(super) fn converges_with_its_order(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    if subject.order == 0 {
        return skip("it declares no order");
    }
    if draws_noise(subject, options)? {
        return skip(format!("it draws noise with {options}"));
    }
    // Of a high order the error soon ends in rounding: then fewer steps are compared.
    for (coarse, fine) in [(16, 64), (16, 32), (8, 16)] {
        let errors = (error(subject, options, coarse)?, error(subject, options, fine)?);
        if errors.1 < ROUNDING {
            continue;
        }
        let measured = (errors.0 / errors.1).ln() / (fine as f64 / coarse as f64).ln();
        let declared = f64::from(subject.order);
        return ensure((declared - LOWER..=declared + HIGHER).contains(&measured), || {
            let (e, e2) = errors;
            format!(
                "declares order {declared}, but has {measured:.2}: error {e:.1e} with {coarse} steps, {e2:.1e} with {fine}"
            )
        });
    }
    skip("its error is too small to measure an order in f32")
}

/// Relative error after `steps` steps.
fn error(subject: &SamplerSubject<'_>, options: &Value, steps: usize) -> Checked<f64> {
    // Down to 1 only: the first terms of the error change sign near the image, and hide the order.
    let seen = Trial::steps(steps, 1.0).by(subject, options)?.completed()?;
    Ok(distance(&seen, 1.0))
}

/// How far a run ended from the solution of the ODE at `level`, relative to the solution.
fn distance(seen: &Seen, level: f64) -> f64 {
    let exact = ((1.0 + level * level) / (1.0 + TOP * TOP)).sqrt();
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        seen.start.iter().zip(&seen.x).map(|(s, x)| f(f64::from(*s) * exact, f64::from(*x)).powi(2)).sum()
    };
    (sum(&|exact, x| x - exact) / sum(&|exact, _| exact)).sqrt()
}

/// The order says nothing of the last levels.
pub(super) fn arrives_at_the_exact_image(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    if draws_noise(subject, options)? {
        return skip(format!("it draws noise with {options}"));
    }
    let seen = Trial::steps(200, 0.0).by(subject, options)?.completed()?;
    let distance = distance(&seen, 0.0);
    seen.ensure(distance < 0.02, || format!("ends {:.1} % away from the exact image", 100.0 * distance))
}

pub(super) fn keeps_the_variance_of_the_process(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    if !draws_noise(subject, options)? {
        return skip("it draws no noise");
    }
    let found = variance(subject, options, posterior_mean)?;
    let right = |variance: f64, expected: f64| (variance / expected - 1.0).abs() < TOLERANCE;
    // Samplers of consistency models take D for the end of the way, not for the mean of all ends. Those that jump
    // along the trajectory and not to its end need a model that knows the jump; only of data that are one point
    // do all jumps lead right with the same D.
    if right(found, variance_at_end(1.0))
        || right(variance(subject, options, consistency)?, variance_at_end(1.0))
        || right(variance(subject, options, one_point)?, variance_at_end(0.0))
    {
        return Ok(());
    }
    fail(format!("the variance at level {END} is {found:.3} instead of {:.3}", variance_at_end(1.0)))
}

/// Where the variance is measured: some noise is left, so that none of it goes unseen.
const END: f32 = 0.5;

/// The variance of 20,000 values has a standard error of 1 %. The error of 800 steps is less for most samplers,
/// and 2 % for Euler's method with much churn, which undoes in each step the noise of several.
const TOLERANCE: f64 = 0.04;

fn variance_at_end(of_data: f64) -> f64 {
    of_data + f64::from(END).powi(2)
}

fn variance(subject: &SamplerSubject<'_>, options: &Value, denoiser: Denoiser) -> Checked<f64> {
    let trial = Trial::steps(800, END).shape([2, 100, 100]).seeds(&[5]).denoiser(denoiser);
    let seen = trial.by(subject, options)?.completed()?;
    Ok(seen.x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / seen.x.len() as f64)
}

/// The last estimate of the image; of a linear multistep method, which combines it with earlier ones, at least
/// the image that all estimates agree on.
pub(super) fn gives_the_denoised_image_at_level_zero(
    subject: &SamplerSubject<'_>,
    options: &Value,
) -> Checked {
    let run = |denoiser| Trial::steps(5, 0.0).denoiser(denoiser).by(subject, options)?.completed();
    let seen = run(numbered)?;
    let Some(last) = seen.probe.evaluated.len().checked_sub(1) else {
        return seen.fail("never evaluates the model");
    };
    let image = numbered(last, 0.0, 0.0);
    let Some(other) = other_than(image, &seen.x) else { return Ok(()) };
    seen.ensure(other_than(constant(0, 0.0, 0.0), &run(constant)?.x).is_none(), || {
        format!("ends with {other} where the last evaluation gave {image}")
    })
}

/// A value that is not `image`.
fn other_than(image: f64, x: &[f32]) -> Option<f32> {
    let is_image = |v: f32| (f64::from(v) - image).abs() < 1e-5 * image;
    x.iter().copied().find(|v| !is_image(*v))
}
