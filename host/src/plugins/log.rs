//! Log lines of plugins.

use super::conn::Conn;
use super::frame::{Frame, Out, Tag};
use abi_stable::std_types::RStr;
use atelier_abi::HostFns;
use std::panic::catch_unwind;
use std::sync::{Arc, OnceLock};

/// The services of this process to a library that it loads.
pub const HOST: HostFns = HostFns { log: from_library };

/// Where the log lines of this process go, when it is a worker.
static TO_HOST: OnceLock<Arc<Conn>> = OnceLock::new();

/// Makes this process a worker: what its plugin logs goes to the host.
pub fn forward_to(conn: Arc<Conn>) {
    // A process is a worker once.
    let _ = TO_HOST.set(conn);
}

extern "C" fn from_library(level: u8, target: RStr<'_>, message: RStr<'_>) {
    // A panic must not leave through a plugin.
    let _ = catch_unwind(|| match TO_HOST.get() {
        Some(conn) => {
            let json = serde_json::to_string(&(target.as_str(), message.as_str())).unwrap_or_default();
            conn.tell(Out { n: u64::from(level), json: &json, ..Out::new(Tag::Log) });
        }
        None => write(u64::from(level), &target, &message),
    });
}

/// A line that a worker sent.
pub fn received(frame: &Frame) {
    if let Ok((target, message)) = frame.parse::<(String, String)>() {
        write(frame.n, &target, &message);
    }
}

fn write(level: u64, target: &str, message: &str) {
    match level {
        0 | 1 => tracing::error!(plugin = target, "{message}"),
        2 => tracing::warn!(plugin = target, "{message}"),
        3 => tracing::info!(plugin = target, "{message}"),
        4 => tracing::debug!(plugin = target, "{message}"),
        _ => tracing::trace!(plugin = target, "{message}"),
    }
}
