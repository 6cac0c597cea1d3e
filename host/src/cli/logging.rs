//! The log: a file always, the terminal on request.

use crate::paths::state_dir;
use crate::profile::{Recorder, TARGET};
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// A log larger than this is moved aside before a new one begins.
const MAX_LOG: u64 = 8 << 20;

/// Where the log is, if it can be anywhere.
pub fn file() -> Option<PathBuf> {
    state_dir().map(|d| d.join("atelier.log"))
}

/// Starts logging: JSON lines to the file, and text to the terminal from `-v` on (or as `ATELIER_LOG` says). The spans of
/// a profile go to its recorder.
pub fn start(verbose: u8, rotate: bool, profile: Option<Recorder>) {
    let to_file = open(rotate)
        .map(|file| tracing_subscriber::fmt::layer().json().with_writer(file).with_filter(LevelFilter::INFO));
    let level = match verbose {
        0 => "off",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::builder().with_env_var("ATELIER_LOG").try_from_env();
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(level));
    let to_terminal = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_filter(filter);
    let profile = profile.map(|recorder| {
        let own = filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET);
        recorder.with_filter(own.with_max_level_hint(LevelFilter::TRACE))
    });
    // Fails only when a logger is already there, which then serves.
    let _ = tracing_subscriber::registry().with(to_file).with(to_terminal).with(profile).try_init();
}

/// A machine where the log cannot be written still makes images.
fn open(rotate: bool) -> Option<File> {
    let path = file()?;
    std::fs::create_dir_all(path.parent()?).ok()?;
    if rotate && std::fs::metadata(&path).is_ok_and(|m| m.len() > MAX_LOG) {
        let _ = std::fs::rename(&path, path.with_extension("log.old"));
    }
    OpenOptions::new().create(true).append(true).open(path).ok()
}
