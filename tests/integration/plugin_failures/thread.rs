//! A library that the settings keep in a thread of the host.

use super::Studio;
use super::crashes::{PANICS, WRONG_VALUES};
use super::stalls::stalls;
use crate::plugin_fixtures::abort_profile;

fn in_thread() -> Studio {
    Studio::failing().settings("{isolation: {failing: thread}, stall_seconds: 2}")
}

#[test]
fn in_a_thread_a_sampler_works() {
    let studio = in_thread();
    let base = studio.picture(&["sampler=euler", "steps=3"]);
    assert_eq!(base, studio.picture(&["sampler=ok_euler", "steps=3"]));
    assert_eq!(base, studio.picture(&["sampler=thread_panic", "steps=3"]));
    assert_eq!(base, studio.picture(&["sampler=panic_drop", "steps=3"]));
    assert!(studio.log().contains("no wish to be dropped"), "{}", studio.log());
}

#[test]
fn in_a_thread_a_panic_is_an_error() {
    let studio = in_thread();
    for (key, words) in PANICS {
        studio.failure(1, "panic", &[&format!("sampler={key}")]).names(key, "failing").says(&[words]);
    }
    let set = ["schedule=panic_schedule"];
    studio.failure(1, "panic", &set).names("panic_schedule", "failing");
    studio.still_works();
}

#[test]
fn in_a_thread_wrong_values_are_refused() {
    let studio = in_thread();
    for (key, words) in WRONG_VALUES {
        studio.failure(1, "internal", &[&format!("sampler={key}")]).names(key, "failing").says(&[words]);
    }
    for key in ["short_schedule", "nan_schedule"] {
        let set = format!("schedule={key}");
        studio.failure(1, "internal", &[&set, "steps=3"]).names(key, "failing");
    }
    studio.still_works();
}

#[test]
fn in_a_thread_a_sampler_that_does_not_end_is_left_behind() {
    let studio = in_thread();
    stalls(&studio, "endless_loop");
    stalls(&studio, "slow_new");
    studio.still_works();
}

#[test]
fn a_library_that_aborts_on_panic_is_not_taken_into_the_process() {
    let studio = Studio::with(&[abort_profile()]).settings("{isolation: {abort-profile: thread}}");
    let problem = studio.problem("abort_profile");
    problem.is("failed", &["abort"]);
    assert!(problem.hints.contains("isolation: process"), "{problem:?}");
    let said = studio.generate(&["sampler=abort_panics"], &[]);
    assert!(said.code > 0, "{said:?}");
    studio.still_works();
}
