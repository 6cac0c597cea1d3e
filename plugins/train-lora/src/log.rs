//! The curves of a training: lines of JSON, and files for TensorBoard.

use crate::board::{EventFile, MetricsLog, read_metrics};
use atelier_sdk::Result;
use atelier_sdk::files::cannot_write;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

const LINES: &str = "metrics.jsonl";
const EVENTS: &str = "tensorboard";

/// The logs of one training.
pub struct Log {
    lines: MetricsLog,
    events: EventFile,
    folder: PathBuf,
}

impl Log {
    /// The logs of a training that has taken so many steps. What an earlier start logged after that is forgotten.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn open(out: &Path, steps: u64) -> Result<Self> {
        let failed = |e| cannot_write(out, e);
        let path = out.join(LINES);
        let lines = if steps > 0 { MetricsLog::resume(&path, steps) } else { MetricsLog::create(&path) };
        let first = if steps > 0 { steps + 1 } else { 0 };
        let events = EventFile::create(&out.join(EVENTS), "", first).map_err(failed)?;
        Ok(Self { lines: lines.map_err(failed)?, events, folder: out.into() })
    }

    /// Logs values of a step.
    ///
    /// # Errors
    /// The disk is full.
    pub fn write(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let fields: Map<String, Value> = values.iter().map(|(n, v)| (n.to_string(), json!(v))).collect();
        let tags: Vec<(String, f64)> = values.iter().map(|(n, v)| (n.replace('.', "/"), *v)).collect();
        let tags: Vec<(&str, f64)> = tags.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        let written = self.lines.append(step, &fields).and_then(|()| self.events.scalars(step, &tags));
        written.map_err(|e| cannot_write(&self.folder, e))
    }

    /// Logs samples, each the bytes of a PNG file.
    ///
    /// # Errors
    /// The disk is full.
    pub fn pictures(&mut self, step: u64, files: &[Vec<u8>]) -> Result<()> {
        for (i, png) in files.iter().enumerate() {
            let written = self.events.image(step, &format!("samples/{}", i + 1), png);
            written.map_err(|e| cannot_write(&self.folder, e))?;
        }
        Ok(())
    }

    /// Brings everything to the disk: a checkpoint is not to know of more than the logs.
    ///
    /// # Errors
    /// The disk is full.
    pub fn sync(&self) -> Result<()> {
        let synced = self.lines.sync().and_then(|()| self.events.sync());
        synced.map_err(|e| cannot_write(&self.folder, e))
    }
}

/// The values that a training logged under a name, by step.
pub fn values(out: &Path, name: &str) -> Vec<(f64, f64)> {
    let lines = read_metrics(&out.join(LINES)).unwrap_or_default();
    lines.iter().filter_map(|l| Some((l.get("step")?.as_f64()?, l.get(name)?.as_f64()?))).collect()
}
