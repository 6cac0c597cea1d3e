//! Plugins that show no sign of life.

use super::{Failure, Studio};
use std::time::{Duration, Instant};

/// Fails with a timeout, and soon.
pub fn stalls(studio: &Studio, key: &str) -> Failure {
    let begin = Instant::now();
    let failure = studio.failure(8, "timeout", &[&format!("sampler={key}")]);
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    failure.names(key, "failing").says(&["2 seconds"]);
    failure
}

#[test]
fn a_sampler_that_computes_for_ever_is_ended_after_the_seconds_that_are_set() {
    let studio = Studio::failing().settings("{stall_seconds: 2}");
    stalls(&studio, "endless_loop");
    studio.still_works();
}

#[test]
fn a_sampler_that_is_never_made_is_ended_as_well() {
    let studio = Studio::failing().settings("{stall_seconds: 2}");
    stalls(&studio, "slow_new");
    studio.still_works();
}

#[test]
fn logging_is_no_sign_of_life() {
    let studio = Studio::failing().settings("{stall_seconds: 2}");
    stalls(&studio, "logs_for_ever");
    let studio = studio.settings("{stall_seconds: 2, isolation: {failing: thread}}");
    let begin = Instant::now();
    studio.failure(8, "timeout", &["sampler=endless_loop"]);
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_timeout_tells_which_setting_allows_more() {
    let studio = Studio::failing().settings("{stall_seconds: 1}");
    let failure = studio.failure(8, "timeout", &["sampler=endless_loop"]);
    assert!(failure.hints.contains("stall_seconds"), "{failure:?}");
}
