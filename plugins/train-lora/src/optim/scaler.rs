//! A dynamic scale of the loss, which keeps gradients within the range of f16.

use super::config::{positive, range};
use super::{Error, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the scale; the defaults are those of `torch.amp.GradScaler`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LossScalerConfig {
    /// The scale at first.
    pub init_scale: f64,
    /// Factor of the scale after enough good steps.
    pub growth_factor: f64,
    /// Factor of the scale after a bad step.
    pub backoff_factor: f64,
    /// How many good steps in a row are enough.
    pub growth_interval: u64,
}

impl Default for LossScalerConfig {
    fn default() -> Self {
        Self { init_scale: 65536.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000 }
    }
}

/// What to do with the gradients of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are finite, and in their own scale now.
    Step,
    /// They overflowed: leave the parameters as they are; the scale is smaller now.
    Skip,
}

/// Multiplies the loss before the backward pass, and divides the gradients after it.
#[derive(Debug, Clone)]
pub struct LossScaler {
    config: LossScalerConfig,
    scale: f32,
    good: u64,
    skipped: u64,
}

impl LossScaler {
    /// A scaler at its first step.
    ///
    /// # Errors
    /// [`Error::Setting`] for what is out of range.
    pub fn new(config: LossScalerConfig) -> Result<Self, Error> {
        let c = &config;
        positive("init_scale", c.init_scale)?;
        positive("init_scale", f64::from(c.init_scale as f32))?;
        range(
            "growth_factor",
            c.growth_factor,
            c.growth_factor > 1.0 && c.growth_factor.is_finite(),
            "above 1",
        )?;
        let shrinks = c.backoff_factor > 0.0 && c.backoff_factor < 1.0;
        range("backoff_factor", c.backoff_factor, shrinks, "between 0 and 1")?;
        range("growth_interval", c.growth_interval as f64, c.growth_interval > 0, "at least 1")?;
        Ok(Self { config, scale: config.init_scale as f32, good: 0, skipped: 0 })
    }

    /// The factor of the loss.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// How many steps were skipped in a row up to now; many of them mean that no scale helps.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Brings the gradients of a whole step back to their own scale, and adapts the scale to how they were.
    pub fn unscale(&mut self, grads: &mut [Vec<f32>]) -> Verdict {
        let inverse = (1.0 / f64::from(self.scale)) as f32;
        let mut finite = true;
        for g in grads.iter_mut().flatten() {
            finite &= g.is_finite();
            *g *= inverse;
        }
        self.adapt(finite);
        if finite { Verdict::Step } else { Verdict::Skip }
    }

    fn adapt(&mut self, finite: bool) {
        if !finite {
            self.scale = (f64::from(self.scale) * self.config.backoff_factor) as f32;
            // A scale of nothing would make every gradient infinite for ever.
            self.scale = self.scale.max(f32::MIN_POSITIVE);
            (self.good, self.skipped) = (0, self.skipped + 1);
            return;
        }
        (self.good, self.skipped) = (self.good + 1, 0);
        if self.good >= self.config.growth_interval {
            let grown = (f64::from(self.scale) * self.config.growth_factor) as f32;
            self.scale = if grown.is_finite() { grown } else { self.scale };
            self.good = 0;
        }
    }

    /// Everything the next step depends on, beside the settings.
    pub fn state(&self) -> State {
        State::new("loss_scaler")
            .with("scale", f64::from(self.scale))
            .with("growth_tracker", self.good as f64)
            .with("skipped", self.skipped as f64)
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// The state is something else's, lacks something, or has something too many. Nothing has changed then.
    pub fn restore(&mut self, state: State) -> Result<(), Error> {
        let mut taking = state.open("loss_scaler")?;
        let fits = |v: f64| v > 0.0 && v.is_finite() && f64::from(v as f32) == v;
        let scale = taking.scalar("scale", fits)? as f32;
        let (good, skipped) = (taking.count("growth_tracker")?, taking.count("skipped")?);
        taking.finish()?;
        (self.scale, self.good, self.skipped) = (scale, good, skipped);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaler(growth_interval: u64) -> LossScaler {
        LossScaler::new(LossScalerConfig { growth_interval, ..Default::default() }).unwrap()
    }

    #[test]
    fn gradients_come_back_to_their_own_scale() {
        let mut s = scaler(2000);
        let mut grads = vec![vec![65536.0 * 0.25, 0.0], vec![]];
        assert_eq!(s.unscale(&mut grads), Verdict::Step);
        assert_eq!(grads, [vec![0.25, 0.0], vec![]]);
        assert_eq!(s.scale(), 65536.0);
    }

    #[test]
    fn overflow_halves_the_scale_and_good_steps_in_a_row_double_it() {
        let mut s = scaler(3);
        let mut scales = vec![];
        for good in [true, true, false, true, true, true, false, false, true] {
            let mut grads = vec![vec![1.0], vec![if good { 1.0 } else { f32::INFINITY }]];
            assert_eq!(s.unscale(&mut grads) == Verdict::Step, good);
            scales.push(s.scale() / 65536.0);
        }
        assert_eq!(scales, [1.0, 1.0, 0.5, 0.5, 0.5, 1.0, 0.5, 0.25, 0.25]);
        assert_eq!(s.skipped(), 0);
    }

    #[test]
    fn the_scale_never_becomes_nothing_nor_infinite() {
        let mut s = scaler(1);
        (0..400).for_each(|_| assert_eq!(s.unscale(&mut [vec![f32::NAN]]), Verdict::Skip));
        assert!(s.scale() > 0.0 && s.skipped() == 400);
        (0..600).for_each(|_| assert_eq!(s.unscale(&mut [vec![0.0]]), Verdict::Step));
        assert!(s.scale().is_finite() && s.scale() > 1e38);
    }

    #[test]
    fn a_restored_scaler_goes_on_as_the_one_that_was_saved() {
        let mut a = scaler(3);
        a.unscale(&mut [vec![f32::NAN]]);
        a.unscale(&mut [vec![1.0]]);
        let json = serde_json::to_string(&a.state()).unwrap();
        let mut b = scaler(3);
        b.restore(serde_json::from_str(&json).unwrap()).unwrap();
        assert_eq!(a.state(), b.state());
    }

    #[test]
    fn settings_and_states_that_cannot_be_are_refused() {
        let with = |c: LossScalerConfig| LossScaler::new(c).is_err();
        let d = LossScalerConfig::default();
        assert!(with(LossScalerConfig { init_scale: 0.0, ..d }));
        assert!(with(LossScalerConfig { init_scale: 1e300, ..d }));
        assert!(with(LossScalerConfig { growth_factor: 1.0, ..d }));
        assert!(with(LossScalerConfig { backoff_factor: 1.0, ..d }));
        assert!(with(LossScalerConfig { growth_interval: 0, ..d }));
        let mut state = scaler(3).state();
        state.scalars.insert("scale".into(), f64::NAN);
        assert!(matches!(scaler(3).restore(state), Err(Error::Damaged { .. })));
        let mut state = scaler(3).state();
        state.scalars.remove("growth_tracker");
        assert!(matches!(scaler(3).restore(state), Err(Error::Missing { .. })));
    }
}
