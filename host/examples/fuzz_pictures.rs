//! Feeds changed files to the readers of the host:
//! `cargo run -p atelier --example fuzz_pictures -- [TARGET...] [--seconds N] [--seed N] [--input FILE]`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a tool of the tests")]

#[path = "../../tests/fuzzing/mod.rs"]
mod fuzzing;
#[path = "../../tests/fuzzing/host.rs"]
mod host;

#[global_allocator]
static MEMORY: fuzzing::Watched = fuzzing::Watched;

fn main() -> std::process::ExitCode {
    fuzzing::main(host::TARGETS)
}
