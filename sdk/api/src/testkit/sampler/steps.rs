//! Whether a sampler can do every run, and only those.

use super::SamplerSubject;
use super::trial::{Seen, Trial, same_bits};
use crate::testkit::options::refusal;
use crate::testkit::report::{Checked, ensure};
use serde_json::Value;

/// Runs of a few steps, ending at level 0 and above.
fn runs(
    subject: &SamplerSubject<'_>,
    options: &Value,
    mut check: impl FnMut(usize, Seen) -> Checked,
) -> Checked {
    for steps in [1, 2, 3, 4, 7] {
        for last in [0.0, 0.1] {
            let trial = Trial::steps(steps, last).seeds(&[3]);
            check(steps, trial.by(subject, options)?.completed()?)?;
        }
    }
    Ok(())
}

/// Finite, and of the size that one step over all levels may lead an explicit method to.
fn stays_small(seen: &Seen) -> Checked {
    let highest = seen.start.iter().fold(0f32, |high, v| high.max(v.abs()));
    let tame = |v: &f32| v.abs() <= 100.0 * highest;
    let wild = seen.x.iter().find(|v| !tame(v));
    seen.ensure(wild.is_none(), || {
        format!("from values up to {highest} it comes to {}", wild.unwrap_or(&f32::NAN))
    })
}

pub(super) fn stays_finite_in_runs_of_any_length(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    runs(subject, options, |_, seen| stays_small(&seen))
}

pub(super) fn reports_each_step_once_and_in_order(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    runs(subject, options, |steps, seen| {
        let done = &seen.probe.done;
        seen.ensure(done.iter().copied().eq(0..steps), || format!("reports steps {done:?}"))?;
        seen.ensure(same_bits(&seen.probe.state, &seen.x), || {
            "its last report is not the state with which it ends".into()
        })
    })
}

pub(super) fn leaves_the_latents_alone_without_steps(
    subject: &SamplerSubject<'_>,
    options: &Value,
) -> Checked {
    for sigmas in [vec![], vec![1.5]] {
        let seen = Trial::new(sigmas).by(subject, options)?.completed()?;
        seen.ensure(same_bits(&seen.start, &seen.x), || "changes the latents".into())?;
        let calls = seen.probe.calls();
        seen.ensure(calls == 0, || format!("calls the host {calls} times"))?;
    }
    Ok(())
}

pub(super) fn refuses_levels_that_do_not_descend(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    let (up, level, inf) = (vec![1.0, 2.0], vec![1.0, 1.0, 0.0], vec![f32::INFINITY, 1.0]);
    for sigmas in [up, level, inf, vec![2.0, f32::NAN, 0.0], vec![1.0, -1.0]] {
        let title = format!("a run over {sigmas:?}");
        let seen = Trial::new(sigmas).by(subject, options)?;
        refusal(seen.result, || title.clone())?;
        let calls = seen.probe.calls();
        ensure(calls == 0, || format!("{title}: calls the host {calls} times before it refuses"))?;
    }
    Ok(())
}

/// One value, sides that nothing divides, many channels, and 1024 x 1024 pixels.
const SHAPES: [[usize; 3]; 4] = [[1, 1, 1], [3, 7, 5], [16, 33, 31], [4, 128, 128]];

pub(super) fn takes_latents_of_any_shape(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    SHAPES.into_iter().try_for_each(|shape| {
        let seen = Trial::steps(3, 0.0).shape(shape).by(subject, options)?;
        seen.completed()
            .and_then(|seen| stays_small(&seen))
            .map_err(|e| e.of(&format!("latents of {shape:?}")))
    })
}

/// Buffers of the size of the run, and levels at which there is a model or noise.
pub(super) fn asks_only_what_a_host_can_answer(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    let answerable = |seen: Seen| match &seen.probe.breach {
        Some(breach) => seen.fail(breach),
        None => Ok(()),
    };
    runs(subject, options, |_, seen| answerable(seen))?;
    answerable(Trial::steps(6, 0.0).shape([3, 7, 5]).seeds(&[4, 5]).by(subject, options)?)
}
