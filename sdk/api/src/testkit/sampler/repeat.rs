//! Whether an image depends on its own noise alone.

use super::SamplerSubject;
use super::probe::{Call, Fault};
use super::trial::{Seen, Trial, same_bits};
use crate::error::Error;
use crate::testkit::report::{Checked, ensure};
use serde_json::Value;

fn trial() -> Trial {
    Trial::steps(6, 0.0).seeds(&[9])
}

pub(super) fn gives_the_same_bits_for_the_same_noise(
    subject: &SamplerSubject<'_>,
    options: &Value,
) -> Checked {
    let image = || Ok(trial().by(subject, options)?.completed()?.x);
    ensure(same_bits(&image()?, &image()?), || "two fresh samplers give different images".into())
}

/// A session keeps its sampler for many runs: of other sizes, of other images, and of failed ones.
pub(super) fn keeps_nothing_from_earlier_runs(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    let fresh = trial().by(subject, options)?.completed()?;
    let Seen { sampler, .. } =
        Trial::steps(4, 0.1).shape([4, 5, 7]).seeds(&[2, 3]).by(subject, options)?.completed()?;
    let Seen { sampler, .. } = trial().seeds(&[8]).by_this(sampler, subject)?.completed()?;
    let fault = Fault { call: Call::Denoise, at: 3, error: Error::cancelled, lasts: true };
    let Seen { sampler, .. } = trial().seeds(&[7]).fault(fault).by_this(sampler, subject)?;
    let used = trial().by_this(sampler, subject)?.completed()?;
    used.ensure(same_bits(&fresh.x, &used.x), || "a used sampler gives another image than a fresh one".into())
}

pub(super) fn keeps_the_images_of_a_batch_apart(subject: &SamplerSubject<'_>, options: &Value) -> Checked {
    let run = |seeds: &[u64]| Trial::steps(6, 0.0).seeds(seeds).by(subject, options)?.completed();
    let (both, singles) = (run(&[4, 5])?, [run(&[4])?.x, run(&[5])?.x].concat());
    both.ensure(same_bits(&both.x, &singles), || "a batch gives other images than one run for each".into())
}
