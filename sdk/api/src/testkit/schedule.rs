//! What a schedule must do whatever its formula is.

use super::guard::{self, PATIENCE, within};
use super::options::Options;
use super::report::{Checked, Outcome, Report, ensure, fail, words};
use crate::error::Result;
use crate::schedule::{NoiseLevels, Schedule};
use serde_json::{Value, json};

/// A schedule as the checks see it: its schema, and how to make one.
#[derive(Clone, Copy)]
pub struct ScheduleSubject<'a> {
    /// Its key.
    pub key: &'a str,
    /// Schema of its options.
    pub schema: &'a Value,
    /// Makes one from JSON options.
    pub make: &'a dyn Fn(&Value) -> Result<Box<dyn Schedule>>,
}

/// One check of a schedule that is made with the given options. It does not panic.
pub type ScheduleCheck = fn(&ScheduleSubject<'_>, &Value) -> Outcome;

// The one list of checks, for the table below and for the tests that `schedule_conformance!` makes.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_schedule_check {
    ($($callback:tt)+) => {
        $($callback)+! {
            options_accept_their_own_defaults
            options_refuse_unknown_fields
            every_option_is_described
            written_out_defaults_change_nothing
            gives_one_level_more_than_steps
            descends_strictly_to_zero
            starts_no_higher_than_the_model
            gives_the_same_levels_every_time
            does_no_harm_without_steps
        }
    };
}

macro_rules! table {
    ($($name:ident)*) => {
        &[$((stringify!($name), |subject, options| guard::guarded(|| $name(subject, options)))),*]
    };
}

/// Every check of a schedule, by name.
pub const SCHEDULE_CHECKS: &[(&str, ScheduleCheck)] = __each_schedule_check!(table);

/// Runs every check on a schedule with `options`, which should not ask for levels above the model's.
pub fn check_schedule(subject: &ScheduleSubject<'_>, options: &Value) -> Report {
    let checks = SCHEDULE_CHECKS.iter().map(|(name, check)| (*name, || check(subject, options)));
    guard::report(subject.key, PATIENCE, checks)
}

fn with_options<T>(subject: &ScheduleSubject<'_>, check: impl FnOnce(&Options<'_>) -> T) -> T {
    let make = |options: &Value| -> Result<()> { (subject.make)(options).map(drop) };
    check(&Options { schema: subject.schema, make: &make })
}

fn options_accept_their_own_defaults(subject: &ScheduleSubject<'_>, options: &Value) -> Checked {
    with_options(subject, |o| o.accept_their_own_defaults(options))
}

fn options_refuse_unknown_fields(subject: &ScheduleSubject<'_>, _options: &Value) -> Checked {
    with_options(subject, |o| o.refuse_unknown_fields())
}

fn every_option_is_described(subject: &ScheduleSubject<'_>, _options: &Value) -> Checked {
    with_options(subject, |o| o.are_described())
}

fn written_out_defaults_change_nothing(subject: &ScheduleSubject<'_>, _options: &Value) -> Checked {
    let written_out = with_options(subject, |o| o.written_out());
    let levels = |options| All::of(subject, options, 20..=20);
    ensure(levels(&json!({}))?.same(&levels(&written_out)?), || {
        format!("other levels with {written_out}, the defaults of its schema, than with {{}}")
    })
}

fn gives_one_level_more_than_steps(subject: &ScheduleSubject<'_>, options: &Value) -> Checked {
    All::of(subject, options, STEPS)?.each(|steps, sigmas, _| {
        ensure(sigmas.len() == steps + 1, || format!("gives {} levels", sigmas.len()))
    })
}

fn descends_strictly_to_zero(subject: &ScheduleSubject<'_>, options: &Value) -> Checked {
    All::of(subject, options, STEPS)?.each(|_, sigmas, _| {
        let strictly = sigmas.windows(2).all(|w| w[0] > w[1]) && sigmas.iter().all(|s| s.is_finite());
        ensure(strictly && sigmas.last() == Some(&0.0), || format!("does not descend to 0: {sigmas:?}"))
    })
}

