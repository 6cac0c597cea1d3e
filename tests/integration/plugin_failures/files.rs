//! Files that are no plugin, or not a whole one.

use super::Studio;
use crate::plugin_fixtures::{file_name, library};

#[test]
fn a_text_file_is_not_trusted_and_its_first_bytes_are_shown() {
    let studio = Studio::new();
    let name = file_name("words");
    studio.put_bytes(&name, b"I am no library\n");
    studio.trust(&name).fails(7, &[&name, "49 20 61 6d"]);
    studio.problem("words");
    studio.still_works();
}

#[test]
fn an_empty_file_is_not_trusted() {
    let studio = Studio::new();
    let name = file_name("empty");
    studio.put_bytes(&name, b"");
    studio.trust(&name).fails(7, &[&name]);
    studio.still_works();
}

#[test]
fn the_beginning_of_a_library_is_told_from_a_library() {
    let studio = Studio::new();
    let name = file_name("half");
    let whole = std::fs::read(library("failing")).unwrap();
    studio.put_bytes(&name, &whole[..30_000]);
    studio.trust(&name).ok();
    let problem = studio.problem("half");
    problem.is("failed", &[&name]);
    assert!(!problem.hints.is_empty(), "{problem:?}");
    studio.still_works();
}

#[test]
fn a_library_that_is_no_plugin_is_told_from_one() {
    let studio = Studio::with(&[library("no_sdk")]);
    studio.problem("no_sdk").is("failed", &["expected", "found"]);
    studio.still_works();
}

#[test]
#[cfg(unix)]
fn a_library_that_crashes_while_it_is_loaded_is_listed_and_left_out() {
    let studio = Studio::with(&[library("ctor_crash"), library("failing")]);
    studio.problem("ctor_crash").is("failed", &["signal 11"]);
    // Its neighbour is none the worse.
    studio.image(&["sampler=ok_euler"]);
    studio.still_works();
}

#[test]
fn a_library_that_never_ends_being_loaded_is_listed_and_left_out() {
    let studio = Studio::new().settings("{stall_seconds: 2}");
    studio.put(&library("ctor_hang"));
    studio.trust(&file_name("ctor_hang")).ok();
    studio.problem("ctor_hang").is("failed", &["2 seconds"]);
    studio.still_works();
}

#[test]
fn a_library_that_cannot_be_described_is_listed_with_its_panic() {
    let studio = Studio::with(&[library("describe_panic")]);
    studio.problem("describe_panic").is("failed", &["panicked", "no words for it"]);
    studio.still_works();
}
