//! A worker on a thread of this process: a panic or a hang of its plugin fails its job, a crash ends atelier.

use super::conn::{Conn, Pipes};
use super::frame::{Frame, Tag};
use super::link::{HostLink, Worker};
use super::{open, process, worker};
use atelier_sdk::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A thread's stack, as the main thread's.
const STACK: usize = 8 << 20;

/// Whether the thread has ended.
struct Thread(Arc<AtomicBool>);

/// Says so when the thread ends, however it does.
struct Ends(Arc<AtomicBool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Worker for Thread {
    fn has_ended(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// A thread cannot be ended.
    fn cut_off(&self) {}

    fn fate(&self) -> &'static str {
        "its thread is left behind, busy, until atelier ends"
    }

    fn verdict(&self, _: &std::io::Error) -> Error {
        Error::internal("the plugin's thread ended in the middle of its work")
    }
}

/// Starts a worker on a thread. The library is opened there, too: it may hang while it is.
///
/// # Errors
/// The library is refused, or hangs.
pub fn on_thread(
    name: &str,
    copy: &Path,
    sha256: &str,
    build_info: &str,
    stall: Duration,
) -> Result<Arc<Conn>> {
    let failed = |e| Error::new(ErrorKind::Environment, "cannot start a thread for the plugin").because(e);
    let (from_host, to_worker) = std::io::pipe().map_err(failed)?;
    let (from_worker, to_host) = std::io::pipe().map_err(failed)?;
    process::widen(&to_worker);
    process::widen(&to_host);
    let over = Arc::new(AtomicBool::new(false));
    let ends = Ends(over.clone());
    let (copy, sha256, build_info) = (copy.to_path_buf(), sha256.to_string(), build_info.to_string());
    let serve = move || {
        let _ends = ends;
        let conn = Conn::of_worker(Box::new(Pipes::new(from_host, to_host)));
        match open::in_this_process(&copy, &sha256, &build_info) {
            Ok(library) => {
                conn.tell(Frame::new(Tag::Ok).out());
                worker::serve(&library, &conn);
            }
            Err(e) => conn.tell(Frame::of_error(&e).out()),
        }
    };
    std::thread::Builder::new()
        .name(format!("plugin {name}"))
        .stack_size(STACK)
        .spawn(serve)
        .map_err(failed)?;
    let link =
        HostLink::new(from_worker.into(), to_worker.into(), Arc::new(Thread(over)), stall).map_err(failed)?;
    process::greeted(&link)?;
    Ok(Conn::new(Box::new(link)))
}
