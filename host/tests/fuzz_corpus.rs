//! What fuzzing has found once: files that every reader of the host must answer, again and again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

#[path = "../../tests/fuzzing/mod.rs"]
mod fuzzing;
#[path = "../../tests/fuzzing/host.rs"]
mod host;

#[global_allocator]
static MEMORY: fuzzing::Watched = fuzzing::Watched;

#[test]
fn what_was_found_once_is_answered_now() {
    host::TARGETS.iter().for_each(fuzzing::replay);
}
