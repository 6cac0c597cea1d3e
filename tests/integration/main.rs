//! Drives the real executable, and holds the repository to its own rules.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod arrows;
mod bad_input;
mod batches;
mod benchmark;
mod dataset;
mod generate;
mod guides;
mod hires;
mod image_tasks;
mod lists;
mod lora;
mod memory;
mod model_files;
mod model_pull;
mod model_server;
mod models;
mod parity;
mod parity_bf16;
mod parity_image;
mod plugin_authors;
mod plugin_failures;
mod plugin_files;
mod plugin_fixtures;
mod previews;
mod runs;
mod single_files;
mod support;
mod train;
mod upscale;
mod upscale_files;
