//! Whether a sampler does what it says of itself.

use super::SamplerSubject;
use super::trial::{Seen, Trial};
use crate::testkit::report::{Checked, ensure};
use serde_json::{Value, json};

/// How many evaluations a run may have beside those of its steps: a multistep method may need some to start,
/// and a method that restarts has further ways down. They must not grow with the number of steps.
const BESIDE: usize = 64;

pub(super) fn makes_the_declared_evaluations(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    const STEPS: usize = 5;
    let each = subject.evaluations as usize;
    // Where the last step goes to level 0, one evaluation is enough for it.
    for (last, spared) in [(0.1, 0), (0.0, each.saturating_sub(1))] {
        let made = |steps| -> Checked<(Seen, usize)> {
            let seen = Trial::steps(steps, last).by(subject, options)?.completed()?;
            let made = seen.probe.evaluated.len();
            Ok((seen, made))
        };
        let ((seen, made), (_, of_twice)) = (made(STEPS)?, made(2 * STEPS)?);
        seen.ensure((STEPS * each - spared..=STEPS * each + BESIDE).contains(&made), || {
            format!("makes {made} evaluations, but declares {each} for each step")
        })?;
        seen.ensure(made + STEPS * each == of_twice, || {
            format!(
                "declares {each} evaluations for each step, but {STEPS} steps more take {made} to {of_twice}"
            )
        })?;
    }
    Ok(())
}

/// With its default options, whatever the others are: the declaration is about those.
pub(super) fn draws_noise_exactly_if_it_says_so(subject: &SamplerSubject<'_>, _options: &Value) -> Checked {
    let seen = Trial::steps(5, 0.0).by(subject, &json!({}))?.completed()?;
    let (drawn, says) = (seen.probe.drawn, subject.stochastic);
    seen.ensure((drawn > 0) == says, || {
        format!("draws noise {drawn} times by default, but says `stochastic: {says}`")
    })
}

pub(super) fn declares_an_order_exactly_if_deterministic(
    subject: &SamplerSubject<'_>,
    _options: &Value,
) -> Checked {
    let SamplerSubject { order, stochastic, .. } = *subject;
    ensure((order == 0) == stochastic, || {
        format!("declares order {order} and `stochastic: {stochastic}`; 0 is for stochastic samplers")
    })
}
