//! The checks as tests of a plugin author's crate.

use super::report::Outcome;
use super::sampler::{SAMPLER_CHECKS, SamplerSubject};
use super::schedule::{SCHEDULE_CHECKS, ScheduleSubject};
use crate::sampler::{SamplerPlugin, SamplerReg};
use crate::schedule::{SchedulePlugin, ScheduleReg};
use serde_json::Value;
use std::fmt;

/// What a failed check makes a test say: a test that returns an error shows its `Debug` form.
pub struct Failure(String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs the check `name` on `T` with `options`, once `declare` has put in what they change of `T::INFO`.
///
/// # Errors
/// The check failed.
pub fn test_sampler<T: SamplerPlugin>(
    name: &str,
    options: &Value,
    declare: impl FnOnce(SamplerSubject<'_>) -> SamplerSubject<'_>,
) -> Result<(), Failure> {
    let reg = SamplerReg::of::<T>(module_path!());
    let schema = (reg.schema)();
    let subject = declare(SamplerSubject {
        key: reg.info.key,
        evaluations: reg.info.evaluations,
        order: reg.info.order,
        stochastic: reg.info.stochastic,
        schema: &schema,
        make: &reg.make,
    });
    let check = SAMPLER_CHECKS.iter().find(|(n, _)| *n == name).map(|(_, check)| check(&subject, options));
    said(subject.key, name, check)
}

/// Runs the check `name` on `T` with `options`.
///
/// # Errors
/// The check failed.
pub fn test_schedule<T: SchedulePlugin>(name: &str, options: &Value) -> Result<(), Failure> {
    let reg = ScheduleReg::of::<T>(module_path!());
    let schema = (reg.schema)();
    let subject = ScheduleSubject { key: reg.info.key, schema: &schema, make: &reg.make };
    let check = SCHEDULE_CHECKS.iter().find(|(n, _)| *n == name).map(|(_, check)| check(&subject, options));
    said(subject.key, name, check)
}

fn said(key: &str, name: &str, outcome: Option<Outcome>) -> Result<(), Failure> {
    match outcome {
        Some(Outcome::Passed) => Ok(()),
        Some(Outcome::Skipped(why)) => {
            println!("`{key}`: {name} skipped: {why}");
            Ok(())
        }
        Some(Outcome::Failed(what)) => Err(Failure(format!("`{key}`: {what}"))),
        None => Err(Failure(format!("there is no check `{name}`"))),
    }
}

/// Makes a module with one test for each check of the contract of samplers, for a type that is a
/// [`SamplerPlugin`]. Where a check does not apply, the test says why.
///
/// ```text
/// atelier_sdk::sampler_conformance!(Heun);
/// // With options: a second module needs a name. What they change of `INFO` follows.
/// atelier_sdk::sampler_conformance!(mod churned, Heun, {"s_churn": 20.0});
/// atelier_sdk::sampler_conformance!(mod first_order, Multistep, {"order": 1}, order = 1, evaluations = 1);
/// ```
///
/// The crate needs the sdk's feature `testkit` among its `dev-dependencies`, and nothing else.
#[macro_export]
macro_rules! sampler_conformance {
    (mod $module:ident, $sampler:ty) => {
        $crate::sampler_conformance!(mod $module, $sampler, {});
    };
    (mod $module:ident, $sampler:ty, $options:tt $(, $declared:ident = $value:expr)* $(,)?) => {
        #[cfg(test)]
        mod $module {
            #[allow(unused_imports)]
            use super::*;

            fn check(name: &str) -> Result<(), $crate::testkit::Failure> {
                let options = $crate::serde_json::json!($options);
                $crate::testkit::test_sampler::<$sampler>(name, &options, |subject| {
                    $crate::testkit::SamplerSubject { $($declared: $value,)* ..subject }
                })
            }

            $crate::__each_sampler_check!($crate::__conformance_tests);
        }
    };
    ($sampler:ty $(, $($rest:tt)*)?) => {
        $crate::sampler_conformance!(mod sampler_conformance, $sampler $(, $($rest)*)?);
    };
}

/// Makes a module with one test for each check of the contract of schedules, for a type that is a
/// [`SchedulePlugin`].
///
/// ```text
/// atelier_sdk::schedule_conformance!(Karras);
/// atelier_sdk::schedule_conformance!(mod flat, Karras, {"rho": 1.0});
/// ```
///
/// The crate needs the sdk's feature `testkit` among its `dev-dependencies`, and nothing else.
#[macro_export]
macro_rules! schedule_conformance {
    (mod $module:ident, $schedule:ty) => {
        $crate::schedule_conformance!(mod $module, $schedule, {});
    };
    (mod $module:ident, $schedule:ty, $options:tt $(,)?) => {
        #[cfg(test)]
        mod $module {
            #[allow(unused_imports)]
            use super::*;

            fn check(name: &str) -> Result<(), $crate::testkit::Failure> {
                $crate::testkit::test_schedule::<$schedule>(name, &$crate::serde_json::json!($options))
            }

            $crate::__each_schedule_check!($crate::__conformance_tests);
        }
    };
    ($schedule:ty $(, $($rest:tt)*)?) => {
        $crate::schedule_conformance!(mod schedule_conformance, $schedule $(, $($rest)*)?);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($($name:ident)*) => {
        $(#[test] fn $name() -> Result<(), $crate::testkit::Failure> { check(stringify!($name)) })*
    };
}
