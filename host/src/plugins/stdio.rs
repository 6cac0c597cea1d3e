//! A worker's pipes to its host, out of reach of the plugin.

use atelier_sdk::{Error, ErrorKind, Result};

fn failed(e: std::io::Error) -> Error {
    Error::new(ErrorKind::Environment, "cannot set up the pipes of a plugin's process").because(e)
}

/// Takes standard input and output for the conversation with the host. What the plugin prints goes to standard
/// error from now on, and what it reads is empty: it cannot disturb the conversation.
///
/// # Errors
/// The system refuses.
#[cfg(unix)]
pub fn claim() -> Result<(std::fs::File, std::fs::File)> {
    use std::os::fd::{AsFd, AsRawFd};
    let ours =
        |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(std::fs::File::from).map_err(failed);
    let (input, output) = (ours(std::io::stdin().as_fd())?, ours(std::io::stdout().as_fd())?);
    let null = std::fs::File::open("/dev/null").map_err(failed)?;
    for (from, to) in [(null.as_raw_fd(), 0), (2, 1)] {
        // SAFETY: `from` is open, and 0 and 1 are this process's own to replace.
        if unsafe { libc::dup2(from, to) } < 0 {
            return Err(failed(std::io::Error::last_os_error()));
        }
    }
    Ok((input, output))
}

/// Takes standard input and output for the conversation with the host. Here a plugin that prints to standard output
/// disturbs the conversation and fails its run.
///
/// # Errors
/// None here.
#[cfg(not(unix))]
pub fn claim() -> Result<(std::io::Stdin, std::io::Stdout)> {
    Ok((std::io::stdin(), std::io::stdout()))
}

/// Ends this process when its parent is gone, even if the plugin never comes back.
pub fn end_with_parent() {
    #[cfg(unix)]
    {
        let parent = std::os::unix::process::parent_id();
        let watch = move || {
            while std::os::unix::process::parent_id() == parent {
                std::thread::sleep(std::time::Duration::from_millis(500));
            }
            // SAFETY: ends the process without running anything of the plugin's.
            unsafe { libc::_exit(1) }
        };
        // Without the thread a worker whose plugin hangs would outlive a host that was killed: no more than that.
        let _ = std::thread::Builder::new().name("parent".into()).spawn(watch);
    }
}
