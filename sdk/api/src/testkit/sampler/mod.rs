//! What a sampler must do whatever its formula is.

mod accuracy;
mod declared;
mod errors;
mod options;
mod probe;
mod repeat;
mod steps;
mod trial;

use super::guard::{self, PATIENCE};
use super::report::{Checked, Outcome, Report, fail, words};
use crate::error::Result;
use crate::sampler::Sampler;
use serde_json::Value;

/// A sampler as the checks see it: what it says of itself, and how to make one.
#[derive(Clone, Copy)]
pub struct SamplerSubject<'a> {
    /// Its key.
    pub key: &'a str,
    /// Model evaluations per step that it declares.
    pub evaluations: u32,
    /// Order of convergence that it declares, 0 if stochastic.
    pub order: u32,
    /// Whether it says that it draws noise with its default options.
    pub stochastic: bool,
    /// Schema of its options.
    pub schema: &'a Value,
    /// Makes one from JSON options.
    pub make: &'a dyn Fn(&Value) -> Result<Box<dyn Sampler>>,
}

impl SamplerSubject<'_> {
    /// A fresh sampler; one that cannot be made fails the check that wants it.
    fn sampler(&self, options: &Value) -> Checked<Box<dyn Sampler>> {
        (self.make)(options).or_else(|e| fail(format!("cannot be made with {options}: {}", words(&e))))
    }
}

/// One check of a sampler that is made with the given options. It does not panic.
pub type SamplerCheck = fn(&SamplerSubject<'_>, &Value) -> Outcome;

// The one list of checks, for the table below and for the tests that `sampler_conformance!` makes.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_sampler_check {
    ($($callback:tt)+) => {
        $($callback)+! {
            options_accept_their_own_defaults
            options_refuse_unknown_fields
            every_option_is_described
            written_out_defaults_change_nothing
            leaves_the_latents_alone_without_steps
            refuses_levels_that_do_not_descend
            stays_finite_in_runs_of_any_length
            reports_each_step_once_and_in_order
            takes_latents_of_any_shape
            asks_only_what_a_host_can_answer
            makes_the_declared_evaluations
            draws_noise_exactly_if_it_says_so
            declares_an_order_exactly_if_deterministic
            converges_with_its_order
            arrives_at_the_exact_image
            keeps_the_variance_of_the_process
            gives_the_denoised_image_at_level_zero
            gives_the_same_bits_for_the_same_noise
            keeps_nothing_from_earlier_runs
            keeps_the_images_of_a_batch_apart
            stops_soon_after_cancellation
            passes_on_an_error_of_denoise
            passes_on_an_error_of_noise
            passes_on_an_error_of_step_done
        }
    };
}

mod checks {
    pub(super) use super::{accuracy::*, declared::*, errors::*, options::*, repeat::*, steps::*};
}

macro_rules! table {
    ($($name:ident)*) => {
        &[$((stringify!($name), |subject, options| guard::guarded(|| checks::$name(subject, options)))),*]
    };
}

/// Every check of a sampler, by name.
pub const SAMPLER_CHECKS: &[(&str, SamplerCheck)] = __each_sampler_check!(table);

/// Runs every check on a sampler with `options`.
///
/// What the subject declares should be true for these options: some change the order of convergence, and a
/// caller who gives such options declares the order that they have. Options that bring in noise need no such
/// care: a sampler that draws noise is checked as a stochastic one.
pub fn check_sampler(subject: &SamplerSubject<'_>, options: &Value) -> Report {
    let checks = SAMPLER_CHECKS.iter().map(|(name, check)| (*name, || check(subject, options)));
    guard::report(subject.key, PATIENCE, checks)
}
