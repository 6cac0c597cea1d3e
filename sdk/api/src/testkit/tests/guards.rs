//! What protects the kit from the plugins that it checks, and the report that comes of it.

use super::*;
use crate::testkit::guard::{guarded, report, within};
use std::time::Duration;

const SOON: Duration = Duration::from_millis(50);

#[test]
fn code_that_does_not_return_is_left_behind() {
    let end = within(SOON, || std::thread::sleep(Duration::from_secs(60)));
    assert_eq!(end, Err(Outcome::Failed("did not return within 50ms".into())));
}

#[test]
fn nothing_more_is_tried_of_a_plugin_that_did_not_return() {
    let slow: fn() -> Outcome = || {
        std::thread::sleep(SOON);
        Outcome::Passed
    };
    let quick: fn() -> Outcome = || Outcome::Passed;
    let report = report("it", SOON, [("a", quick), ("b", slow), ("c", quick)].into_iter());
    let last = Outcome::Skipped("`b` already took too long".into());
    assert_eq!(
        report.checks.into_iter().map(|c| c.outcome).collect::<Vec<_>>(),
        [Outcome::Passed, Outcome::Passed, last]
    );
}

#[test]
fn a_constructor_that_panics_or_fails_fails_every_check_that_needs_it() {
    let (schema, options) = (no_options(), json!({}));
    let subject = |make| SamplerSubject {
        key: "it",
        evaluations: 1,
        order: 1,
        stochastic: false,
        schema: &schema,
        make,
    };
    let panics = |_: &Value| -> Result<Box<dyn Sampler>> { panic!("no {}", "way") };
    let fails =
        |_: &Value| -> Result<Box<dyn Sampler>> { Err(Error::internal("no way").because("a reason")) };
    for (report, what) in [
        (check_sampler(&subject(&panics), &options), "panics: no way"),
        (check_sampler(&subject(&fails), &options), "cannot be made with {}: no way: a reason"),
    ] {
        assert!(failed(&report).len() > 15);
        assert_eq!(outcome(&report, "converges_with_its_order"), &Outcome::Failed(what.into()));
    }
}

#[test]
fn a_panic_without_words_is_a_failure_too() {
    let end = guarded(|| std::panic::panic_any(7));
    assert_eq!(end, Outcome::Failed("panics: without a message".into()));
}

#[test]
fn a_report_is_one_aligned_line_for_each_check_and_plain_data() {
    let check = |name, outcome| Check { name, outcome };
    let report = Report {
        key: "it".into(),
        checks: vec![
            check("short", Outcome::Passed),
            check("rather_long", Outcome::Failed("two\n  lines".into())),
            check("other", Outcome::Skipped("not for it".into())),
        ],
    };
    assert_eq!(
        report.to_string(),
        "passed   short\nFAILED   rather_long  two lines\nskipped  other        not for it\n"
    );
    assert_eq!(
        serde_json::to_value(&report).unwrap(),
        json!({"key": "it", "checks": [
            {"name": "short", "outcome": "passed"},
            {"name": "rather_long", "outcome": "failed", "reason": "two\n  lines"},
            {"name": "other", "outcome": "skipped", "reason": "not for it"},
        ]})
    );
}
