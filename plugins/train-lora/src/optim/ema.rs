//! A running average of the parameters, often better than the last of them.

use super::config::share;
use super::{Error, Slot, State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EmaConfig {
    /// How much of the average is kept at each step.
    pub decay: f64,
    /// Keep less at first: at most `(1 + n) / (10 + n)` at step n, and nothing of the start itself.
    pub warmup: bool,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self { decay: 0.999, warmup: true }
    }
}

/// An exponential moving average of parameters.
#[derive(Debug, Clone)]
pub struct Ema {
    config: EmaConfig,
    updates: u64,
    average: Vec<Vec<f32>>,
    swapped: bool,
}

impl Ema {
    /// An average that starts at the parameters as they are.
    ///
    /// # Errors
    /// [`Error::Setting`] if the decay is not at least 0 and below 1.
    pub fn new(config: EmaConfig, params: &[Vec<f32>]) -> Result<Self, Error> {
        share("decay", config.decay, 1.0)?;
        Ok(Self { config, updates: 0, average: params.to_vec(), swapped: false })
    }

    /// How much is kept of the average at the next update; the same numbers as in diffusers' training utilities.
    pub fn decay(&self) -> f64 {
        let n = self.updates as f64;
        match (self.config.warmup, self.updates) {
            (true, 0) => 0.0,
            (true, _) => self.config.decay.min((1.0 + n) / (10.0 + n)),
            (false, _) => self.config.decay,
        }
    }

    /// Takes the parameters after a step into the average.
    ///
    /// # Errors
    /// Parameters of other sizes; the averaged ones being in their place. Nothing has changed then.
    pub fn update(&mut self, params: &[Vec<f32>]) -> Result<(), Error> {
        if self.swapped {
            return Err(Error::Swapped);
        }
        self.fits(params)?;
        let new = (1.0 - self.decay()) as f32;
        for (a, &p) in self.average.iter_mut().flatten().zip(params.iter().flatten()) {
            *a -= new * (*a - p);
        }
        self.updates += 1;
        Ok(())
    }

    /// Exchanges parameters and average; the second call undoes the first.
    ///
    /// # Errors
    /// Parameters of other sizes.
    pub fn swap(&mut self, params: &mut [Vec<f32>]) -> Result<(), Error> {
        self.fits(params)?;
        self.average.iter_mut().zip(params).for_each(|(a, p)| std::mem::swap(a, p));
        self.swapped = !self.swapped;
        Ok(())
    }

    /// The average, for an export; None while it is in the place of the parameters.
    pub fn average(&self) -> Option<&[Vec<f32>]> {
        (!self.swapped).then_some(&self.average)
    }

    fn fits(&self, params: &[Vec<f32>]) -> Result<(), Error> {
        if params.len() != self.average.len() {
            return Err(Error::Count { what: "parameters", expected: self.average.len(), got: params.len() });
        }
        match self.average.iter().zip(params).enumerate().find(|(_, (a, p))| a.len() != p.len()) {
            Some((i, (a, p))) => {
                Err(Error::Length { name: format!("tensor {i}"), expected: a.len(), got: p.len() })
            }
            None => Ok(()),
        }
    }

    /// Everything the next update depends on, beside parameters and settings.
    ///
    /// # Errors
    /// Tensors that are not those of the average; the average being in the place of the parameters.
    pub fn state(&self, slots: &[Slot]) -> Result<State, Error> {
        if self.swapped {
            return Err(Error::Swapped);
        }
        if slots.len() != self.average.len() {
            return Err(Error::Count { what: "tensors", expected: self.average.len(), got: slots.len() });
        }
        let mut state = State::new("ema").with("updates", self.updates as f64);
        super::optimizer::put("average", slots, &self.average, &mut state);
        Ok(state)
    }

