//! Drives the real executable, and holds the repository to its own rules.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod arrows;
mod bad_input;
mod dataset;
mod generate;
mod guides;
mod image_tasks;
mod lists;
mod memory;
mod model_files;
mod parity;
mod parity_image;
mod plugin_authors;
mod plugin_failures;
mod plugin_files;
mod plugin_fixtures;
mod runs;
mod single_files;
mod support;
