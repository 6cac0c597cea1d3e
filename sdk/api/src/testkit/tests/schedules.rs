//! Each thing that a schedule may do wrong fails the checks that are about it, and no others.

use super::*;
use crate::schedule::NoiseLevels;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Changes the levels of a right schedule.
type Change = fn(&mut Vec<f32>, &AtomicUsize);

/// Equal steps in log sigma, changed.
struct Changed(Change, AtomicUsize);

impl Schedule for Changed {
    fn sigmas(&self, steps: usize, levels: &NoiseLevels) -> Result<Vec<f32>> {
        let ratio = (levels.min() / levels.max()).ln();
        let level = |i| (levels.max() * (ratio * i as f64 / steps as f64).exp()) as f32;
        let mut sigmas: Vec<f32> = (0..steps).map(level).chain([0.0]).collect();
        (self.0)(&mut sigmas, &self.1);
        Ok(sigmas)
    }
}

fn failed_by(change: Change) -> Vec<&'static str> {
    let make = || -> Box<dyn Schedule> { Box::new(Changed(change, AtomicUsize::new(0))) };
    failed(&with_schedule(make, |s| check_schedule(s, &json!({}))))
}

#[test]
fn a_schedule_with_nothing_wrong_passes() {
    assert_eq!(failed_by(|_, _| {}), [""; 0]);
}

#[test]
fn a_wrong_number_of_levels_is_found() {
    let repeated: Change = |sigmas, _| {
        if sigmas.len() > 1 {
            sigmas.insert(0, sigmas[0] * 1.000_000_1);
        }
    };
    assert_eq!(failed_by(repeated), ["gives_one_level_more_than_steps"]);
}

#[test]
fn levels_that_do_not_descend_to_zero_are_found() {
    let changes: [Change; 3] = [
        |sigmas, _| sigmas.last_mut().into_iter().for_each(|s| *s = 0.01),
        |sigmas, _| {
            if sigmas.len() == 7 {
                sigmas[3] = sigmas[2];
            }
        },
        |sigmas, _| {
            if sigmas.len() == 7 {
                sigmas[3] = f32::NAN;
            }
        },
    ];
    for change in changes {
        assert_eq!(failed_by(change), ["descends_strictly_to_zero"]);
    }
}

#[test]
fn a_start_above_the_model_is_found() {
    assert_eq!(failed_by(|sigmas, _| sigmas[0] *= 1.01), ["starts_no_higher_than_the_model"]);
}

#[test]
fn levels_that_change_are_found() {
    let forgetful: Change =
        |sigmas, count| sigmas[0] *= 1.0 - 1e-4 * count.fetch_add(1, Ordering::Relaxed) as f32;
    assert_eq!(failed_by(forgetful), ["gives_the_same_levels_every_time"]);
}

#[test]
fn a_panic_without_steps_is_found() {
    let indexes: Change = |sigmas, _| {
        let _ = sigmas[1];
    };
    assert_eq!(failed_by(indexes), ["does_no_harm_without_steps"]);
}
