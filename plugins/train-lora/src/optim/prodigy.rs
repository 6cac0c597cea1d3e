//! Prodigy (Mishchenko and Defazio 2023, "Prodigy: an expeditiously adaptive parameter-free learner").
//!
//! Adam whose learning rate is multiplied by `d`, a lower bound of the distance from the start to the solution,
//! estimated from the gradients along the way. Names follow the paper; sums run in f64 in the order of tensors. Where
//! the authors' code departs from the paper - a first beta of 0, groups switched off - this does not.

use super::optimizer::{Work, put, take, zeros};
use super::state::Taking;
use super::{Error, ProdigyConfig, Slot, State};

/// Settings, means, and what the estimate is made of.
#[derive(Debug, Clone)]
pub(super) struct Prodigy {
    config: ProdigyConfig,
    steps: u64,
    d: f64,
    d_max: f64,
    /// Running sum of `<g, x0 - x>`.
    numerator: f64,
    /// Whether `start` was taken.
    started: bool,
    mean: Vec<Vec<f32>>,
    square: Vec<Vec<f32>>,
    /// Running sum of gradients.
    s: Vec<Vec<f32>>,
    /// The parameters at the first step.
    start: Vec<Vec<f32>>,
}

impl Prodigy {
    pub fn new(config: ProdigyConfig, slots: &[Slot]) -> Self {
        Self {
            config,
            steps: 0,
            d: config.d0,
            d_max: config.d0,
            numerator: 0.0,
            started: false,
            mean: zeros(slots),
            square: zeros(slots),
            s: zeros(slots),
            start: zeros(slots),
        }
    }

    /// A group with a rate of 0 is left alone; so is everything when all are, as at the start of a warm-up.
    pub fn step(&mut self, work: &mut [Work]) {
        if !self.started {
            self.start.iter_mut().zip(work.iter()).for_each(|(s, w)| s.copy_from_slice(w.param));
            self.started = true;
        }
        let lr = work.iter().map(|w| w.lr).fold(0.0, f64::max);
        let dlr = self.d * lr * self.bias_correction();
        let (numerator, denominator) = self.gather(work, dlr);
        // No gradient at all: there is nothing to follow, and nothing to estimate from.
        if denominator == 0.0 {
            return;
        }
        self.estimate_again(numerator, denominator);
        self.follow(work, dlr);
        self.steps += 1;
    }

    fn bias_correction(&self) -> f64 {
        let [beta1, beta2] = self.config.betas;
        let t = (self.steps + 1) as f64;
        if self.config.use_bias_correction {
            (1.0 - beta2.powf(t)).sqrt() / (1.0 - beta1.powf(t))
        } else {
            1.0
        }
    }

    /// Takes the gradients into the means; the new part of the numerator, and the denominator.
    fn gather(&mut self, work: &[Work], dlr: f64) -> (f64, f64) {
        let (c, d) = (&self.config, self.d);
        let [beta1, beta2] = c.betas;
        let (keep1, new1) = (beta1 as f32, (d * (1.0 - beta1)) as f32);
        let (keep2, new2) = (beta2 as f32, (d * d * (1.0 - beta2)) as f32);
        let step = if c.safeguard_warmup { d } else { dlr };
        let (keep3, new3) = (c.beta3.unwrap_or(beta2.sqrt()) as f32, (d / c.d0 * step) as f32);
        let (mut numerator, mut denominator) = (0.0, 0.0);
        for (i, w) in work.iter().enumerate().filter(|(_, w)| w.lr > 0.0) {
            let coupled = if c.decouple { 0.0 } else { w.weight_decay as f32 };
            let means = self.mean[i].iter_mut().zip(&mut self.square[i]).zip(&mut self.s[i]);
            let points = w.param.iter().zip(&self.start[i]);
            let (mut towards, mut size) = (0.0, 0.0);
            for ((&g, (&p, &p0)), ((m, v), s)) in w.grad.iter().zip(points).zip(means) {
                let g = g + coupled * p;
                towards += f64::from(g) * f64::from(p0 - p);
                *m = *m * keep1 + new1 * g;
                *v = *v * keep2 + new2 * g * g;
                *s = *s * keep3 + new3 * g;
                size += f64::from(s.abs());
            }
            numerator += d / c.d0 * dlr * towards;
            denominator += size;
        }
        (numerator, denominator)
    }

    fn estimate_again(&mut self, numerator: f64, denominator: f64) {
        let c = &self.config;
        self.numerator = self.numerator * c.beta3.unwrap_or(c.betas[1].sqrt()) + numerator;
        let d_hat = c.d_coef * self.numerator / denominator;
        if self.d == c.d0 {
            self.d = self.d.max(d_hat);
        }
        self.d_max = self.d_max.max(d_hat);
        self.d = self.d_max.min(self.d * c.growth_rate.unwrap_or(f64::INFINITY));
    }

    /// The step itself: its size is of the estimate before, its `eps` of the estimate after.
    fn follow(&self, work: &mut [Work], dlr: f64) {
        let eps = (self.d * self.config.eps) as f32;
        let size = -dlr as f32;
        for (i, w) in work.iter_mut().enumerate().filter(|(_, w)| w.lr > 0.0) {
            let decay = if self.config.decouple { (w.weight_decay * dlr) as f32 } else { 0.0 };
            for ((p, m), v) in w.param.iter_mut().zip(&self.mean[i]).zip(&self.square[i]) {
                *p -= decay * *p;
                *p += size * m / (v.sqrt() + eps);
            }
        }
    }

    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub fn estimate(&self) -> f64 {
        self.d
    }

    pub fn state(&self, slots: &[Slot]) -> State {
        let mut state = State::new("prodigy")
            .with("step", self.steps as f64)
            .with("d", self.d)
            .with("d_max", self.d_max)
            .with("d_numerator", self.numerator)
            .with("started", f64::from(u8::from(self.started)));
        put("exp_avg", slots, &self.mean, &mut state);
        put("exp_avg_sq", slots, &self.square, &mut state);
        put("s", slots, &self.s, &mut state);
        put("p0", slots, &self.start, &mut state);
        state
    }

    pub fn take(config: ProdigyConfig, slots: &[Slot], from: &mut Taking) -> Result<Self, Error> {
        let distance = |v: f64| v > 0.0 && v.is_finite();
        Ok(Self {
            config,
            steps: from.count("step")?,
            d: from.scalar("d", distance)?,
            d_max: from.scalar("d_max", distance)?,
            numerator: from.scalar("d_numerator", f64::is_finite)?,
            started: from.scalar("started", |v| v == 0.0 || v == 1.0)? == 1.0,
            mean: take("exp_avg", slots, from)?,
            square: take("exp_avg_sq", slots, from)?,
            s: take("s", slots, from)?,
            start: take("p0", slots, from)?,
        })
    }
}
