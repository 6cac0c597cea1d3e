//! Drives the real executable, and holds the repository to its own rules.

mod arrows;
mod bad_input;
mod generate;
mod lists;
mod model_files;
mod parity;
mod runs;
mod support;
