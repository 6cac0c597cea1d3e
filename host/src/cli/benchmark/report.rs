//! What the suites measured: a document that is printed, written, and compared with.

use super::super::say;
use crate::machine;
use atelier_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the document.
pub const SCHEMA_VERSION: u64 = 1;

/// Everything that was measured in one sitting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub schema_version: u64,
    /// Which atelier measured.
    pub version: String,
    pub machine: Machine,
    /// The model whose networks were measured.
    pub model: Option<String>,
    /// Whether their weights were made up.
    pub fake_weights: bool,
    pub lines: Vec<Line>,
}

/// Where it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: Option<String>,
    pub cores: usize,
    /// Threads that compute.
    pub threads: u64,
    /// Multiply-adds of one thread in f32, GFLOP/s.
    pub peak_one: f64,
    /// Of all threads together.
    pub peak: f64,
}

/// Wall time of runs of the same work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    pub median: f64,
    pub best: f64,
    /// In the order in which they were taken.
    pub all: Vec<f64>,
}

impl Seconds {
    /// Of at least one run.
    ///
    /// # Errors
    /// There is none.
    pub fn of(all: Vec<f64>) -> Result<Self> {
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        let [best, ..] = sorted.as_slice() else { return Err(Error::internal("nothing was measured")) };
        // Of an even number the mean of the middle two.
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Ok(Self { median: (low + high) / 2.0, best: *best, all })
    }
}

/// What a peak of memory is the peak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryOf {
    /// This line's work, loading included.
    Line,
    /// Everything since the process began: this system cannot set its account back.
    Process,
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub suite: String,
    /// What it is, with its size: lines of one name are compared.
    pub name: String,
    /// `cpu f32`.
    pub device: String,
    pub made_up: bool,
    pub seconds: Seconds,
    /// Work of a run in GFLOP, from the shapes.
    pub gflop: Option<f64>,
    /// GFLOP/s of the median run.
    pub gflops: Option<f64>,
    /// What the processor reached right before and right after, GFLOP/s of f32; none if something else computed.
    pub peaks: Option<[f64; 2]>,
    /// `gflops` of the larger peak.
    pub share: Option<f64>,
    /// Bytes.
    pub peak_memory: Option<u64>,
    pub peak_memory_of: MemoryOf,
}

impl Line {
    /// Works out the rates of what was measured.
    pub fn new(
        (suite, name): (&str, String),
        facts: &Value,
        seconds: Seconds,
        operations: Option<u64>,
        peaks: Option<[f64; 2]>,
    ) -> Self {
        let gflop = operations.map(|n| n as f64 / 1e9);
        let gflops = gflop.map(|n| n / seconds.median.max(f64::MIN_POSITIVE));
        // Other work on the machine makes either smaller, and neither larger.
        let peak = peaks.map(|[before, after]| before.max(after)).filter(|peak| *peak > 0.0);
        Self {
            suite: suite.into(),
            name,
            device: facts["device"].as_str().unwrap_or_default().into(),
            made_up: facts["made_up"].as_bool().unwrap_or_default(),
            seconds,
            gflop,
            gflops,
            peaks,
            share: gflops.zip(peak).map(|(rate, peak)| rate / peak),
            peak_memory: machine::peak_memory(),
            peak_memory_of: MemoryOf::Process,
        }
    }
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".into(), |v| format!("{v:.decimals$}"))
}

impl Report {
    /// Prints it as a table; `ratios` are columns more, one for each line.
    pub fn say(&self, ratios: Option<&[Option<f64>]>) -> Result<()> {
        let m = &self.machine;
        say(format_args!(
            "{}, {} threads: peak {:.0} GFLOP/s in f32 ({:.0} by one thread); {}{}",
            m.processor.as_deref().unwrap_or("unknown processor"),
            m.threads,
            m.peak,
            m.peak_one,
            self.model.as_deref().unwrap_or("no model"),
            if self.fake_weights { ", made-up weights" } else { "" },
        ))?;
        let ratio = if ratios.is_some() { "    ratio" } else { "" };
        say(format_args!(
            "{:<36} {:>10} {:>10} {:>9} {:>6} {:>10}{ratio}",
            "", "median s", "best s", "GFLOP/s", "share", "memory"
        ))?;
        for (i, line) in self.lines.iter().enumerate() {
            let ratio = ratios.map_or(String::new(), |all| {
                all.get(i).copied().flatten().map_or("        -".into(), |r| format!("   {r:>5.2}x"))
            });
            let memory = line.peak_memory.map_or("-".into(), machine::human_bytes);
            let share = line.share.map_or("-".into(), |s| format!("{:.0} %", 100.0 * s));
            say(format_args!(
                "{:<36} {:>10.4} {:>10.4} {:>9} {:>6} {:>10}{ratio}",
                line.name,
                line.seconds.median,
                line.seconds.best,
                number(line.gflops, 1),
                share,
                memory
            ))?;
        }
        if self.lines.iter().any(|line| line.peak_memory_of == MemoryOf::Process) {
            say("memory: the most since this process began, not of each line")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_median_is_in_the_middle() {
        let of = |all: &[f64]| Seconds::of(all.to_vec()).unwrap();
        assert_eq!((of(&[3.0, 1.0, 2.0]).median, of(&[3.0, 1.0, 2.0]).best), (2.0, 1.0));
        assert_eq!(of(&[4.0, 1.0]).median, 2.5);
        assert!(Seconds::of(Vec::new()).is_err());
    }

    #[test]
    fn rates_follow_from_work_and_time() {
        let seconds = Seconds::of(vec![2.0]).unwrap();
        let facts = json!({"device": "cpu f32", "made_up": true});
        let of = |operations, peaks| {
            Line::new(("unet", "UNet".into()), &facts, seconds.clone(), operations, peaks)
        };
        let line = of(Some(400_000_000_000), Some([200.0, 250.0]));
        assert_eq!((line.gflop, line.gflops, line.share), (Some(400.0), Some(200.0), Some(0.8)));
        assert_eq!(of(None, Some([200.0, 250.0])).share, None);
        assert_eq!(of(Some(1), None).share, None);
        assert_eq!(of(Some(1), Some([0.0, 0.0])).share, None);
    }
}
