//! Commands that are tasks of an engine under a name of their own: their options become parameters of a request,
//! which goes the way of every request.

use super::progress::Progress;
use super::{Studio, cancel_on_signal};
use crate::dispatch::{self, Compute};
use crate::layers::Source;
use crate::request::{self, Over, Request};
use atelier_sdk::Result;
use serde_json::{Map, Value};

/// Runs a task that makes no images, and gives what the engine says about it.
///
/// # Errors
/// The parameters are wrong, or the task failed.
pub fn run(task: &str, params: Map<String, Value>, quiet: bool, studio: &Studio) -> Result<Value> {
    let over = vec![Over::Map(params, Source::CommandLine, String::new())];
    let request = Request { task: Some(task.into()), over, ..Request::default() };
    perform(&request, Compute::cpu(), quiet, studio)
}

/// Runs a request that makes no images.
///
/// # Errors
/// As for [`run`].
pub fn perform(request: &Request, compute: Compute, quiet: bool, studio: &Studio) -> Result<Value> {
    let planned = request::parse_params(request, &studio.registries, &studio.config, request::entropy()?)?;
    let cancel = cancel_on_signal()?;
    let mut progress = Progress::new(quiet);
    let result = dispatch::run_tool(&planned, compute, &studio.registries, &mut progress, &cancel);
    for warning in progress.finish() {
        eprintln!("warning: {warning}");
    }
    result
}
