//! A worker in a process of its own: whatever its plugin does, only the worker ends.

use super::conn::{Conn, Link, lock};
use super::frame::{Frame, Tag};
use super::link::{FAREWELL, HostLink, Worker};
use atelier_sdk::{Error, ErrorKind, Result};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The hidden command that is a worker.
pub const COMMAND: &str = "plugin-worker";
/// How much of what it printed last is told when it crashes.
const TAIL: usize = 5;

/// Starts a worker on a library. Gives the conversation and what the worker says first.
///
/// # Errors
/// It cannot be started, the library is refused, or it ends or hangs while it is being opened.
pub fn start(copy: &Path, sha256: &str, stall: Duration) -> Result<(Arc<Conn>, Frame)> {
    let link = spawn(copy, sha256, stall)?;
    let hello = link.recv()?;
    if hello.tag == Tag::Err {
        return Err(hello.error());
    }
    Ok((Conn::new(Box::new(link)), hello))
}

struct Process {
    child: Mutex<Child>,
    printed: Mutex<Option<JoinHandle<Vec<String>>>>,
}

fn failed(e: std::io::Error) -> Error {
    Error::new(ErrorKind::Environment, "cannot start a process for the plugin").because(e)
}

fn spawn(copy: &Path, sha256: &str, limit: Duration) -> Result<HostLink> {
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg(COMMAND).arg(copy).arg(sha256);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C is for the host, which tells the plugin to stop in its own way.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(failed)?;
    let (Some(writer), Some(reader), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Error::internal("a process without the pipes that were asked for"));
    };
    widen(&writer);
    widen(&reader);
    let printed = thread::Builder::new().name("plugin output".into()).spawn(move || follow(stderr));
    let printed = Mutex::new(Some(printed.map_err(failed)?));
    let process = Arc::new(Process { child: Mutex::new(child), printed });
    HostLink::new(reader, writer, process, limit).map_err(failed)
}

impl Worker for Process {
    fn cut_off(&self) {
        let _ = lock(&self.child).kill();
    }

    fn fate(&self) -> &'static str {
        "its process was ended"
    }

    fn verdict(&self, e: &std::io::Error) -> Error {
        let how = self.end(FAREWELL).map_or("is gone".to_string(), describe);
        let error = Error::internal(format!("the plugin's process {how} in the middle of its work"));
        let printed = lock(&self.printed).take().and_then(|t| t.join().ok()).unwrap_or_default();
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
    /// Waits for the worker to end, and ends it if it takes too long.
    fn end(&self, patience: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        loop {
            let mut child = lock(&self.child);
            match child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if began.elapsed() < patience => {}
                _ => {
                    let _ = child.kill();
                    return child.wait().ok();
                }
            }
            drop(child);
            thread::sleep(Duration::from_millis(1));
        }
    }
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

/// Sends what the worker prints to the log, and keeps the last of it.
fn follow(stderr: ChildStderr) -> Vec<String> {
    let mut last = std::collections::VecDeque::new();
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    // Bytes, not lines of text: a plugin prints what it likes.
    while matches!(lines.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        let text = String::from_utf8_lossy(&line).trim().chars().take(1000).collect::<String>();
        line.clear();
        if text.is_empty() {
            continue;
        }
        tracing::info!("plugin printed: {text}");
        if last.len() == TAIL {
            last.pop_front();
        }
        last.push_back(text);
    }
    last.into()
}
