//! The kit finds what is wrong, and nothing else.

mod guards;
mod options;
mod right;
mod rogue;
mod samplers;
mod schedules;

use super::*;
use crate::error::{Error, Result};
use crate::sampler::Sampler;
use crate::schedule::Schedule;
use serde_json::{Value, json};

/// The schema of a plugin without options.
fn no_options() -> Value {
    json!({"type": "object", "properties": {}, "additionalProperties": false})
}

fn refuse_unknown(options: &Value) -> Result<()> {
    match options.as_object().and_then(|o| o.keys().next()) {
        Some(name) => Err(Error::invalid(format!("unknown option `{name}`"))),
        None => Ok(()),
    }
}

/// A sampler without options that keeps the contract in everything but `make`.
fn with_sampler<T>(
    (evaluations, order): (u32, u32),
    make: impl Fn() -> Box<dyn Sampler>,
    check: impl FnOnce(&SamplerSubject<'_>) -> T,
) -> T {
    let make = |options: &Value| refuse_unknown(options).map(|()| make());
    let (schema, stochastic) = (no_options(), order == 0);
    check(&SamplerSubject { key: "it", evaluations, order, stochastic, schema: &schema, make: &make })
}

fn with_schedule<T>(
    make: impl Fn() -> Box<dyn Schedule>,
    check: impl FnOnce(&ScheduleSubject<'_>) -> T,
) -> T {
    let make = |options: &Value| refuse_unknown(options).map(|()| make());
    check(&ScheduleSubject { key: "it", schema: &no_options(), make: &make })
}

fn failed(report: &Report) -> Vec<&'static str> {
    println!("{report}");
    report.failed().map(|c| c.name).collect()
}

fn outcome<'a>(report: &'a Report, name: &str) -> &'a Outcome {
    &report.checks.iter().find(|c| c.name == name).unwrap().outcome
}
