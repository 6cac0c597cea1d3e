//! One optimiser over all tensors that are trained.

use super::adamw::AdamW;
use super::config::share;
use super::lion::Lion;
use super::prodigy::Prodigy;
use super::state::Taking;
use super::{Error, OptimizerConfig, State};
use std::collections::BTreeSet;

/// A tensor that is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name, under which its state is saved.
    pub name: String,
    /// Number of elements.
    pub len: usize,
    /// Index of its group.
    pub group: usize,
}

/// Tensors with a learning rate and a weight decay of their own, such as those of the text encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// What the group is called in logs.
    pub name: String,
    /// Factor of the learning rate.
    pub lr_factor: f64,
    /// Weight decay, if not that of the configuration.
    pub weight_decay: Option<f64>,
}

/// An optimiser with its state.
#[derive(Debug, Clone)]
pub struct Optimizer {
    config: OptimizerConfig,
    slots: Vec<Slot>,
    groups: Vec<Group>,
    method: Method,
}

#[derive(Debug, Clone)]
enum Method {
    AdamW(AdamW),
    Lion(Lion),
    Prodigy(Box<Prodigy>),
}

/// A tensor with what one step needs of it.
pub(super) struct Work<'a> {
    pub param: &'a mut [f32],
    pub grad: &'a [f32],
    pub lr: f64,
    pub weight_decay: f64,
}

impl Optimizer {
    /// An optimiser at its first step.
    ///
    /// # Errors
    /// A setting out of range, a tensor without a group, or two of one name.
    pub fn new(config: OptimizerConfig, groups: Vec<Group>, slots: Vec<Slot>) -> Result<Self, Error> {
        config.check()?;
        let mut names = BTreeSet::new();
        for slot in &slots {
            if slot.group >= groups.len() {
                return Err(Error::NoGroup { name: slot.name.clone(), group: slot.group });
            }
            if !names.insert(&slot.name) {
                return Err(Error::Twice { name: slot.name.clone() });
            }
        }
        for group in &groups {
            share("lr_factor", group.lr_factor, f64::INFINITY)?;
            group.weight_decay.map_or(Ok(()), |w| share("weight_decay", w, f64::INFINITY))?;
        }
        let method = match config {
            OptimizerConfig::AdamW(c) => Method::AdamW(AdamW::new(c, &slots)),
            OptimizerConfig::Lion(c) => Method::Lion(Lion::new(c, &slots)),
            OptimizerConfig::Prodigy(c) => Method::Prodigy(Box::new(Prodigy::new(c, &slots))),
        };
        Ok(Self { config, slots, groups, method })
    }

    /// The learning rate of each group for a learning rate of the whole.
    pub fn rates(&self, lr: f64) -> Vec<f64> {
        self.groups.iter().map(|g| lr * g.lr_factor).collect()
    }

    /// Moves the parameters by one step; `lr` has a learning rate for each group.
    ///
    /// # Errors
    /// Numbers that do not fit the tensors, or a gradient that is not finite. Nothing has changed then.
    pub fn step(&mut self, params: &mut [Vec<f32>], grads: &[Vec<f32>], lr: &[f64]) -> Result<(), Error> {
        self.fits("parameters", params)?;
        self.fits("gradients", grads)?;
        self.rates_fit(lr)?;
        if let Some((slot, _)) = self.slots.iter().zip(grads).find(|(_, g)| g.iter().any(|v| !v.is_finite()))
        {
            return Err(Error::NonFinite { name: slot.name.clone() });
        }
        let mut work: Vec<Work> = (self.slots.iter().zip(params).zip(grads))
            .map(|((slot, param), grad)| Work {
                param,
                grad,
                lr: lr[slot.group],
                weight_decay: self.groups[slot.group].weight_decay.unwrap_or(self.config.weight_decay()),
            })
            .collect();
        match &mut self.method {
            Method::AdamW(m) => m.step(&mut work),
            Method::Lion(m) => m.step(&mut work),
            Method::Prodigy(m) => m.step(&mut work),
        }
        Ok(())
    }

    fn fits(&self, what: &'static str, vectors: &[Vec<f32>]) -> Result<(), Error> {
        if vectors.len() != self.slots.len() {
            return Err(Error::Count { what, expected: self.slots.len(), got: vectors.len() });
        }
        match self.slots.iter().zip(vectors).find(|(slot, v)| slot.len != v.len()) {
            Some((slot, v)) => {
                Err(Error::Length { name: slot.name.clone(), expected: slot.len, got: v.len() })
            }
            None => Ok(()),
        }
    }

    fn rates_fit(&self, lr: &[f64]) -> Result<(), Error> {
        if lr.len() != self.groups.len() {
            return Err(Error::Count { what: "learning rates", expected: self.groups.len(), got: lr.len() });
        }
        lr.iter().try_for_each(|lr| share("learning_rate", *lr, f64::INFINITY))?;
        let mut used = lr.iter().filter(|lr| **lr > 0.0);
        let first = used.next();
        if matches!(self.method, Method::Prodigy(_)) && used.any(|lr| Some(lr) != first) {
            return Err(Error::UnequalRates);
        }
        Ok(())
    }

    /// What it was made with.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// The groups, in the order of learning rates.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Steps that changed the state.
    pub fn steps(&self) -> u64 {
        match &self.method {
            Method::AdamW(m) => m.steps(),
            Method::Lion(m) => m.steps(),
            Method::Prodigy(m) => m.steps(),
        }
    }

    /// Prodigy's estimate `d`, by which it multiplies the learning rate; None for the others.
    pub fn estimate(&self) -> Option<f64> {
        match &self.method {
            Method::Prodigy(m) => Some(m.estimate()),
            _ => None,
        }
    }

    /// Everything the next step depends on, beside parameters and settings.
    pub fn state(&self) -> State {
        match &self.method {
            Method::AdamW(m) => m.state(&self.slots),
            Method::Lion(m) => m.state(&self.slots),
            Method::Prodigy(m) => m.state(&self.slots),
        }
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// The state is another optimiser's, lacks something, has something too many, or is of other tensors. Nothing
    /// has changed then.
    pub fn restore(&mut self, state: State) -> Result<(), Error> {
        let mut taking = state.open(self.config.name())?;
        let method = match self.config {
            OptimizerConfig::AdamW(c) => Method::AdamW(AdamW::take(c, &self.slots, &mut taking)?),
            OptimizerConfig::Lion(c) => Method::Lion(Lion::take(c, &self.slots, &mut taking)?),
            OptimizerConfig::Prodigy(c) => {
                Method::Prodigy(Box::new(Prodigy::take(c, &self.slots, &mut taking)?))
            }
        };
        taking.finish()?;
        self.method = method;
        Ok(())
    }
}

/// A vector of zeros for each tensor.
pub(super) fn zeros(slots: &[Slot]) -> Vec<Vec<f32>> {
    slots.iter().map(|s| vec![0.0; s.len]).collect()
}

/// The saved vector of a kind for each tensor.
pub(super) fn take(kind: &str, slots: &[Slot], from: &mut Taking) -> Result<Vec<Vec<f32>>, Error> {
    slots.iter().map(|s| from.vector(kind, &s.name, s.len)).collect()
}

/// Saves a vector of a kind for each tensor.
pub(super) fn put(kind: &str, slots: &[Slot], vectors: &[Vec<f32>], to: &mut State) {
    slots.iter().zip(vectors).for_each(|(s, v)| to.put(kind, &s.name, v));
}
