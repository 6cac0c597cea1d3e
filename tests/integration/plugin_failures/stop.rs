//! Ctrl-C while a plugin works.
#![cfg(unix)]

use super::{Studio, signal, wait};
use crate::support::names;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Starts a run, and waits until its sampler has said that a step is done.
fn start(studio: &Studio, key: &str) -> (Child, PathBuf) {
    let mut command = studio.command();
    command.args(["generate", "-p", "tiny/quick", "-s", "steps=4", "-s", &format!("sampler={key}")]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let outputs = studio.place.path("outputs");
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let run = names(&outputs).first().map(|name| outputs.join(name)).unwrap_or_default();
        let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
        if events.contains("\"step\"") {
            return (child, run);
        }
        if let Some(status) = child.try_wait().unwrap() {
            panic!("{key} ended with {status}");
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("{key} made no step");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One signal is enough, and the ledger says that the run was stopped.
fn stops(studio: &Studio, key: &str) {
    let (mut child, run) = start(studio, key);
    signal(&child, "-INT");
    assert_eq!(wait(&mut child, Duration::from_secs(20)), 130, "{key}");
    let ledger: Value = serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(ledger["status"], "cancelled", "{key}: {ledger}");
}

#[test]
fn ctrl_c_ends_a_sampler_that_evaluates_for_ever() {
    stops(&Studio::failing(), "endless_evaluations");
    stops(&Studio::failing().settings("{isolation: {failing: thread}}"), "endless_evaluations");
}

#[test]
fn ctrl_c_ends_a_sampler_that_takes_no_notice_of_it() {
    stops(&Studio::failing().settings("{stall_seconds: 2}"), "ignores_cancel");
    let thread = "{isolation: {failing: thread}, stall_seconds: 2}";
    stops(&Studio::failing().settings(thread), "ignores_cancel");
}

#[test]
fn a_killed_atelier_takes_its_plugin_processes_along() {
    let studio = Studio::failing();
    let (mut child, _) = start(&studio, "ignores_cancel");
    signal(&child, "-KILL");
    child.wait().unwrap();
    // That nothing is left, the studio asserts when it goes.
}
