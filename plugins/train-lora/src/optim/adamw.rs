//! AdamW (Loshchilov and Hutter 2019), with the order of operations of torch's plain CPU path.

use super::optimizer::{Work, put, take, zeros};
use super::state::Taking;
use super::{AdamWConfig, Error, Slot, State};

/// Settings, and the means of gradient and squared gradient.
#[derive(Debug, Clone)]
pub(super) struct AdamW {
    config: AdamWConfig,
    steps: u64,
    mean: Vec<Vec<f32>>,
    square: Vec<Vec<f32>>,
}

impl AdamW {
    pub fn new(config: AdamWConfig, slots: &[Slot]) -> Self {
        Self { config, steps: 0, mean: zeros(slots), square: zeros(slots) }
    }

    pub fn step(&mut self, work: &mut [Work]) {
        self.steps += 1;
        let [beta1, beta2] = self.config.betas;
        let t = self.steps as f64;
        let (correction, root) = (1.0 - beta1.powf(t), (1.0 - beta2.powf(t)).sqrt() as f32);
        let (new, keep2, new2) = ((1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32);
        let eps = self.config.eps as f32;
        for ((w, mean), square) in work.iter_mut().zip(&mut self.mean).zip(&mut self.square) {
            let keep = (1.0 - w.lr * w.weight_decay) as f32;
            let size = (-w.lr / correction) as f32;
            for (((p, &g), m), v) in w.param.iter_mut().zip(w.grad).zip(mean).zip(square) {
                *m += new * (g - *m);
                *v = *v * keep2 + new2 * g * g;
                *p = *p * keep + size * *m / (v.sqrt() / root + eps);
            }
        }
    }

    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub fn state(&self, slots: &[Slot]) -> State {
        let mut state = State::new("adamw").with("step", self.steps as f64);
        put("exp_avg", slots, &self.mean, &mut state);
        put("exp_avg_sq", slots, &self.square, &mut state);
        state
    }

    pub fn take(config: AdamWConfig, slots: &[Slot], from: &mut Taking) -> Result<Self, Error> {
        Ok(Self {
            config,
            steps: from.count("step")?,
            mean: take("exp_avg", slots, from)?,
            square: take("exp_avg_sq", slots, from)?,
        })
    }
}
