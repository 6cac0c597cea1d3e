//! Running code that may panic, or never return.

use super::report::{Check, Checked, Outcome, Report, fail};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long one run may take. The longest takes about a second.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Ends a check whose body panics as a failed one.
pub(super) fn guarded(body: impl FnOnce() -> Checked) -> Outcome {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(outcome)) => outcome,
        Err(payload) => Outcome::Failed(panicked(&*payload)),
    }
}

/// Runs `body` on a thread of its own: a thread cannot be stopped, but it can be left behind.
pub(super) fn within<T: Send + 'static>(
    patience: Duration,
    body: impl FnOnce() -> T + Send + 'static,
) -> Checked<T> {
    let (sender, receiver) = sync_channel(1);
    let work = move || {
        // Nobody listens any more to a thread that was left behind.
        let _ = sender.send(catch_unwind(AssertUnwindSafe(body)));
    };
    if let Err(e) = thread::Builder::new().name("testkit".into()).spawn(work) {
        return fail(format!("cannot be run, for want of a thread: {e}"));
    }
    match receiver.recv_timeout(patience) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(payload)) => fail(panicked(&*payload)),
        Err(RecvTimeoutError::Timeout) => fail(format!("did not return within {patience:?}")),
        Err(RecvTimeoutError::Disconnected) => fail("ended its thread"),
    }
}

fn panicked(payload: &(dyn Any + Send)) -> String {
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    format!("panics: {message}")
}

/// Runs `checks` one after the other. Once one has used up its patience the rest would most likely do so too,
/// each leaving a busy thread behind: they are skipped.
pub(super) fn report<C: FnOnce() -> Outcome>(
    key: &str,
    patience: Duration,
    checks: impl Iterator<Item = (&'static str, C)>,
) -> Report {
    let mut hangs = None;
    let checks = checks.map(|(name, check)| {
        if let Some(first) = hangs {
            return Check { name, outcome: Outcome::Skipped(format!("`{first}` already took too long")) };
        }
        let start = Instant::now();
        let outcome = check();
        if start.elapsed() >= patience {
            hangs = Some(name);
        }
        Check { name, outcome }
    });
    let checks = checks.collect();
    Report { key: key.into(), checks }
}
