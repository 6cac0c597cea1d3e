//! The host's end of a conversation: pipes to a worker, and an eye on how long it takes.

use super::conn::{Link, lock};
use super::frame::{self, Frame, Out, Tag};
use atelier_sdk::{Error, ErrorKind, Result};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a worker may take to end when it is no longer needed.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// A worker, beside its pipes.
pub trait Worker: Send + Sync + 'static {
    /// Makes the host's read return, whatever the worker does: ends it, if that can be done.
    fn cut_off(&self);
    /// What became of a worker that was cut off.
    fn fate(&self) -> &'static str;
    /// Why the worker is gone.
    fn verdict(&self, e: &io::Error) -> Error;
    /// Called when its pipes are closed and nothing is waited for any more.
    fn farewell(&self) {}
}

/// The host's end.
pub struct HostLink {
    reader: Mutex<Box<dyn Read + Send>>,
    writer: Mutex<Option<Box<dyn Write + Send>>>,
    worker: Arc<dyn Worker>,
    watch: Arc<Watch>,
    watcher: Option<JoinHandle<()>>,
}

/// Since when the host waits for the worker.
struct Watch {
    began: Instant,
    /// Milliseconds after `began`, plus 1; 0 while the host does not wait.
    waiting: AtomicU64,
    /// How long it may wait, in milliseconds.
    limit: AtomicU64,
    stalled: AtomicBool,
    over: AtomicBool,
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

impl Watch {
    fn now(&self) -> u64 {
        millis(self.began.elapsed()).saturating_add(1)
    }

    /// Cuts the worker off when the host has waited too long: then the host's read ends, too.
    fn run(&self, worker: &dyn Worker) {
        while !self.over.load(Ordering::Acquire) {
            let limit = self.limit.load(Ordering::Acquire);
            let since = self.waiting.load(Ordering::Acquire);
            if since != 0 && self.now().saturating_sub(since) > limit {
                self.stalled.store(true, Ordering::Release);
                return worker.cut_off();
            }
            thread::park_timeout(Duration::from_millis(limit.clamp(4, 1000) / 4));
        }
    }
}

impl HostLink {
    /// A link over these pipes to a worker that may take `limit` for each answer.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        worker: Arc<dyn Worker>,
        limit: Duration,
    ) -> io::Result<Self> {
        let watch = Arc::new(Watch {
            began: Instant::now(),
            waiting: AtomicU64::new(0),
            limit: AtomicU64::new(millis(limit)),
            stalled: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let (its_watch, its_worker) = (watch.clone(), worker.clone());
        let watcher = thread::Builder::new()
            .name("plugin watch".into())
            .spawn(move || its_watch.run(its_worker.as_ref()))?;
        Ok(Self {
            reader: Mutex::new(Box::new(reader)),
            writer: Mutex::new(Some(Box::new(writer))),
            worker,
            watch,
            watcher: Some(watcher),
        })
    }

    fn gone(&self, e: &io::Error) -> Error {
        if self.watch.stalled.load(Ordering::Acquire) { self.stalled() } else { self.worker.verdict(e) }
    }

    fn stalled(&self) -> Error {
        let limit = Duration::from_millis(self.watch.limit.load(Ordering::Acquire)).as_secs_f64();
        let seconds = if limit == 1.0 { "1 second".to_string() } else { format!("{limit} seconds") };
        let message = format!("the plugin showed no sign of life for {seconds}: {}", self.worker.fate());
        Error::new(ErrorKind::Timeout, message)
            .hint("`plugins: {stall_seconds: N}` in atelier.yaml gives it more time")
    }

    /// Reads on until the worker has ended, so that what it logs at the end is heard; for a short while.
    fn hear_out(&self) {
        self.watch.limit.fetch_min(millis(FAREWELL), Ordering::AcqRel);
        self.watch.waiting.store(self.watch.now(), Ordering::Release);
        while let Ok(frame) = frame::read(&mut *lock(&self.reader)) {
            match frame.tag {
                Tag::Log => super::log::received(&frame),
                // A thread's last word.
                Tag::Ok => return,
                _ => {}
            }
            if self.watch.stalled.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

impl Link for HostLink {
    fn send(&self, frame: Out<'_>) -> Result<()> {
        let written = match lock(&self.writer).as_mut() {
            Some(writer) => frame::write(writer, frame),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|e| self.gone(&e))
    }

    fn recv(&self) -> Result<Frame> {
        self.watch.waiting.store(self.watch.now(), Ordering::Release);
        let frame = frame::read(&mut *lock(&self.reader));
        self.watch.waiting.store(0, Ordering::Release);
        match frame {
            // What comes from a worker that was cut off is not an answer.
            Ok(_) if self.watch.stalled.load(Ordering::Acquire) => Err(self.stalled()),
            Ok(frame) => Ok(frame),
            Err(e) => Err(self.gone(&e)),
        }
    }

    fn close(&self) {
        lock(&self.writer).take();
        self.watch.stalled.store(true, Ordering::Release);
        self.worker.cut_off();
    }
}

impl Drop for HostLink {
    fn drop(&mut self) {
        // The worker reads the end of its input, and ends.
        lock(&self.writer).take();
        if !self.watch.stalled.load(Ordering::Acquire) {
            self.hear_out();
        }
        self.watch.over.store(true, Ordering::Release);
        self.worker.farewell();
        if let Some(watcher) = self.watcher.take() {
            watcher.thread().unpark();
            let _ = watcher.join();
        }
    }
}
