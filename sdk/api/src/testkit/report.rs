//! What a check found, as data.

use crate::error::Error;
use serde::Serialize;
use std::fmt;

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "snake_case")]
pub enum Outcome {
    /// The contract is kept.
    Passed,
    /// The check does not apply, and why.
    Skipped(String),
    /// The contract is broken, and how.
    Failed(String),
}

/// One check of a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The behaviour that was checked, in words: `converges_with_its_order`.
    pub name: &'static str,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Every check of one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Key of the sampler or schedule.
    pub key: String,
    /// The checks, in the order in which they ran.
    pub checks: Vec<Check>,
}

impl Report {
    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|c| matches!(c.outcome, Outcome::Failed(_)))
    }
}

/// One aligned line for each check.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
        self.checks.iter().try_for_each(|c| {
            let (word, reason) = match &c.outcome {
                Outcome::Passed => ("passed ", ""),
                Outcome::Skipped(why) => ("skipped", &**why),
                Outcome::Failed(what) => ("FAILED ", &**what),
            };
            // Panics and causes may have several lines.
            let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            writeln!(f, "{}", format!("{word}  {:width$}  {reason}", c.name).trim_end())
        })
    }
}

impl Outcome {
    /// The same, of `what` in particular.
    pub(super) fn of(self, what: &str) -> Self {
        match self {
            Self::Passed => Self::Passed,
            Self::Skipped(why) => Self::Skipped(format!("{what}: {why}")),
            Self::Failed(how) => Self::Failed(format!("{what}: {how}")),
        }
    }
}

/// What the body of a check returns: an error is the outcome that ends it early.
pub(super) type Checked<T = ()> = Result<T, Outcome>;

pub(super) fn fail<T>(what: impl Into<String>) -> Checked<T> {
    Err(Outcome::Failed(what.into()))
}

pub(super) fn skip<T>(why: impl Into<String>) -> Checked<T> {
    Err(Outcome::Skipped(why.into()))
}

pub(super) fn ensure(kept: bool, what: impl FnOnce() -> String) -> Checked {
    if kept { Ok(()) } else { fail(what()) }
}

/// An error with its causes, in one line.
pub(super) fn words(e: &Error) -> String {
    e.chain().join(": ")
}
