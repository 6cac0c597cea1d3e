//! Samplers and schedules of a library in a process of its own: panics, crashes, wrong values.

use super::Studio;
use crate::plugin_fixtures::{abort_profile, file_name};

/// (key, kind of the failure, what its text says).
pub const PANICS: [(&str, &str); 2] =
    [("panic_new", "no wish to be made"), ("panic_step", "index out of bounds")];

/// Values that the host must not take, and what is said of them.
pub const WRONG_VALUES: [(&str, &str); 3] =
    [("wrong_size", "values"), ("nan_output", "NaN"), ("nan_to_model", "NaN")];

fn each(studio: &Studio, kind: &str, cases: &[(&str, &str)]) {
    for (key, words) in cases {
        let failure = studio.failure(1, kind, &[&format!("sampler={key}")]);
        failure.names(key, "failing").says(&[words]);
        studio.still_works();
    }
}

#[test]
fn a_sampler_that_works_draws_as_the_built_in_one_of_its_kind() {
    let studio = Studio::failing();
    let base = studio.picture(&["sampler=euler", "steps=3"]);
    assert_eq!(base, studio.picture(&["sampler=ok_euler", "steps=3"]));
    let gain = ["sampler=ok_euler", "steps=3", "sampler_options.gain=0.5"];
    assert_ne!(base, studio.picture(&gain));
}

#[test]
fn options_of_a_librarys_sampler_are_held_to_its_schema() {
    let studio = Studio::failing();
    let set = |option: &str| studio.failure(3, "invalid_request", &["sampler=ok_euler", option]);
    set("sampler_options.gain=much").says(&["/sampler_options/gain", "not a number"]);
    set("sampler_options.gian=1").says(&["/sampler_options/gian"]);
}

#[test]
fn a_panic_in_a_sampler_names_it_its_plugin_and_its_file() {
    let studio = Studio::failing();
    each(&studio, "panic", &PANICS);
    // The backtrace is for the log.
    assert!(studio.log().contains("panics.rs"), "{}", studio.log());
}

#[test]
#[cfg(unix)]
fn a_crash_of_a_sampler_is_told_with_its_signal() {
    let studio = Studio::failing();
    each(
        &studio,
        "internal",
        &[("segfault", "signal 11"), ("abort", "signal 6"), ("stack_overflow", "signal")],
    );
}

#[test]
#[cfg(unix)]
fn a_process_that_a_plugin_starts_ends_with_it_and_holds_nothing_up() {
    let studio = Studio::failing();
    let begin = std::time::Instant::now();
    each(&studio, "internal", &[("leaves_child", "signal 6")]);
    studio.image(&["sampler=has_child"]);
    assert!(begin.elapsed() < std::time::Duration::from_secs(30), "{:?}", begin.elapsed());
    // That no process is left, the studio asserts when it goes.
}

#[test]
fn a_sampler_that_ends_the_process_with_success_is_a_failure_all_the_same() {
    let studio = Studio::failing();
    each(&studio, "internal", &[("exit_zero", "ended with exit code 0")]);
}

#[test]
fn values_that_are_none_are_refused() {
    each(&Studio::failing(), "internal", &WRONG_VALUES);
}

#[test]
fn an_error_of_a_megabyte_arrives_as_an_error() {
    let studio = Studio::failing();
    each(&studio, "internal", &[("huge_error", "much ado")]);
    assert!(studio.log().len() < 32 << 20);
}

#[test]
fn without_json_the_same_is_said_on_standard_error() {
    let studio = Studio::failing();
    let file = file_name("failing");
    let words = ["error: ", "exit_zero", "failing", &file, "ended with exit code 0", "hint: "];
    let said = studio.generate(&["sampler=exit_zero"], &[]).fails(1, &words);
    assert_eq!(said.out, "");
}

#[test]
fn a_schedule_of_a_library_works_or_fails_alone() {
    let studio = Studio::failing();
    let right = studio.picture(&["schedule=ok_schedule", "steps=3"]);
    assert_ne!(right, studio.picture(&["schedule=normal", "steps=3"]));
    for (key, kind, words) in [
        ("short_schedule", "internal", "levels"),
        ("nan_schedule", "internal", "levels"),
        ("panic_schedule", "panic", "no levels today"),
    ] {
        let set = format!("schedule={key}");
        studio.failure(1, kind, &[&set, "steps=3"]).names(key, "failing").says(&[words]);
        studio.still_works();
    }
}

#[test]
fn a_panic_while_a_sampler_is_dropped_is_logged_and_the_picture_is_kept() {
    let studio = Studio::failing();
    studio.image(&["sampler=panic_drop"]);
    assert!(studio.log().contains("no wish to be dropped"), "{}", studio.log());
}

#[test]
fn a_thread_of_a_plugin_that_panics_harms_nobody() {
    let studio = Studio::failing();
    assert_eq!(studio.picture(&["sampler=thread_panic"]), studio.picture(&["sampler=euler"]));
}

#[test]
#[cfg(unix)]
fn a_library_that_aborts_on_panic_does_so_alone() {
    let studio = Studio::with(&[abort_profile()]);
    let failure = studio.failure(1, "internal", &["sampler=abort_panics"]);
    failure.names("abort_panics", "abort_profile").says(&["signal 6"]);
    studio.still_works();
}
