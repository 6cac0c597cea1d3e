//! How much each timestep counts.

use super::{Error, Prediction};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Weights of timesteps in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Weighting {
    /// All timesteps count the same.
    #[default]
    Uniform,
    /// Timesteps of little noise count less (Hang et al. 2023, "Efficient diffusion training via Min-SNR weighting").
    MinSnr {
        /// Signal-to-noise ratio above which a timestep counts less; 5 in the paper.
        gamma: f64,
    },
}

impl Weighting {
    /// Checks the setting for its range.
    ///
    /// # Errors
    /// [`Error::Setting`] if gamma is not above 0.
    pub fn check(&self) -> Result<(), Error> {
        match *self {
            Self::MinSnr { gamma: value } if !(value > 0.0 && value.is_finite()) => {
                Err(Error::Setting { name: "gamma", value, must: "above 0" })
            }
            _ => Ok(()),
        }
    }

    /// The weight at a signal-to-noise ratio, for what the network predicts.
    pub fn weight(&self, snr: f64, prediction: Prediction) -> f64 {
        match (*self, prediction) {
            (Self::Uniform, _) => 1.0,
            // `min(snr, gamma) / snr`, without the 0 / 0 of a process that ends in pure noise.
            (Self::MinSnr { gamma }, Prediction::Epsilon) if snr > gamma => gamma / snr,
            (Self::MinSnr { .. }, Prediction::Epsilon) => 1.0,
            (Self::MinSnr { gamma }, Prediction::VPrediction) => snr.min(gamma) / (snr + 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_finite_at_both_ends_of_a_process() {
        let w = Weighting::MinSnr { gamma: 5.0 };
        assert_eq!((w.weight(0.0, Prediction::Epsilon), w.weight(0.0, Prediction::VPrediction)), (1.0, 0.0));
        let end = f64::INFINITY;
        assert_eq!((w.weight(end, Prediction::Epsilon), w.weight(end, Prediction::VPrediction)), (0.0, 0.0));
        assert_eq!(Weighting::Uniform.weight(end, Prediction::VPrediction), 1.0);
    }

    #[test]
    fn gamma_must_be_above_zero() {
        assert!(Weighting::Uniform.check().is_ok() && Weighting::MinSnr { gamma: 5.0 }.check().is_ok());
        for gamma in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Weighting::MinSnr { gamma }.check().is_err(), "{gamma}");
        }
    }
}
