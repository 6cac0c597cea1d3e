//! Makes a training set: what goes where ([`plan`]), then only what is missing or changed ([`write`]).

pub mod plan;
pub mod set;
pub mod tables;
pub mod write;

/// The name of the sample for prototypes, which no part may have.
pub const PROTOTYPE: &str = "prototype";
/// The folder below a prepared set for what is not part of it.
pub const OWN: &str = ".atelier";
/// What a check puts aside.
pub const QUARANTINE: &str = "quarantine";
/// The list of all files.
pub const MANIFEST: &str = "manifest.json";
