//! An engine of a library, with a task of its own.

use super::{Failure, Studio};
use crate::support::pixels;

/// Runs `break-image` and gives what `--json` said.
fn break_image(studio: &Studio, how: &str) -> crate::support::Said {
    let preset = format!(
        "schema_version: 1\ntitle: Breaks\ntask: break-image\nengine: failing-engine\nparams:\n  how: {how}\n"
    );
    let file = studio.place.write(&format!("{how}.yaml"), preset);
    studio.run(&["generate", "-p", file.to_str().unwrap(), "--json"])
}

fn fails(studio: &Studio, how: &str, codes: &[i32], words: &[&str]) {
    let said = break_image(studio, how);
    assert!(codes.contains(&said.code), "{how}: {said:?}");
    Failure::of(&said).names("failing-engine", "failing").says(words);
    studio.still_works();
}

#[test]
fn an_engine_of_a_library_performs_its_own_task_without_a_model() {
    let studio = Studio::failing();
    let said = break_image(&studio, "ok").ok();
    let image = studio.place.path(said.json()["images"][0].as_str().expect("an image"));
    assert_eq!(pixels(&image), (8, 8, vec![200; 8 * 8 * 3]));
    let tasks = studio.run(&["tasks", "list", "--json"]).ok().json();
    let task =
        tasks.as_array().unwrap().iter().find(|t| t["key"] == "break-image").expect("its task").clone();
    assert_eq!(task["engines"][0], "failing-engine");
    let schema = studio.run(&["schema", "failing-engine", "break-image"]).ok().json();
    assert!(schema["properties"]["how"]["enum"].as_array().is_some_and(|e| e.len() == 10), "{schema}");
}

#[test]
fn an_engine_of_a_library_samples_with_the_hosts_samplers_wherever_both_run() {
    let draw = |isolation: &str, sampler: &str| {
        let studio = Studio::failing().settings(&format!("{{isolation: {{failing: {isolation}}}}}"));
        let set = format!("sampler={sampler}");
        let args = ["--task", "break-image", "-s", "how=sample", "-s", &set, "--json"];
        let said = studio.run(&[&["generate"], &args[..]].concat()).ok();
        pixels(&studio.place.path(said.json()["images"][0].as_str().expect("an image")))
    };
    // A sampler of the host's, and one of a library, which has a worker of its own.
    let linked = draw("process", "euler");
    assert_eq!(linked, draw("thread", "euler"));
    assert_eq!(linked, draw("process", "ok_euler"));
    assert_eq!(linked, draw("thread", "ok_euler"));
    assert_ne!(linked, draw("process", "heun"));
    // The panic of one passes through the other.
    let studio = Studio::failing();
    let args = ["--task", "break-image", "-s", "how=sample", "-s", "sampler=panic_step", "--json"];
    let said = studio.run(&[&["generate"], &args[..]].concat());
    assert_eq!(said.code, 1, "{said:?}");
    Failure::of(&said).names("panic_step", "failing").says(&["index out of bounds"]);
}

#[test]
fn an_engine_may_ask_for_what_is_not_there_as_often_as_it_likes() {
    break_image(&Studio::failing(), "many_errors").ok();
}

#[test]
fn an_engine_that_panics_fails_alone() {
    let studio = Studio::failing();
    fails(&studio, "panic", &[1], &["no image today"]);
    fails(&studio, "plan_panic", &[1], &["no plan today"]);
}

#[test]
#[cfg(unix)]
fn an_engine_that_ends_its_process_fails_alone() {
    let studio = Studio::failing();
    fails(&studio, "segfault", &[1], &["signal 11"]);
    fails(&studio, "exit_zero", &[1], &["ended with exit code 0"]);
}

#[test]
fn an_engine_without_a_sign_of_life_is_ended() {
    let studio = Studio::failing().settings("{stall_seconds: 2}");
    fails(&studio, "endless_loop", &[8], &["2 seconds"]);
}

#[test]
fn an_engine_that_asks_or_answers_wrongly_fails_with_words() {
    let studio = Studio::failing();
    fails(&studio, "wrong_image_size", &[1, 3], &["8x8", "192", "10"]);
    fails(&studio, "unnamed_input", &[1, 3], &["mask"]);
}

#[test]
fn a_parameter_that_the_engine_does_not_know_is_refused_by_its_schema() {
    let studio = Studio::failing();
    let said = break_image(&studio, "gently");
    assert_eq!(said.code, 3, "{said:?}");
    Failure::of(&said).says(&["/how", "gently"]);
}
