//! What is learned at each timestep: targets, weights, noise.
//!
//! Mathematics on slices, without a tensor library, and the random decisions of a run. Those depend on a seed, a
//! number and a purpose alone: a run that is resumed has no generator whose state it would need.

mod draws;
mod mse;
mod noise;
mod order;
mod table;
mod weight;

pub use draws::{Draws, Lane};
pub use mse::{Mse, weighted_mse, weighted_mse_grad};
pub use noise::{caption_is_dropped, draw_noise, draw_timestep, offset_noise};
pub use order::{Order, Pick};
pub use table::{NoiseTable, Prediction};
pub use weight::Weighting;

use std::fmt;

/// A mistake in numbers handed over.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// Slices that belong together have lengths that do not.
    Shape {
        /// What should fit.
        what: &'static str,
        /// The length it should have, or a multiple of it.
        expected: usize,
        /// The length it has.
        got: usize,
    },
    /// A timestep outside of the table.
    Timestep {
        /// Which.
        timestep: usize,
        /// Number of timesteps there are.
        len: usize,
    },
    /// A share of the image that is left at a timestep and cannot be.
    Alpha {
        /// Where.
        timestep: usize,
        /// The share.
        value: f64,
    },
    /// A setting is out of range.
    Setting {
        /// Which.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        must: &'static str,
    },
    /// There is nothing to take samples from.
    Empty,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { what, expected, got } => write!(f, "{what}: {got} numbers do not fit {expected}"),
            Self::Timestep { timestep, len } => {
                write!(f, "timestep {timestep} is not one of 0 to {}", len - 1)
            }
            Self::Alpha { timestep, value } => {
                write!(f, "the share of the image at timestep {timestep} is {value}, not in 0 to 1")
            }
            Self::Setting { name, value, must } => write!(f, "`{name}` is {value}, and must be {must}"),
            Self::Empty => f.write_str("there is nothing to take samples from"),
        }
    }
}

impl std::error::Error for Error {}

fn same_len(what: &'static str, expected: usize, got: usize) -> Result<(), Error> {
    if expected == got { Ok(()) } else { Err(Error::Shape { what, expected, got }) }
}