fn starts_no_higher_than_the_model(subject: &ScheduleSubject<'_>, options: &Value) -> Checked {
    All::of(subject, options, STEPS)?.each(|_, sigmas, levels| {
        let (first, highest) = (f64::from(sigmas.first().copied().unwrap_or(0.0)), levels.max());
        // A level is rounded to f32.
        ensure(first <= highest * (1.0 + 1e-6), || {
            format!("starts at {first}, where the highest level of the model is {highest}")
        })
    })
}

fn gives_the_same_levels_every_time(subject: &ScheduleSubject<'_>, options: &Value) -> Checked {
    let once = All::of(subject, options, STEPS)?;
    let schedule = make(subject, options)?;
    let (schedule, first) = All::by(schedule, STEPS)?;
    let (_, again) = All::by(schedule, STEPS)?;
    ensure(once.same(&first), || "two schedules of the same options give different levels".into())?;
    ensure(first.same(&again), || "gives other levels when asked again".into())
}

/// A refusal, or the single level at which nothing happens.
fn does_no_harm_without_steps(subject: &ScheduleSubject<'_>, options: &Value) -> Checked {
    let schedule = make(subject, options)?;
    let (_, levels) = processes()?.swap_remove(0);
    let sigmas = within(PATIENCE, move || schedule.sigmas(0, &levels))?.unwrap_or_default();
    ensure(sigmas.len() < 2, || format!("gives {} levels for no steps", sigmas.len()))
}

const STEPS: std::ops::RangeInclusive<usize> = 1..=50;

fn make(subject: &ScheduleSubject<'_>, options: &Value) -> Checked<Box<dyn Schedule>> {
    (subject.make)(options).or_else(|e| fail(format!("cannot be made with {options}: {}", words(&e))))
}

/// The levels of Stable Diffusion, and those of DDPM, which go ten times as high.
fn processes() -> Checked<Vec<(&'static str, NoiseLevels)>> {
    let sd = NoiseLevels::from_betas(&NoiseLevels::scaled_linear_betas(0.00085, 0.012, 1000));
    let ddpm = NoiseLevels::from_betas(&NoiseLevels::linear_betas(0.0001, 0.02, 1000));
    [("Stable Diffusion", sd), ("DDPM", ddpm)]
        .into_iter()
        .map(|(name, levels)| levels.map(|l| (name, l)).or_else(|e| fail(words(&e))))
        .collect()
}

/// One answer of a schedule.
struct Levels {
    process: &'static str,
    steps: usize,
    sigmas: Vec<f32>,
    levels: NoiseLevels,
}

/// The answers of a schedule for every process and number of steps.
struct All(Vec<Levels>);

impl All {
    fn of(
        subject: &ScheduleSubject<'_>,
        options: &Value,
        steps: std::ops::RangeInclusive<usize>,
    ) -> Checked<Self> {
        Ok(Self::by(make(subject, options)?, steps)?.1)
    }

    fn by(
        schedule: Box<dyn Schedule>,
        steps: std::ops::RangeInclusive<usize>,
    ) -> Checked<(Box<dyn Schedule>, Self)> {
        let processes = processes()?;
        within(PATIENCE, move || {
            let mut all = Vec::new();
            for (process, levels) in processes {
                for steps in steps.clone() {
                    let sigmas = schedule.sigmas(steps, &levels).or_else(|e| {
                        fail(format!("{steps} steps of {process}: fails with `{}`", words(&e)))
                    })?;
                    all.push(Levels { process, steps, sigmas, levels: levels.clone() });
                }
            }
            Ok((schedule, Self(all)))
        })?
    }

    fn each(&self, check: impl Fn(usize, &[f32], &NoiseLevels) -> Checked) -> Checked {
        self.0.iter().try_for_each(|l| {
            let title = || format!("{} steps of {}", l.steps, l.process);
            check(l.steps, &l.sigmas, &l.levels).map_err(|outcome| outcome.of(&title()))
        })
    }

    fn same(&self, other: &Self) -> bool {
        let bits = |all: &Self| -> Vec<Vec<u32>> {
            all.0.iter().map(|l| l.sigmas.iter().map(|s| s.to_bits()).collect()).collect()
        };
        bits(self) == bits(other)
    }
}
