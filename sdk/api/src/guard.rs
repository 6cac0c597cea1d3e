//! A panic in plugin code is an error, and never crosses a boundary.
//!
//! Each library has its own copy of the standard library, which sees another copy's panic as a foreign exception
//! and ends the process. So every call between host and plugin is guarded on the side that runs it.

use crate::error::{Error, ErrorKind, Result};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Where the last panic of this thread happened, while one is being caught.
    static SITE: RefCell<Option<PanicSite>> = const { RefCell::new(None) };
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Where a panic happened; `Debug` has the backtrace.
#[derive(Default)]
struct PanicSite {
    place: String,
    backtrace: String,
}

/// Runs code that may panic; a panic becomes an error of kind [`ErrorKind::Panic`] that says where it happened.
///
/// # Errors
/// What `f` gives, or its panic.
pub fn guard<R>(what: &str, f: impl FnOnce() -> Result<R>) -> Result<R> {
    install_hook();
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(f));
    DEPTH.set(DEPTH.get() - 1);
    result.unwrap_or_else(|payload| {
        let message = format!("{what} panicked: {}", text(payload.as_ref()));
        // A payload's own drop may panic as well.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        let site = SITE.take().unwrap_or_default();
        Err(Error::new(ErrorKind::Panic, message)
            .because(site)
            .hint("this is a bug; the log has the backtrace"))
    })
}

fn text(payload: &(dyn std::any::Any + Send)) -> &str {
    let literal = payload.downcast_ref::<&str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Remembers place and backtrace of a caught panic instead of printing them; other panics print as always.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let old = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                return old(info);
            }
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let backtrace = std::backtrace::Backtrace::force_capture().to_string();
            SITE.set(Some(PanicSite { place, backtrace }));
        }));
    });
}

impl fmt::Display for PanicSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}", self.place)
    }
}

impl fmt::Debug for PanicSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}\n{}", self.place, self.backtrace)
    }
}

impl std::error::Error for PanicSite {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_place_and_backtrace() {
        let e = guard::<()>("engine `x`", || panic!("boom {}", 7)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Panic);
        assert_eq!(e.message(), "engine `x` panicked: boom 7");
        assert!(e.chain()[1].contains("guard.rs"), "{:?}", e.chain());
        assert!(format!("{e:?}").contains("guard::tests"));
        assert!(!e.chain()[1].contains("guard::tests"));
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        let e = guard::<()>("x", || std::panic::panic_any(Bomb)).unwrap_err();
        assert_eq!(e.message(), "x panicked: no message");
    }
}
