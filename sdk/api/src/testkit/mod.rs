//! The contract of samplers and schedules as checks that anyone can run.
//!
//! A check sees a plugin only from outside: through its constructor, and through a host that counts, and fails
//! where it is asked to. So the same checks serve a crate's own tests ([`crate::sampler_conformance!`],
//! [`crate::schedule_conformance!`]) and a host that looks at a plugin it has just loaded ([`check_sampler`],
//! [`check_schedule`]). Results are data: a plugin that fails, panics, asks for ever or does not return makes
//! a failed check, never a panic of the kit. A run that does not return is left behind on its thread, which lasts
//! as long as the process does. A constructor that does not return is waited for: it runs on the caller's thread.
//!
//! The model of these checks is the ideal denoiser of standard normal data, `D(x, sigma) = x / (1 + sigma^2)`,
//! for which the reverse process is known: from level `S` to level `s` the probability-flow ODE leads to
//! `x sqrt((1 + s^2) / (1 + S^2))`, and any correct stochastic process keeps the variance at `1 + s^2`.

mod authors;
mod guard;
mod options;
mod report;
mod sampler;
mod schedule;

#[cfg(test)]
mod tests;

#[doc(hidden)]
pub use authors::{Failure, test_sampler, test_schedule};
pub use report::{Check, Outcome, Report};
pub use sampler::{SAMPLER_CHECKS, SamplerCheck, SamplerSubject, check_sampler};
pub use schedule::{SCHEDULE_CHECKS, ScheduleCheck, ScheduleSubject, check_schedule};
