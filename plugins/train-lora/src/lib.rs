//! LoRA training for Stable Diffusion 1.x and 2.x.
//!
//! ```text
//! images, captions ─▶ data ─▶ frozen encoders ─▶ cache ─┐
//!                    seed, number of the step ─▶ batch ─┴▶ UNet with factors, forward and back ─▶ gradients
//!                                                                                                    │
//! exports ◀─ checkpoints ◀─ factors ◀─ optimiser ◀───────────────────────────────────────────────────┘
//! ```
//!
//! Everything that is drawn by lot is a function of the seed and of the number of the step: a training that was
//! stopped and goes on is bit for bit the one that was not.

mod agenda;
mod base;
mod batch;
pub mod board;
mod checkpoint;
mod curves;
pub mod data;
mod dry;
mod encodings;
mod engine;
pub mod export;
mod exports;
mod identity;
mod ledger;
mod log;
pub mod loss;
mod material;
pub mod optim;
mod params;
mod run;
mod samples;
mod search;
mod sets;
mod settings;
mod step;
mod trainee;
mod trainer;

atelier_sdk::export_plugin! {
    task &atelier_sdk::task::TRAIN_LORA;
    task &search::TASK;
    engine engine::ENGINE;
}
