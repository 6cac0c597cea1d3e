//! What a sampler does when its host wants it to stop.

use super::SamplerSubject;
use super::probe::{Call, Fault};
use super::trial::{Seen, Trial};
use crate::error::{Error, ErrorKind};
use crate::testkit::report::{Checked, skip, words};
use serde_json::Value;

const STEPS: usize = 6;

/// An error that could not be mistaken for another.
fn odd() -> Error {
    Error::new(ErrorKind::Environment, "the probe failed").because("it was asked to").hint("ask it not to")
}

fn passes_on(subject: &SamplerSubject<'_>, options: &Value, call: Call, at: &[usize]) -> Checked {
    let mut met = false;
    for at in at.iter().copied() {
        let fault = Fault { call, at, error: odd, lasts: false };
        let seen = Trial::steps(STEPS, 0.1).fault(fault).by(subject, options)?;
        let Some((_, calls)) = seen.probe.failed_after else { continue };
        met = true;
        passed_on(&seen)?;
        let more = seen.probe.calls() - calls;
        seen.ensure(more == 0, || format!("calls the host {more} more times after an error"))?;
    }
    if met { Ok(()) } else { skip(format!("it makes no such call with {options}")) }
}

fn passed_on(seen: &Seen) -> Checked {
    let Err(e) = &seen.result else { return seen.fail("ends well although the host failed") };
    let parts = |e: &Error| (e.kind(), e.chain(), e.hints().to_vec());
    seen.ensure(parts(e) == parts(&odd()), || {
        let hints = e.hints();
        format!("makes {:?} `{}`, hints {hints:?}, of the host's error {:?}", e.kind(), words(e), odd())
    })
}

pub(super) fn passes_on_an_error_of_denoise(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    passes_on(subject, options, Call::Denoise, &[0, 1, 2, 3, STEPS - 1])
}

pub(super) fn passes_on_an_error_of_noise(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    passes_on(subject, options, Call::Noise, &[0, 1])
}

pub(super) fn passes_on_an_error_of_step_done(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    passes_on(subject, options, Call::StepDone, &[0, 2, STEPS - 1])
}

/// Told by the report of the third step, or by the first evaluation after it.
pub(super) fn stops_soon_after_cancellation(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    let third = [(Call::StepDone, 2), (Call::Denoise, 3 * subject.evaluations as usize)];
    for (call, at) in third {
        let fault = Fault { call, at, error: Error::cancelled, lasts: true };
        let seen = Trial::steps(2 * STEPS, 0.1).fault(fault).by(subject, options)?;
        let Some((evaluations, _)) = seen.probe.failed_after else { continue };
        let cancelled = seen.result.as_ref().is_err_and(|e| e.kind() == ErrorKind::Cancelled);
        seen.ensure(cancelled, || match &seen.result {
            Ok(()) => "ends well although it was cancelled".into(),
            Err(e) => format!("ends with {:?} `{}` when cancelled", e.kind(), words(e)),
        })?;
        let more = seen.probe.evaluated.len() - evaluations;
        seen.ensure(more <= 1, || format!("makes {more} more evaluations after it was cancelled"))?;
    }
    Ok(())
}
