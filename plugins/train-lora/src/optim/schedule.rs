//! The learning rate over the course of a run.

use super::Error;
use super::config::{positive, range, share};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How the learning rate goes on after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Stays.
    #[default]
    Constant,
    /// Falls in a straight line to zero.
    Linear,
    /// Falls along half a wave to zero.
    Cosine,
    /// Falls along half a wave to zero, several times.
    CosineWithRestarts,
    /// Falls along a power of what is left of the run.
    Polynomial,
}

/// A factor of the learning rate for each step; the same numbers as diffusers' schedulers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LrSchedule {
    /// How the rate goes on after the warm-up.
    pub shape: Shape,
    /// Steps over which the rate rises from zero in a straight line.
    pub warmup_steps: u64,
    /// How many times `cosine_with_restarts` falls.
    pub cycles: u32,
    /// The power of `polynomial`.
    pub power: f64,
    /// Where `polynomial` ends, as a share of the learning rate.
    pub end: f64,
}

impl Default for LrSchedule {
    fn default() -> Self {
        Self { shape: Shape::Constant, warmup_steps: 0, cycles: 1, power: 1.0, end: 0.0 }
    }
}

impl LrSchedule {
    /// Checks every setting for its range.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first that is out of range.
    pub fn check(&self) -> Result<(), Error> {
        range("cycles", f64::from(self.cycles), self.cycles > 0, "at least 1")?;
        positive("power", self.power)?;
        share("end", self.end, f64::INFINITY)
    }

    /// The factor for a step, counted from 0, of a run of `total` optimiser steps. With a warm-up the first is 0.
    /// After the end of the run it stays what it was there.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        if step < self.warmup_steps {
            return step as f64 / self.warmup_steps as f64;
        }
        let rest = total.saturating_sub(self.warmup_steps).max(1) as f64;
        let gone = ((step - self.warmup_steps) as f64 / rest).min(1.0);
        let wave = |x: f64| 0.5 * (1.0 + (PI * x).cos());
        match self.shape {
            Shape::Constant => 1.0,
            Shape::Linear => total.saturating_sub(step) as f64 / rest,
            Shape::Cosine => wave(gone),
            Shape::CosineWithRestarts if gone >= 1.0 => 0.0,
            Shape::CosineWithRestarts => wave((f64::from(self.cycles) * gone).fract()),
            Shape::Polynomial => (1.0 - self.end) * (1.0 - gone).powf(self.power) + self.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Factors that diffusers' `get_scheduler` gave.
    #[test]
    fn factors_are_those_of_diffusers() {
        let all: Value = serde_json::from_str(include_str!("../../tests/fixtures/schedules.json")).unwrap();
        for case in all.as_array().unwrap() {
            let schedule: LrSchedule = serde_json::from_value(case["schedule"].clone()).unwrap();
            let total = case["total"].as_u64().unwrap();
            for (step, expected) in case["factors"].as_array().unwrap().iter().enumerate() {
                let got = schedule.factor(step as u64, total);
                assert!(
                    (got - expected.as_f64().unwrap()).abs() < 1e-12,
                    "{schedule:?} {step}: {got} {expected}"
                );
            }
        }
    }

    #[test]
    fn no_step_of_any_run_has_a_factor_below_zero_or_above_one() {
        for shape in
            [Shape::Constant, Shape::Linear, Shape::Cosine, Shape::CosineWithRestarts, Shape::Polynomial]
        {
            for (warmup_steps, total) in [(0, 0), (0, 1), (5, 3), (5, 5), (3, 10), (u64::MAX, u64::MAX)] {
                let s = LrSchedule { shape, warmup_steps, cycles: 3, ..Default::default() };
                for step in (0..30).chain([u64::MAX - 1, u64::MAX]) {
                    let f = s.factor(step, total);
                    assert!((0.0..=1.0).contains(&f), "{s:?} {step} of {total}: {f}");
                }
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let d = LrSchedule::default();
        assert!(d.check().is_ok());
        assert!(LrSchedule { cycles: 0, ..d }.check().is_err());
        assert!(LrSchedule { power: 0.0, ..d }.check().is_err());
        assert!(LrSchedule { end: f64::NAN, ..d }.check().is_err());
    }
}
