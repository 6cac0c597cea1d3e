//! Options whose schema and constructor disagree.

use super::rogue::{Rogue, Wrong};
use super::*;

/// A sampler with one option, `shift`, which moves the first value of the result by so much.
fn report_of(field: Value, others: bool, options: Value, shift: impl Fn(&Value) -> Result<f64>) -> Report {
    let schema = json!({"type": "object", "properties": {"shift": field}, "additionalProperties": others});
    let make = |options: &Value| -> Result<Box<dyn Sampler>> {
        let last = shift(options)? as f32;
        Ok(Box::new(Rogue { last, ..Rogue::new(Wrong::RemembersTheLastRun, false) }))
    };
    let subject = SamplerSubject {
        key: "it",
        evaluations: 1,
        order: 1,
        stochastic: false,
        schema: &schema,
        make: &make,
    };
    check_sampler(&subject, &options)
}

fn failed_options(report: &Report) -> Vec<&'static str> {
    failed(report).into_iter().filter(|name| name.contains("option") || name.contains("default")).collect()
}

fn field() -> Value {
    json!({"type": "number", "minimum": 0, "default": 0.0, "description": "How far."})
}

fn strict(options: &Value) -> Result<f64> {
    match options.as_object().and_then(|o| o.keys().find(|k| *k != "shift")) {
        Some(name) => Err(Error::invalid(format!("unknown option `{name}`"))),
        None => Ok(options["shift"].as_f64().unwrap_or(0.0)),
    }
}

#[test]
fn options_that_agree_with_their_schema_pass() {
    assert_eq!(failed_options(&report_of(field(), false, json!({"shift": 1.0}), strict)), [""; 0]);
}

#[test]
fn unknown_options_that_are_accepted_are_found() {
    let lax = |options: &Value| Ok(options["shift"].as_f64().unwrap_or(0.0));
    for report in [
        report_of(field(), false, json!({}), lax),
        report_of(field(), true, json!({}), strict),
        report_of(field(), false, json!({}), |o| strict(o).map_err(|_| Error::invalid("wrong options"))),
    ] {
        assert_eq!(failed_options(&report), ["options_refuse_unknown_fields"]);
    }
}

#[test]
fn defaults_that_are_refused_are_found() {
    let picky = |options: &Value| match options["shift"].as_f64() {
        Some(0.0) => Err(Error::invalid("`shift` must be above 0")),
        _ => strict(options),
    };
    let below = json!({"type": "number", "minimum": 1, "default": 0.0, "description": "How far."});
    assert!(
        failed_options(&report_of(field(), false, json!({}), picky))
            .contains(&"options_accept_their_own_defaults")
    );
    for report in [
        report_of(below, false, json!({}), strict),
        report_of(field(), false, json!({"shift": -1.0}), strict),
    ] {
        assert_eq!(failed_options(&report), ["options_accept_their_own_defaults"]);
    }
}

#[test]
fn a_schema_with_another_default_than_the_constructor_is_found() {
    let report =
        report_of(field(), false, json!({}), |o| Ok(o["shift"].as_f64().map_or(strict(o)? + 5.0, |s| s)));
    assert_eq!(failed_options(&report), ["written_out_defaults_change_nothing"]);
}

#[test]
fn options_without_a_description_are_found() {
    let silent = json!({"type": "number", "default": 0.0, "description": " "});
    assert_eq!(failed_options(&report_of(silent, false, json!({}), strict)), ["every_option_is_described"]);
}
