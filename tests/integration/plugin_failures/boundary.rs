//! Libraries of other boundaries.

use super::Studio;
use crate::plugin_fixtures::variants::{self, GARBAGE, LAYOUT, MAJOR, NEWER};
use crate::plugin_fixtures::{boundaries, golden};

#[test]
fn a_plugin_of_every_boundary_since_the_first_works() {
    for boundary in boundaries() {
        let studio = Studio::with(&[golden(&boundary)]);
        let base = studio.picture(&["sampler=euler", "steps=3"]);
        assert_eq!(base, studio.picture(&["sampler=golden", "steps=3"]), "{boundary}");
        assert_ne!(base, studio.picture(&["schedule=golden_line", "steps=3"]), "{boundary}");
    }
}

#[test]
fn a_plugin_of_a_newer_minor_works_and_finds_the_defaults_of_what_is_not_there() {
    let library = variants::golden(&NEWER);
    for isolation in ["process", "thread"] {
        let studio = Studio::with(std::slice::from_ref(&library))
            .settings(&format!("{{isolation: {{golden-newer: {isolation}}}}}"));
        let base = studio.picture(&["sampler=euler", "steps=3"]);
        assert_eq!(base, studio.picture(&["sampler=golden", "steps=3"]), "{isolation}");
        studio.still_works();
    }
}

#[test]
fn a_plugin_of_another_major_is_listed_with_both_versions() {
    let studio = Studio::with(&[variants::golden(&MAJOR)]);
    let problem = studio.problem("golden_major");
    problem.is("failed", &["expected", "1.", "found", "2.0.0"]);
    assert!(!problem.hints.is_empty(), "{problem:?}");
    studio.still_works();
}

#[test]
fn a_plugin_with_another_layout_is_listed_in_three_lines_and_logged_in_full() {
    let studio = Studio::with(&[variants::golden(&LAYOUT)]);
    let problem = studio.problem("golden_layout");
    problem.is("failed", &["expected", "found"]);
    assert!(problem.message.lines().count() <= 3, "{problem:?}");
    assert!(problem.message.len() < 2000, "{problem:?}");
    let log = studio.log();
    assert!(log.contains("AbiRun") && log.len() > 10 * problem.message.len(), "{log}");
    studio.still_works();
}

#[test]
fn a_plugin_whose_description_is_no_json_is_listed() {
    let studio = Studio::with(&[variants::golden(&GARBAGE)]);
    studio.problem("golden_garbage").is("failed", &["description"]);
    studio.still_works();
}
