//! A worker in a process of its own: whatever its plugin does, only the worker ends.

use super::conn::{Conn, Link, lock, unexpected};
use super::frame::{Frame, Tag};
use super::link::{FAREWELL, HostLink, Worker};
use super::printed::Printed;
use atelier_sdk::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The hidden command that is a worker.
pub const COMMAND: &str = "plugin-worker";

/// Starts a worker on a library. Gives the conversation and what the worker says first.
///
/// # Errors
/// It cannot be started, the library is refused, or it ends or hangs while it is being opened.
pub fn start(copy: &Path, sha256: &str, stall: Duration) -> Result<(Arc<Conn>, Frame)> {
    let link = spawn(copy, sha256, stall)?;
    let hello = greeted(&link)?;
    Ok((Conn::new(Box::new(link)), hello))
}

/// What a worker says first.
///
/// # Errors
/// The library is refused, or the worker ends or hangs while it is being opened.
pub fn greeted(link: &HostLink) -> Result<Frame> {
    let hello = link.recv()?;
    match hello.tag {
        Tag::Ok => Ok(hello),
        Tag::Err => Err(hello.error()),
        other => Err(unexpected(other)),
    }
}

struct Process {
    child: Mutex<Child>,
    printed: Arc<Printed>,
}

fn failed(e: std::io::Error) -> Error {
    Error::new(ErrorKind::Environment, "cannot start a process for the plugin").because(e)
}

/// This program, also when its file was replaced since it was started.
fn this_program() -> std::io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

fn spawn(copy: &Path, sha256: &str, limit: Duration) -> Result<HostLink> {
    let mut command = Command::new(this_program().map_err(failed)?);
    command.arg(COMMAND).arg(copy).arg(sha256);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C is for the host, which tells the plugin to stop in its own way. And what the plugin starts can be ended
    // with it.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(failed)?;
    let pipes = child.stdout.take().zip(child.stdin.take());
    let stderr = child.stderr.take();
    let printed = Arc::new(Printed::default());
    let process = Arc::new(Process { child: Mutex::new(child), printed: printed.clone() });
    let (Some((reader, writer)), Some(stderr)) = (pipes, stderr) else {
        process.cut_off();
        return Err(Error::internal("a process without the pipes that were asked for"));
    };
    widen(&reader);
    widen(&writer);
    let (reader, writer) = (reader.into(), writer.into());
    let following = thread::Builder::new().name("plugin output".into()).spawn(move || printed.follow(stderr));
    let link = following.and_then(|_| HostLink::new(reader, writer, process.clone(), limit));
    link.map_err(|e| {
        process.farewell();
        failed(e)
    })
}

impl Worker for Process {
    fn has_ended(&self) -> bool {
        matches!(lock(&self.child).try_wait(), Ok(Some(_)) | Err(_))
    }

    fn cut_off(&self) {
        let mut child = lock(&self.child);
        end_group(&child);
        let _ = child.kill();
    }

    fn fate(&self) -> &'static str {
        "its process was ended"
    }

    fn verdict(&self, e: &std::io::Error) -> Error {
        let status = self.end(FAREWELL);
        let how = status.map_or("is gone".to_string(), describe);
        let kind = if status.is_some_and(was_killed) { ErrorKind::Environment } else { ErrorKind::Internal };
        let error = Error::new(kind, format!("the plugin's process {how} in the middle of its work"));
        let printed = self.printed.tail();
        // That the pipe ended says nothing more, unless what came through it was nonsense.
        match (printed.is_empty(), e.kind()) {
            (false, _) => error.because(format!("it printed: {}", printed.join(" | "))),
            (true, std::io::ErrorKind::InvalidData) => error.because(e.to_string()),
            (true, _) => error,
        }
    }

    fn farewell(&self) {
        self.end(FAREWELL);
    }
}

impl Process {
    /// Waits for the worker to end, ends it if it takes too long, and what it has started with it.
    fn end(&self, patience: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        loop {
            let mut child = lock(&self.child);
            match child.try_wait() {
                Ok(None) if began.elapsed() < patience => {}
                ended => {
                    end_group(&child);
                    let _ = child.kill();
                    return ended.ok().flatten().or_else(|| child.wait().ok());
                }
            }
            drop(child);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Ends every process of the worker's group: what the plugin has started would otherwise live on.
#[cfg(unix)]
fn end_group(child: &Child) {
    let Ok(group) = i32::try_from(child.id()) else { return };
    // SAFETY: a signal to the group that this child was started in. Where none of it is left, nothing happens.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}

#[cfg(not(unix))]
fn end_group(_: &Child) {}

#[cfg(unix)]
fn was_killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL)
}

#[cfg(not(unix))]
fn was_killed(_: ExitStatus) -> bool {
    false
}

/// Gives a pipe room for the latents of a common image, so that a frame is written in one go.
#[cfg(target_os = "linux")]
pub fn widen(pipe: &impl std::os::fd::AsRawFd) {
    // SAFETY: asks for a larger buffer of an open pipe. A system that refuses keeps the small one, which is slower.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, 1 << 20) };
}

/// Elsewhere pipes have the size that the system gives them.
#[cfg(not(target_os = "linux"))]
pub fn widen<P>(_: &P) {}

#[cfg(unix)]
fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    let name = |signal| match signal {
        libc::SIGSEGV => " (segmentation fault)",
        libc::SIGABRT => " (abort)",
        libc::SIGBUS => " (bus error)",
        libc::SIGILL => " (illegal instruction)",
        libc::SIGFPE => " (arithmetic error)",
        libc::SIGKILL => " (killed, perhaps for memory)",
        _ => "",
    };
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by signal {signal}{}", name(signal)),
        (None, code) => format!("ended with exit code {}", code.unwrap_or_default()),
    }
}

#[cfg(not(unix))]
fn describe(status: ExitStatus) -> String {
    format!("ended with {status}")
}