    /// Goes on from a saved state.
    ///
    /// # Errors
    /// The state is something else's, lacks something, has something too many, or is of other tensors. Nothing has
    /// changed then.
    pub fn restore(&mut self, slots: &[Slot], state: State) -> Result<(), Error> {
        let mut taking = state.open("ema")?;
        let updates = taking.count("updates")?;
        let average = super::optimizer::take("average", slots, &mut taking)?;
        taking.finish()?;
        self.fits(&average)?;
        (self.updates, self.average, self.swapped) = (updates, average, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Vec<Slot> {
        let slot = |name: &str, len| Slot { name: name.into(), len, group: 0 };
        vec![slot("a", 2), slot("b", 1)]
    }

    fn params(x: f32) -> Vec<Vec<f32>> {
        vec![vec![x, -x], vec![x * x]]
    }

    #[test]
    fn the_first_update_forgets_the_start_and_later_ones_keep_more_and_more() {
        let mut ema = Ema::new(EmaConfig { decay: 0.5, warmup: true }, &params(0.0)).unwrap();
        let mut decays = vec![];
        for _ in 0..12 {
            decays.push(ema.decay());
            ema.update(&params(1.0)).unwrap();
        }
        assert_eq!(decays[..3], [0.0, 2.0 / 11.0, 3.0 / 12.0]);
        assert_eq!(decays[9..], [0.5; 3]);
        assert_eq!(ema.average().unwrap(), params(1.0));
        assert_eq!(Ema::new(EmaConfig { decay: 0.5, warmup: false }, &[]).unwrap().decay(), 0.5);
    }

    #[test]
    fn a_swap_is_undone_by_the_next_and_forbids_what_would_mix_up_the_two() {
        let mut ema = Ema::new(EmaConfig::default(), &params(1.0)).unwrap();
        let mut now = params(2.0);
        ema.swap(&mut now).unwrap();
        assert_eq!(now, params(1.0));
        assert_eq!(ema.average(), None);
        assert_eq!(ema.update(&now), Err(Error::Swapped));
        assert_eq!(ema.state(&slots()), Err(Error::Swapped));
        ema.swap(&mut now).unwrap();
        assert_eq!(now, params(2.0));
        assert!(ema.update(&now).is_ok());
    }

    #[test]
    fn a_restored_average_goes_on_bit_for_bit() {
        let run = |ema: &mut Ema, steps: std::ops::Range<u32>| {
            steps.for_each(|i| ema.update(&params((i as f32).sin())).unwrap());
        };
        let mut whole = Ema::new(EmaConfig::default(), &params(0.3)).unwrap();
        run(&mut whole, 0..20);
        let mut first = Ema::new(EmaConfig::default(), &params(0.3)).unwrap();
        run(&mut first, 0..7);
        let mut second = Ema::new(EmaConfig::default(), &params(9.0)).unwrap();
        second.restore(&slots(), first.state(&slots()).unwrap()).unwrap();
        run(&mut second, 7..20);
        assert_eq!(whole.state(&slots()), second.state(&slots()));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut ema = Ema::new(EmaConfig::default(), &params(1.0)).unwrap();
        let before = ema.state(&slots()).unwrap();
        assert!(matches!(ema.update(&[vec![1.0, 2.0]]), Err(Error::Count { .. })));
        assert!(matches!(ema.update(&[vec![1.0], vec![1.0]]), Err(Error::Length { .. })));
        let mut short = before.clone();
        short.vectors.insert("average.b".into(), vec![]);
        let e = ema.restore(&slots(), short).unwrap_err();
        assert_eq!(e.to_string(), "`average.b` has 0 numbers instead of 1");
        let e = ema.restore(&slots()[..1], before.clone()).unwrap_err();
        assert_eq!(e.to_string(), "the saved state has `average.b`, which nothing here goes by");
        assert_eq!(ema.state(&slots()).unwrap(), before);
        assert!(Ema::new(EmaConfig { decay: 1.0, warmup: false }, &[]).is_err());
    }
}
