//! Optimisers, learning rates and what goes with them, on plain vectors of f32.
//!
//! What a LoRA trains is a few million numbers, so their optimiser lives on the CPU whatever the network runs on:
//! one vector per tensor, every sum in a fixed order, all of its state plain data. A run that was stopped and
//! resumed is then bit for bit the run that was not.

mod adamw;
mod clip;
mod config;
mod ema;
mod error;
mod lion;
mod optimizer;
mod prodigy;
mod scaler;
mod schedule;
mod state;

#[cfg(test)]
mod golden;

pub use clip::{clip_global_norm, global_norm};
pub use config::{AdamWConfig, LionConfig, OptimizerConfig, ProdigyConfig};
pub use ema::{Ema, EmaConfig};
pub use error::Error;
pub use optimizer::{Group, Optimizer, Slot};
pub use scaler::{LossScaler, LossScalerConfig, Verdict};
pub use schedule::{LrSchedule, Shape};
pub use state::State;
