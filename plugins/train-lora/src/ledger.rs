//! `run.json`: what a training was asked for, and how it went.

use crate::base::Base;
use crate::params::TrainLora;
use crate::sets::Sets;
use atelier_sdk::files::write_atomic;
use atelier_sdk::{Error, Result, ResultExt};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How a training stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It took all its steps.
    Done,
    /// Validation did not get better any more.
    StoppedEarly,
    /// A person stopped it.
    Stopped,
    /// Something stopped it.
    Failed,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::StoppedEarly => "stopped early",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// The ledger of one training.
pub struct Ledger {
    path: PathBuf,
    record: Value,
    started: u64,
}

impl Ledger {
    /// Says that a training is running. One that goes on began when it first began.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn begin(out: &Path, base: &Base, params: &TrainLora, sets: &Sets) -> Result<Self> {
        let path = out.join("run.json");
        let before: Option<Value> = std::fs::read(&path).ok().and_then(|b| serde_json::from_slice(&b).ok());
        let began = before.filter(|_| params.resume).and_then(|b| b["started"].as_u64());
        let started = began.unwrap_or_else(now);
        let asked = TrainLora { resume: false, dry_run: false, ..params.clone() };
        let record = json!({
            "schema_version": 1,
            "task": "train-lora",
            "atelier": env!("CARGO_PKG_VERSION"),
            "model": base.name,
            "model_path": base.path,
            "params": serde_json::to_value(&asked).internal("parameters that are no JSON")?,
            "data": sets.facts(),
            "started": started,
            "status": "running",
        });
        let ledger = Self { path, record, started };
        ledger.write()?;
        sets.write_quarantine(out)?;
        Ok(ledger)
    }

    /// When it began, in seconds since 1970.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Says how it ended.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn end(&mut self, status: Status, steps: u64, error: Option<&Error>) -> Result<()> {
        self.record["status"] = json!(status.name());
        self.record["steps"] = json!(steps);
        self.record["ended"] = json!(now());
        self.record["error"] = json!(error.map(|e| e.chain()));
        self.write()
    }

    fn write(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.record).internal("a ledger that is no JSON")?;
        write_atomic(&self.path, &text)
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Memory of this process in bytes; 0 where the system does not tell.
pub fn memory() -> u64 {
    use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
    let pid = Pid::from_u32(std::process::id());
    let Ok(mut system) = System::new() else { return 0 };
    let what = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
    system.process(pid).map_or(0, sysinfo::Process::memory)
}
