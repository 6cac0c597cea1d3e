//! Plugin libraries: where they are found, which may run, and how they are kept from doing harm.
//!
//! ```text
//! search ─▶ store (copy, sha256) ─▶ trust ─▶ probe (a worker that may crash) ─▶ catalog ─▶ registries
//!
//! host ⇄ conn ⇄ worker ─▶ open ─▶ load ─▶ library
//!        pipes, to a process or a thread
//! ```

pub mod catalog;
pub mod conn;
pub mod engines;
pub mod frame;
pub mod install;
pub mod link;
pub mod load;
pub mod log;
pub mod manifest;
pub mod open;
pub mod parts;
pub mod patient;
pub mod plugin;
pub mod printed;
pub mod probe;
pub mod process;
pub mod safety;
pub mod search;
pub mod settings;
mod soon;
pub mod stdio;
pub mod store;
pub mod strict;
pub mod template;
pub mod thread;
pub mod timing;
pub mod trust;
#[cfg(unix)]
mod watch;
pub mod worker;
