//! Runs that are stopped, killed, doubled or starved leave nothing half-written.

use crate::support::{Place, names};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A run that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(place: &Place, args: &[&str]) -> Running {
    let mut command = place.command();
    command.args(["generate", "-p", "tiny/quick"]).args(args);
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Starts a run that is far too long to end by itself and waits until its first step is done.
fn long_run(place: &Place) -> (Running, PathBuf) {
    let child = start(place, &["-s", "steps=1000", "-s", "count=10000"]);
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let outputs = place.path("outputs");
        if let Some(run) = names(&outputs).first() {
            let run = outputs.join(run);
            let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
            if events.contains("\"step\"") {
                return (child, run);
            }
        }
        assert!(Instant::now() < until, "the run made no step");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(unix)]
fn signal(running: &Running, name: &str) {
    let id = running.0.id().to_string();
    assert!(std::process::Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_a_run_cleanly_after_the_step() {
    let place = Place::new();
    let (mut child, run) = long_run(&place);
    signal(&child, "-INT");
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    let ledger: Value = serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(ledger["status"], "cancelled");
    assert_eq!(names(&run), ["events.jsonl", "run.json"]);
}

#[test]
#[cfg(unix)]
fn a_killed_run_leaves_only_whole_files() {
    let place = Place::new();
    let mut child = start(&place, &["-s", "count=10000"]);
    let outputs = place.path("outputs");
    let until = Instant::now() + Duration::from_secs(120);
    let run = loop {
        let run = names(&outputs).first().map(|r| outputs.join(r));
        if let Some(run) = run.filter(|r| names(r).iter().filter(|n| n.ends_with(".png")).count() > 2) {
            break run;
        }
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(5));
    };
    signal(&child, "-KILL");
    child.0.wait().unwrap();
    for name in names(&run) {
        let path = run.join(&name);
        if name.ends_with(".png") {
            crate::support::pixels(&path);
            assert!(path.with_extension("json").exists(), "{name} without its metadata");
        } else if name.ends_with(".json") {
            serde_json::from_slice::<Value>(&std::fs::read(&path).unwrap()).unwrap();
        }
    }
}

#[test]
fn two_runs_at_once_get_folders_of_their_own() {
    let place = Place::new();
    let mut children: Vec<Running> = (0..3).map(|_| start(&place, &[])).collect();
    for child in &mut children {
        assert!(child.0.wait().unwrap().success());
    }
    let runs = names(&place.path("outputs"));
    assert_eq!(runs.len(), 3);
    for run in runs {
        assert!(place.path("outputs").join(run).join("00001.png").exists());
    }
}

#[test]
#[cfg(unix)]
fn a_disk_that_is_full_ends_the_run_with_words_and_no_half_written_file() {
    let place = Place::new();
    let mut shell = std::process::Command::new("sh");
    // A file size limit, with its signal ignored, makes writes fail as a full disk does.
    shell.args([
        "-c",
        "trap '' XFSZ; ulimit -f 8; exec \"$0\" generate -p tiny/quick -s width=128 -s height=128",
    ]);
    shell.arg(env!("CARGO_BIN_EXE_atelier"));
    let said: crate::support::Said = place.wrap(shell).output().unwrap().into();
    let said = said.fails(6, &["cannot write", "00001.png"]);
    let outputs = place.path("outputs");
    let run = outputs.join(&names(&outputs)[0]);
    assert!(
        !names(&run).iter().any(|n| n.contains(".png") || n.starts_with('.')),
        "{:?} {said:?}",
        names(&run)
    );
    let ledger: Value = serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(ledger["status"], "failed");
    assert!(ledger["error"]["causes"][0].as_str().unwrap().contains("00001.png"), "{ledger}");
}

#[test]
fn a_failed_run_is_logged_once_with_everything_that_is_needed() {
    let place = Place::new();
    let model = place.path("model");
    crate::support::copy(&crate::support::root().join("tests/fixtures/golden/tiny-sd"), &model);
    std::fs::write(model.join("vae/diffusion_pytorch_model.safetensors"), b"junk").unwrap();
    place.run(&["generate", "-p", "tiny/quick", "-m", "./model", "-s", "steps=2"]).fails(7, &["vae"]);
    let log = std::fs::read_to_string(place.path("state/atelier/atelier.log")).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .filter(|l| l["level"] == "ERROR")
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    let fields = &lines[0]["fields"];
    for (name, expected) in [
        ("task", "txt2img"),
        ("engine", "stable-diffusion"),
        ("model", "model"),
        ("preset", "tiny/quick"),
        ("options", "\"steps\":2"),
        ("device", "auto"),
        ("causes", "vae"),
    ] {
        let found = fields[name].to_string().replace("\\\"", "\"");
        assert!(found.contains(expected), "{name}: {found}");
    }
}
