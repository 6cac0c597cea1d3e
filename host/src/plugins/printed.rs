//! What a worker prints: into the log, and the last of it kept for the error of a crash.

use super::conn::lock;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How many lines are told when it crashes.
const TAIL: usize = 5;
/// Longest line kept.
const LINE: usize = 1000;
/// How many lines of one worker go into the log.
const LOGGED: usize = 1000;

/// The last lines that a worker printed.
#[derive(Default)]
pub struct Printed {
    last: Mutex<VecDeque<String>>,
    over: AtomicBool,
}

impl Printed {
    /// Reads until nobody can print any more.
    pub fn follow(&self, stderr: impl Read) {
        let mut lines = BufReader::new(stderr);
        let mut logged = 0;
        // Bytes, not lines of text: a plugin prints what it likes, for as long as it likes.
        while let Some(text) = line(&mut lines) {
            if text.is_empty() {
                continue;
            }
            match logged {
                n if n < LOGGED => tracing::info!("plugin printed: {text}"),
                LOGGED => tracing::info!("the plugin prints on, which is no longer logged"),
                _ => {}
            }
            logged = (logged + 1).min(LOGGED + 1);
            let mut last = lock(&self.last);
            if last.len() == TAIL {
                last.pop_front();
            }
            last.push_back(text);
        }
        self.over.store(true, Ordering::Release);
    }

    /// The last lines. Waits a moment for those that are under way; a process that the worker has left behind may
    /// hold the pipe open.
    pub fn tail(&self) -> Vec<String> {
        for _ in 0..20 {
            if self.over.load(Ordering::Acquire) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        lock(&self.last).iter().cloned().collect()
    }
}

/// The next line, as far as it is kept; none at the end.
fn line(from: &mut impl BufRead) -> Option<String> {
    let mut kept = Vec::new();
    let mut any = false;
    loop {
        let buffer = from.fill_buf().ok().filter(|b| !b.is_empty());
        let Some(buffer) = buffer else { break };
        any = true;
        let end = buffer.iter().position(|b| *b == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        kept.extend_from_slice(&part[..part.len().min(LINE - kept.len().min(LINE))]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        from.consume(used);
        if end.is_some() {
            break;
        }
    }
    any.then(|| String::from_utf8_lossy(&kept).trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_long_ones_are_cut() {
        let text = (0..9).map(|i| format!("line {i}\n\n")).collect::<String>() + &"x".repeat(1 << 20);
        let printed = Printed::default();
        printed.follow(text.as_bytes());
        let tail = printed.tail();
        assert_eq!(tail[..4], ["line 5", "line 6", "line 7", "line 8"]);
        assert_eq!(tail[4].len(), LINE);
    }
}
