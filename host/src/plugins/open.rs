//! Brings a stored copy of a library into this process.

use super::conn::lock;
use super::load::{LoadError, load_module};
use super::{log, store};
use atelier_sdk::remote::RemoteLibrary;
use atelier_sdk::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

/// Libraries that are open, by digest: none is ever closed, so none needs to be opened twice.
static OPEN: Mutex<BTreeMap<String, RemoteLibrary>> = Mutex::new(BTreeMap::new());

/// Opens the stored copy of a library, after making sure that it is the one that was trusted.
///
/// # Errors
/// The copy has changed; the library is refused.
pub fn library(copy: &Path, sha256: &str) -> Result<RemoteLibrary> {
    let mut open = lock(&OPEN);
    if let Some(library) = open.get(sha256) {
        return Ok(*library);
    }
    store::verify(copy, sha256)?;
    let library = RemoteLibrary::new(load_module(copy).map_err(refused)?);
    library.init(log::HOST).map_err(|e| e.context("the library refused to start"))?;
    open.insert(sha256.to_string(), library);
    Ok(library)
}

fn refused(e: LoadError) -> Error {
    if !e.detail.is_empty() {
        tracing::warn!(detail = e.detail, "a plugin library was refused");
    }
    Error::new(ErrorKind::Unsupported, e.to_string())
        .hint("build it against the sdk of this atelier (docs/reference/plugins.md)")
}

/// Opens a library in the host's own process.
///
/// # Errors
/// As for [`library`]; and a library whose panics would end this process.
pub fn in_this_process(copy: &Path, sha256: &str, build_info: &str) -> Result<RemoteLibrary> {
    check_unwinds(build_info)?;
    library(copy, sha256)
}

/// Refuses a library whose panics cannot be caught.
///
/// # Errors
/// It was built with `panic = "abort"`.
pub fn check_unwinds(build_info: &str) -> Result<()> {
    let info: serde_json::Value = serde_json::from_str(build_info).unwrap_or_default();
    match info["panic"] == "unwind" {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Unsupported,
            "the plugin was built with `panic = \"abort\"`: a panic in it would end atelier",
        )
        .hint("run it with `isolation: process`, or build it with `panic = \"unwind\"`")),
    }
}
