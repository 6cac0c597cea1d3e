//! Feeds changed files to the readers of this crate:
//! `cargo run -p atelier-weights --example fuzz_weights -- [TARGET...] [--seconds N] [--seed N] [--input FILE]`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a tool of the tests")]

#[path = "../../../tests/fuzzing/mod.rs"]
mod fuzzing;
#[path = "../../../tests/fuzzing/weights.rs"]
mod weights;

#[global_allocator]
static MEMORY: fuzzing::Watched = fuzzing::Watched;

fn main() -> std::process::ExitCode {
    fuzzing::main(weights::TARGETS)
}
