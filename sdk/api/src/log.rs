//! The host's log, from inside a plugin.
//!
//! A plugin library has its own copy of every logging crate, so what it logs there goes nowhere. These lines reach
//! the host's log; with the feature `tracing`, what a library logs with the `tracing` crate does, too.

use atelier_abi::HostFns;
use std::sync::OnceLock;

static HOST: OnceLock<HostFns> = OnceLock::new();

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// Something is odd.
    Warn = 2,
    /// Worth knowing.
    Info = 3,
    /// For those who look closely.
    Debug = 4,
    /// For those who look at everything.
    Trace = 5,
}

/// Writes a line to the host's log. Without a host, as in a unit test, to standard error.
pub fn log(level: Level, target: &str, message: &str) {
    match HOST.get() {
        Some(host) => (host.log)(level as u8, target.into(), message.into()),
        None => eprintln!("{level:?} {target}: {message}"),
    }
}

/// Connects this copy of the sdk to a host's log; the first host stays.
pub fn connect(host: HostFns) {
    let first = HOST.set(host).is_ok();
    #[cfg(feature = "tracing")]
    if first {
        // A library that has set a subscriber of its own keeps it.
        let _ = tracing::subscriber::set_global_default(forward::Forward);
    }
    let _ = first;
}

#[cfg(feature = "tracing")]
mod forward {
    use super::Level;
    use std::fmt::Write;
    use tracing::field::{Field, Visit};
    use tracing::{Event, Metadata, Subscriber, span};

    /// Sends events to the host; spans are not kept.
    pub struct Forward;

    struct Text(String);

    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            let _ = match field.name() {
                "message" => write!(self.0, "{value:?}"),
                name => write!(self.0, " {name}={value:?}"),
            };
        }
    }

    impl Subscriber for Forward {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut text = Text(String::new());
            event.record(&mut text);
            let level = match *event.metadata().level() {
                tracing::Level::ERROR => Level::Error,
                tracing::Level::WARN => Level::Warn,
                tracing::Level::INFO => Level::Info,
                tracing::Level::DEBUG => Level::Debug,
                tracing::Level::TRACE => Level::Trace,
            };
            super::log(level, event.metadata().target(), &text.0);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }
}
