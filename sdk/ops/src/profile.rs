//! Spans of a profile.
//!
//! Operations, layers and networks each open one while they work. What becomes of them is for whoever listens to
//! `tracing`; the host does with `--profile`. When nobody does, a span is one comparison of a level.

/// The target of all spans of a profile, by which a listener tells them from the log.
pub const PROFILE: &str = "atelier::profile";

/// Opens a span of the profile, which lasts as long as the value is held:
/// `let _span = span!("linear", x = ?x.dims());`. The fields are only evaluated if somebody listens.
///
/// Spans lie within each other by their times on one thread; none is entered, and so they can be moved and stored.
#[macro_export]
macro_rules! span {
    ($name:literal $(, $($fields:tt)+)?) => {
        $crate::tracing::trace_span!(target: $crate::PROFILE, $name, $($($fields)+)?)
    };
}
