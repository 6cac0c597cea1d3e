//! Looks for an answer for a moment before sleeping.

/// How long. Waking up a sleeping core takes as long, and an answer is mostly there sooner.
#[cfg(unix)]
const MOMENT: std::time::Duration = std::time::Duration::from_micros(60);

/// Waits until a pipe can be read, for a moment.
#[cfg(unix)]
pub fn readable(pipe: &impl std::os::fd::AsRawFd) {
    let mut at = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let began = std::time::Instant::now();
    // SAFETY: one valid entry, as the count says.
    while unsafe { libc::poll(&mut at, 1, 0) } == 0 && began.elapsed() < MOMENT {
        std::hint::spin_loop();
    }
}

/// Elsewhere the read that follows waits.
#[cfg(not(unix))]
pub fn readable<P>(_: &P) {}
