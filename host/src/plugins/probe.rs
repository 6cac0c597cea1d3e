//! What a library brings, found out once for each content, by a worker that may crash.

use super::process;
use super::store::Stored;
use super::worker::Hello;
use crate::fsx;
use atelier_sdk::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a library may take to say what it is, at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// Seconds until a library that hung is tried again.
const AGAIN: u64 = 600;

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map(|d| d.as_secs()).unwrap_or_default()
}

/// The results so far, in the cache.
pub struct Probes {
    file: PathBuf,
    kept: Kept,
    changed: bool,
}

#[derive(Default, Serialize, Deserialize)]
struct Kept {
    /// The program that found them out: another one may take another view of a library.
    host: String,
    results: BTreeMap<String, Outcome>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Usable(Hello),
    /// Code, message, details of the error.
    Failed(u32, String, String),
    /// The same, until this second after 1970: a library that hung may not have to be blamed for it.
    FailedUntil(u64, u32, String, String),
}

impl Probes {
    /// The results kept in a cache folder. Damaged ones, and those of another program, are found out again.
    pub fn load(cache: &Path) -> Self {
        let file = cache.join("plugins").join("probes.json");
        let text = fsx::read_text("cache", &file).unwrap_or_default();
        let kept: Kept = serde_json::from_str(&text).unwrap_or_default();
        let host = this_program();
        let kept = if kept.host == host { kept } else { Kept { host, ..Kept::default() } };
        Self { file, kept, changed: false }
    }

    /// What a library brings.
    ///
    /// # Errors
    /// It was refused, or the worker crashed or hung.
    pub fn get(&mut self, stored: &Stored, stall: Duration) -> Result<Hello> {
        match self.kept.results.get(&stored.sha256) {
            Some(Outcome::Usable(hello)) => {
                Ok(Hello { build_info: hello.build_info.clone(), description: hello.description.clone() })
            }
            Some(Outcome::Failed(code, message, detail)) => Err(Error::from_parts(*code, message, detail)),
            Some(Outcome::FailedUntil(until, code, message, detail)) if *until > now() => {
                Err(Error::from_parts(*code, message, detail))
            }
            _ => self.probe(stored, stall),
        }
    }

    /// Finds it out again.
    ///
    /// # Errors
    /// As for [`Self::get`].
    pub fn probe(&mut self, stored: &Stored, stall: Duration) -> Result<Hello> {
        let result = process::start(&stored.copy, &stored.sha256, stall.min(PATIENCE))
            .and_then(|(_, hello)| hello.parse::<Hello>());
        let outcome = match &result {
            Ok(hello) => Some(Outcome::Usable(Hello {
                build_info: hello.build_info.clone(),
                description: hello.description.clone(),
            })),
            Err(e) => {
                let (code, message, detail) = e.to_parts();
                match e.kind() {
                    // What the library itself does.
                    ErrorKind::Unsupported | ErrorKind::Panic | ErrorKind::Internal => {
                        Some(Outcome::Failed(code, message, detail))
                    }
                    // Not waited for with every command.
                    ErrorKind::Timeout => Some(Outcome::FailedUntil(now() + AGAIN, code, message, detail)),
                    // The machine or the cache, which may be well the next time.
                    _ => None,
                }
            }
        };
        if let Some(outcome) = outcome {
            self.kept.results.insert(stored.sha256.clone(), outcome);
            self.changed = true;
        }
        result
    }

    /// Keeps the results. A cache that cannot be written only costs time.
    pub fn save(self) {
        if !self.changed {
            return;
        }
        let saved = serde_json::to_vec(&self.kept).map(|json| fsx::write_private(&self.file, &json));
        if !matches!(saved, Ok(Ok(()))) {
            tracing::debug!(file = %self.file.display(), "the results of looking at plugins cannot be kept");
        }
    }
}

/// This very build of this program.
fn this_program() -> String {
    let meta = std::env::current_exe().and_then(std::fs::metadata).ok();
    let stamp =
        meta.and_then(|m| Some((m.len(), m.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?)));
    format!("{} {} {stamp:?}", env!("CARGO_PKG_VERSION"), atelier_abi::VERSION)
}
