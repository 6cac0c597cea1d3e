//! Lion (Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2).

use super::optimizer::{Work, put, take, zeros};
use super::state::Taking;
use super::{Error, LionConfig, Slot, State};

/// Settings and momentum.
#[derive(Debug, Clone)]
pub(super) struct Lion {
    config: LionConfig,
    steps: u64,
    momentum: Vec<Vec<f32>>,
}

impl Lion {
    pub fn new(config: LionConfig, slots: &[Slot]) -> Self {
        Self { config, steps: 0, momentum: zeros(slots) }
    }

    pub fn step(&mut self, work: &mut [Work]) {
        self.steps += 1;
        let [beta1, beta2] = self.config.betas;
        let (keep1, new1) = (beta1 as f32, (1.0 - beta1) as f32);
        let (keep2, new2) = (beta2 as f32, (1.0 - beta2) as f32);
        for (w, momentum) in work.iter_mut().zip(&mut self.momentum) {
            let (keep, lr) = ((1.0 - w.lr * w.weight_decay) as f32, w.lr as f32);
            for ((p, &g), m) in w.param.iter_mut().zip(w.grad).zip(momentum) {
                *p = *p * keep - lr * sign(*m * keep1 + new1 * g);
                *m = *m * keep2 + new2 * g;
            }
        }
    }

    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub fn state(&self, slots: &[Slot]) -> State {
        let mut state = State::new("lion").with("step", self.steps as f64);
        put("exp_avg", slots, &self.momentum, &mut state);
        state
    }

    pub fn take(config: LionConfig, slots: &[Slot], from: &mut Taking) -> Result<Self, Error> {
        Ok(Self { config, steps: from.count("step")?, momentum: take("exp_avg", slots, from)? })
    }
}

/// Zero for zero, unlike [`f32::signum`]: what has no gradient must not move.
fn sign(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.signum() }
}
