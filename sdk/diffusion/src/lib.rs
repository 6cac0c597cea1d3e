//! What engines share on top of the networks: where a diffusion model's networks are, the process they were trained for,
//! networks with made-up weights, images through an upscaler, the devices of this build and their memory, and how errors
//! become errors of the sdk.

pub mod device;
pub mod error;
pub mod files;
pub mod made_up;
pub mod memory;
pub mod pixels;
pub mod process;
pub mod upscale;

pub use files::Files;
pub use process::{Coefficients, Prediction, Process};
