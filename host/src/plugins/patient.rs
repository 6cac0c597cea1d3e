//! A pipe that is read and written with a limit to the patience.

use super::link::Worker;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
#[cfg(unix)]
use std::{fs::File, os::fd::OwnedFd, sync::atomic::Ordering, time::Instant};

/// How often a pipe that has nothing is looked at again.
#[cfg(unix)]
const SLICE: Duration = Duration::from_millis(100);

/// An end of a pipe.
#[cfg(unix)]
pub struct Pipe(File);

#[cfg(unix)]
impl<T: Into<OwnedFd>> From<T> for Pipe {
    fn from(end: T) -> Self {
        Self(File::from(end.into()))
    }
}

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
    #[cfg_attr(not(unix), allow(dead_code))]
    worker: Arc<dyn Worker>,
    #[cfg_attr(not(unix), allow(dead_code))]
    limit: Arc<AtomicU64>,
    waited: Duration,
}

impl Patient {
    /// Around an end of a pipe; `limit` is in milliseconds.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new(pipe: Pipe, worker: Arc<dyn Worker>, limit: Arc<AtomicU64>) -> io::Result<Self> {
        #[cfg(unix)]
        without_blocking(&pipe.0)?;
        Ok(Self { pipe, worker, limit, waited: Duration::ZERO })
    }

    /// Patience begins anew.
    pub fn begin(&mut self) {
        self.waited = Duration::ZERO;
    }
}

#[cfg(unix)]
fn without_blocking(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let fd = file.as_raw_fd();
    // SAFETY: reads and sets the flags of an open file; the other end of the pipe has flags of its own.
    let set = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) >= 0
    };
    if set { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(unix)]
impl Patient {
    /// Waits until the pipe can be read or written.
    fn wait(&mut self, events: libc::c_short) -> io::Result<()> {
        loop {
            let began = Instant::now();
            let ready = self.poll(events, SLICE)?;
            // Not the clock: a machine that slept, or a host that was stopped, has not waited.
            self.waited += began.elapsed().min(SLICE * 2);
            if self.waited >= Duration::from_millis(self.limit.load(Ordering::Acquire)) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if ready {
                return Ok(());
            }
            if self.worker.has_ended() && !self.poll(events, Duration::ZERO)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn poll(&self, events: libc::c_short, time: Duration) -> io::Result<bool> {
        use std::os::fd::AsRawFd;
        let mut at = libc::pollfd { fd: self.pipe.0.as_raw_fd(), events, revents: 0 };
        // SAFETY: one valid entry, as the count says.
        match unsafe { libc::poll(&mut at, 1, i32::try_from(time.as_millis()).unwrap_or(i32::MAX)) } {
            0 => Ok(false),
            n if n > 0 => Ok(true),
            _ => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => Ok(false),
                e => Err(e),
            },
        }
    }

    fn patiently<R>(
        &mut self,
        events: libc::c_short,
        mut attempt: impl FnMut(&File) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            match attempt(&self.pipe.0) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait(events)?,
                other => return other,
            }
        }
    }
}

#[cfg(unix)]
impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.patiently(libc::POLLIN, |mut file| file.read(buf))
    }
}

#[cfg(unix)]
impl Write for Patient {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.patiently(libc::POLLOUT, |mut file| file.write(buf))
    }
    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.patiently(libc::POLLOUT, |mut file| file.write_vectored(parts))
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
