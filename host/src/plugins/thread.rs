//! A worker on a thread of this process: a panic or a hang of its plugin fails its job, a crash ends atelier.

use super::conn::{Conn, Pipes, lock};
use super::frame::{self, Out, Tag};
use super::link::{HostLink, Worker};
use super::{open, process, worker};
use atelier_sdk::{Error, ErrorKind, Result};
use std::io::PipeWriter;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A thread's stack, as the main thread's.
const STACK: usize = 8 << 20;

/// Another hand on the pipe that the host reads.
struct Thread(Mutex<PipeWriter>);

impl Worker for Thread {
    fn cut_off(&self) {
        // A thread cannot be ended. This wakes the host, which takes nothing from the worker any more.
        let _ = frame::write(&mut *lock(&self.0), Out::new(Tag::Err));
    }

    fn fate(&self) -> &'static str {
        "its thread is left behind, busy, until atelier ends"
    }

    fn verdict(&self, _: &std::io::Error) -> Error {
        Error::internal("the plugin's thread ended in the middle of its work")
    }
}

/// Starts a worker on a thread.
///
/// # Errors
/// The library is refused.
pub fn on_thread(
    name: &str,
    copy: &Path,
    sha256: &str,
    build_info: &str,
    stall: Duration,
) -> Result<Arc<Conn>> {
    let library = open::in_this_process(copy, sha256, build_info)?;
    let failed = |e| Error::new(ErrorKind::Environment, "cannot start a thread for the plugin").because(e);
    let (from_host, to_worker) = std::io::pipe().map_err(failed)?;
    let (from_worker, to_host) = std::io::pipe().map_err(failed)?;
    process::widen(&to_worker);
    process::widen(&to_host);
    let thread = Arc::new(Thread(Mutex::new(to_host.try_clone().map_err(failed)?)));
    let serve = move || {
        let conn = Conn::new(Box::new(Pipes::new(from_host, to_host)));
        worker::serve(&library, &conn);
        // The host holds the pipe open itself, so its end is not to be seen there.
        conn.tell(Out::new(Tag::Ok));
    };
    std::thread::Builder::new()
        .name(format!("plugin {name}"))
        .stack_size(STACK)
        .spawn(serve)
        .map_err(failed)?;
    let link = HostLink::new(from_worker, to_worker, thread, stall).map_err(failed)?;
    Ok(Conn::new(Box::new(link)))
}
