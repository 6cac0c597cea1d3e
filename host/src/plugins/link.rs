//! The host's end of a conversation: pipes to a worker, and an eye on how long it takes.

use super::conn::{Link, lock};
use super::frame::{self, Frame, Out, Tag};
use super::patient::{Patient, Pipe};
use atelier_sdk::{Error, ErrorKind, Result};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a worker may take to end when it is no longer needed.
pub const FAREWELL: Duration = Duration::from_secs(2);

/// A worker, beside its pipes.
pub trait Worker: Send + Sync + 'static {
    /// Whether it has ended, although its pipes may still be open.
    fn has_ended(&self) -> bool;
    /// Ends it, and all that it has started, if that can be done.
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
    reader: Mutex<Patient>,
    writer: Mutex<Option<Patient>>,
    worker: Arc<dyn Worker>,
    /// How long the worker may take, in milliseconds.
    limit: Arc<AtomicU64>,
    /// Why nothing is asked of the worker any more: kind and message.
    over: Mutex<Option<(ErrorKind, String)>>,
}

impl HostLink {
    /// A link over these pipes to a worker that may take `limit` for each answer.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new(reader: Pipe, writer: Pipe, worker: Arc<dyn Worker>, limit: Duration) -> io::Result<Self> {
        let limit = Arc::new(AtomicU64::new(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)));
        Ok(Self {
            reader: Mutex::new(Patient::new(reader, worker.clone(), limit.clone())?),
            writer: Mutex::new(Some(Patient::new(writer, worker.clone(), limit.clone())?)),
            worker,
            limit,
            over: Mutex::default(),
        })
    }

    fn gone(&self, e: &io::Error) -> Error {
        if e.kind() != io::ErrorKind::TimedOut {
            return self.worker.verdict(e);
        }
        let limit = Duration::from_millis(self.limit.load(Ordering::Acquire)).as_secs_f64();
        let seconds = if limit == 1.0 { "1 second".to_string() } else { format!("{limit} seconds") };
        let message = format!("the plugin showed no sign of life for {seconds}: {}", self.worker.fate());
        self.end(ErrorKind::Timeout, message)
    }

    fn end(&self, kind: ErrorKind, message: String) -> Error {
        self.worker.cut_off();
        *lock(&self.over) = Some((kind, message.clone()));
        ended(kind, message)
    }

    /// A worker that was given up on is asked nothing, and what comes from it is no answer.
    fn check(&self) -> Result<()> {
        match lock(&self.over).as_ref() {
            None => Ok(()),
            Some((kind, message)) => Err(ended(*kind, message.clone())),
        }
    }

    /// Reads on until the worker has ended, so that what it logs at the end is heard; for a short while.
    fn hear_out(&self) {
        self.limit.fetch_min(u64::try_from(FAREWELL.as_millis()).unwrap_or(u64::MAX), Ordering::AcqRel);
        let mut reader = lock(&self.reader);
        reader.begin();
        while let Ok(frame) = frame::read(&mut *reader) {
            if frame.tag == Tag::Log {
                super::log::received(&frame);
            }
        }
    }
}

fn ended(kind: ErrorKind, message: String) -> Error {
    let e = Error::new(kind, message);
    match kind {
        ErrorKind::Timeout => e.hint("`plugins: {stall_seconds: N}` in atelier.yaml gives it more time"),
        _ => e,
    }
}

impl Link for HostLink {
    fn send(&self, frame: Out<'_>) -> Result<()> {
        self.check()?;
        let written = match lock(&self.writer).as_mut() {
            Some(writer) => {
                writer.begin();
                frame::write(writer, frame)
            }
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|e| self.gone(&e))
    }

    fn recv(&self) -> Result<Frame> {
        self.check()?;
        let mut reader = lock(&self.reader);
        reader.begin();
        loop {
            reader.look();
            match frame::read(&mut *reader) {
                // A plugin that logs does not thereby answer: the time runs on.
                Ok(frame) if frame.tag == Tag::Log => super::log::received(&frame),
                Ok(frame) => return Ok(frame),
                Err(e) => return Err(self.gone(&e)),
            }
        }
    }

    fn close(&self) {
        self.end(ErrorKind::Internal, "the plugin was given up on".into());
    }
}

impl Drop for HostLink {
    fn drop(&mut self) {
        // The worker reads the end of its input, and ends.
        lock(&self.writer).take();
        if self.check().is_ok() {
            self.hear_out();
        }
        self.worker.farewell();
    }
}
