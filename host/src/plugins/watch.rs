//! Interrupts a blocking call that takes too long.

use super::conn::lock;
use super::link::Worker;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a call is looked at.
const SLICE: Duration = Duration::from_millis(100);

/// The signal that interrupts. By itself it does nothing, in any program.
const SIGNAL: libc::c_int = libc::SIGURG;

/// A watch over the calls of one pipe.
pub struct Watch {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    worker: Arc<dyn Worker>,
    /// Milliseconds that the worker may take.
    limit: Arc<AtomicU64>,
    /// The thread that is in a call. Locked while it is interrupted, so that it is still there then.
    inside: Mutex<Option<Caller>>,
    /// Milliseconds that calls have taken since patience began.
    waited: AtomicU64,
    expired: AtomicBool,
    ended: AtomicBool,
    over: AtomicBool,
}

/// A thread that makes a call.
struct Caller(libc::pthread_t);

// SAFETY: it is a name, which means the same in every thread. Some C libraries have a pointer as names, which nobody
// here follows.
unsafe impl Send for Caller {}

impl Caller {
    fn this_thread() -> Self {
        // SAFETY: names the calling thread.
        Self(unsafe { libc::pthread_self() })
    }

    /// # Safety
    /// The thread is still there.
    unsafe fn interrupt(&self) {
        // SAFETY: the caller's promise.
        unsafe { libc::pthread_kill(self.0, SIGNAL) };
    }
}

impl Watch {
    /// Starts to watch.
    ///
    /// # Errors
    /// The system refuses a thread or the signal.
    pub fn start(worker: Arc<dyn Worker>, limit: Arc<AtomicU64>) -> io::Result<Self> {
        make_signal_interrupt()?;
        let state = Arc::new(State {
            worker,
            limit,
            inside: Mutex::new(None),
            waited: AtomicU64::new(0),
            expired: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let its = state.clone();
        let thread = thread::Builder::new().name("plugin watch".into()).spawn(move || its.run())?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// Patience begins anew.
    pub fn begin(&self) {
        self.state.waited.store(0, Ordering::Release);
        self.state.expired.store(false, Ordering::Release);
    }

    /// Runs a call that may block; it ends with [`io::ErrorKind::Interrupted`] when there is something to look at.
    pub fn during<R>(&self, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        *lock(&self.state.inside) = Some(Caller::this_thread());
        let result = call();
        *lock(&self.state.inside) = None;
        result
    }

    /// Whether the worker has taken longer than it may.
    pub fn is_expired(&self) -> bool {
        self.state.expired.load(Ordering::Acquire)
    }

    /// Whether the worker has ended.
    pub fn has_ended(&self) -> bool {
        self.state.ended.load(Ordering::Acquire)
    }
}

impl State {
    fn run(&self) {
        let mut looked = Instant::now();
        while !self.over.load(Ordering::Acquire) {
            thread::park_timeout(SLICE);
            // Not the clock: a machine that slept, or a host that was stopped, has not waited.
            let passed = looked.elapsed().min(SLICE * 2);
            looked = Instant::now();
            let inside = lock(&self.inside);
            let Some(caller) = &*inside else { continue };
            let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            let waited = self.waited.fetch_add(passed, Ordering::AcqRel).saturating_add(passed);
            let expired = waited >= self.limit.load(Ordering::Acquire);
            let ended = self.worker.has_ended();
            self.expired.fetch_or(expired, Ordering::AcqRel);
            self.ended.fetch_or(ended, Ordering::AcqRel);
            if expired || ended {
                // Again with every slice: one that comes just before the call begins is lost.
                // SAFETY: the thread is in `during`, which it cannot leave while `inside` is locked.
                unsafe { caller.interrupt() };
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

extern "C" fn nothing(_: libc::c_int) {}

/// Gives the signal a handler, without which it would not interrupt a call; without `SA_RESTART`, with which the call
/// would go on.
fn make_signal_interrupt() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| {
        // SAFETY: a handler that does nothing, for a signal that is ignored otherwise; the structure is whole.
        let done = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(SIGNAL, &action, std::ptr::null_mut())
        };
        if done != 0 {
            result = Err(io::Error::last_os_error());
        }
    });
    result
}
