//! LoRA training for Stable Diffusion 1.x and 2.x.

pub mod board;
pub mod data;
pub mod export;
pub mod loss;
pub mod optim;
