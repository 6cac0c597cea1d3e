//! The host of atelier: finds plugins, reads presets, validates requests, runs them, keeps what they make.
//!
//! ```text
//! preset.yaml ─▶ Preset ─┐
//! --param-file, --set ───┴▶ layers ─▶ schema validation ─▶ plan ─▶ dispatch ─▶ Session::run
//!                                                                    │  events ─▶ terminal, events.jsonl
//!                                                                    └─ images ─▶ sink ─▶ outputs/<run>/
//! ```
//!
//! The host knows no plugin by name except in [`builtin`], and no tensor library at all.

pub mod a1111;
pub mod builtin;
pub mod cli;
pub mod config;
pub mod digests;
pub mod dispatch;
pub mod found;
pub mod fsx;
#[cfg(feature = "hub")]
pub mod hub;
pub mod inputs;
pub mod items;
pub mod json;
pub mod layers;
pub mod machine;
pub mod manifest;
pub mod model_store;
pub mod paths;
pub mod plugins;
pub mod pngmeta;
pub mod preset;
pub mod profile;
pub mod registries;
pub mod request;
pub mod schema;
pub mod sink;
pub mod validate;
pub mod yaml;
