//! The options of a sampler.

use super::SamplerSubject;
use super::trial::{Trial, same_bits};
use crate::error::Result;
use crate::testkit::options::Options;
use crate::testkit::report::{Checked, ensure};
use serde_json::{Value, json};

fn with_options<T>(subject: &SamplerSubject<'_>, check: impl FnOnce(&Options<'_>) -> T) -> T {
    let make = |options: &Value| -> Result<()> { (subject.make)(options).map(drop) };
    check(&Options { schema: subject.schema, make: &make })
}

pub(super) fn options_accept_their_own_defaults(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    with_options(subject, |o| o.accept_their_own_defaults(options))
}

pub(super) fn options_refuse_unknown_fields(subject: &SamplerSubject<'_>, _options: &Value) -> Checked {
    with_options(subject, |o| o.refuse_unknown_fields())
}

pub(super) fn every_option_is_described(subject: &SamplerSubject<'_>, _options: &Value) -> Checked {
    with_options(subject, |o| o.are_described())
}

pub(super) fn written_out_defaults_change_nothing(subject: &SamplerSubject<'_>, _options: &Value) -> Checked {
    let written_out = with_options(subject, |o| o.written_out());
    let image = |options| Ok(Trial::steps(6, 0.0).by(subject, options)?.completed()?.x);
    ensure(same_bits(&image(&json!({}))?, &image(&written_out)?), || {
        format!("another image with {written_out}, the defaults of its schema, than with {{}}")
    })
}
