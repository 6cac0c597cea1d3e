//! What the engines on diffusion models share: where a model's networks are, the process they were trained for, the
//! devices of this build, and how their errors become errors of the sdk.

pub mod device;
pub mod error;
pub mod files;
pub mod pixels;
pub mod process;

pub use files::Files;
pub use process::{Coefficients, Prediction, Process};
