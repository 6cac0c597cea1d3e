//! A pipe that is read and written with a limit to the patience.
//!
//! Reads and writes block: a blocking read of a pipe wakes its reader at once, on the same core, where `poll` and sockets
//! take three to five times as long. A watch on a thread of its own interrupts them by a signal when the worker takes too
//! long or has ended.

use super::link::Worker;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
#[cfg(unix)]
use {super::watch::Watch, std::fs::File, std::os::fd::OwnedFd};

/// An end of a pipe.
#[cfg(unix)]
pub struct Pipe(File);

#[cfg(unix)]
macro_rules! ends {
    ($($end:ty),*) => {$(
        impl From<$end> for Pipe {
            fn from(end: $end) -> Self {
                Self(File::from(OwnedFd::from(end)))
            }
        }
    )*};
}

#[cfg(unix)]
ends!(std::process::ChildStdin, std::process::ChildStdout, io::PipeReader, io::PipeWriter);

/// An end of a pipe.
#[cfg(not(unix))]
pub enum Pipe {
    /// To read from.
    Read(Box<dyn Read + Send>),
    /// To write to.
    Write(Box<dyn Write + Send>),
}

/// A pipe to a worker. Its reads and writes end with [`io::ErrorKind::TimedOut`] when the worker takes longer than it
/// may, and with an end of file when it has ended, whoever else holds the other end.
pub struct Patient {
    pipe: Pipe,
    #[cfg(unix)]
    watch: Watch,
}

impl Patient {
    /// Around an end of a pipe; `limit` is in milliseconds.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new(pipe: Pipe, worker: Arc<dyn Worker>, limit: Arc<AtomicU64>) -> io::Result<Self> {
        #[cfg(unix)]
        return Ok(Self { pipe, watch: Watch::start(worker, limit)? });
        #[cfg(not(unix))]
        {
            let _ = (worker, limit);
            Ok(Self { pipe })
        }
    }

    /// Patience begins anew.
    pub fn begin(&mut self) {
        #[cfg(unix)]
        self.watch.begin();
    }

    /// Waits for something to read, for a moment.
    pub fn look(&self) {
        #[cfg(unix)]
        super::soon::readable(&self.pipe.0);
    }
}

#[cfg(unix)]
impl Patient {
    /// Tries until it works, as long as the worker may take.
    fn patiently<R>(
        &mut self,
        events: libc::c_short,
        mut attempt: impl FnMut(&File) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            match self.watch.during(|| attempt(&self.pipe.0)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
            if self.watch.is_expired() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // Somebody else may hold the other end open. What the worker sent before it ended is read first.
            if self.watch.has_ended() && !ready(&self.pipe.0, events)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Whether a pipe can be read or written now.
#[cfg(unix)]
fn ready(pipe: &File, events: libc::c_short) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let mut at = libc::pollfd { fd: pipe.as_raw_fd(), events, revents: 0 };
    // SAFETY: one valid entry, as the count says.
    match unsafe { libc::poll(&mut at, 1, 0) } {
        n if n >= 0 => Ok(n > 0),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(unix)]
impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.patiently(libc::POLLIN, |mut pipe| pipe.read(buf))
    }
}

#[cfg(unix)]
impl Write for Patient {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.patiently(libc::POLLOUT, |mut pipe| pipe.write(buf))
    }
    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.patiently(libc::POLLOUT, |mut pipe| pipe.write_vectored(parts))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Elsewhere pipes wait for ever: there is no watchdog.
#[cfg(not(unix))]
impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.pipe {
            Pipe::Read(reader) => reader.read(buf),
            Pipe::Write(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

#[cfg(not(unix))]
impl Write for Patient {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.pipe {
            Pipe::Write(writer) => writer.write(buf),
            Pipe::Read(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.pipe {
            Pipe::Write(writer) => writer.flush(),
            Pipe::Read(_) => Ok(()),
        }
    }
}

#[cfg(not(unix))]
impl From<std::process::ChildStdout> for Pipe {
    fn from(end: std::process::ChildStdout) -> Self {
        Self::Read(Box::new(end))
    }
}

#[cfg(not(unix))]
impl From<std::process::ChildStdin> for Pipe {
    fn from(end: std::process::ChildStdin) -> Self {
        Self::Write(Box::new(end))
    }
}

#[cfg(not(unix))]
impl From<io::PipeReader> for Pipe {
    fn from(end: io::PipeReader) -> Self {
        Self::Read(Box::new(end))
    }
}

#[cfg(not(unix))]
impl From<io::PipeWriter> for Pipe {
    fn from(end: io::PipeWriter) -> Self {
        Self::Write(Box::new(end))
    }
}
