//! Opens a plugin library and checks that it speaks our boundary.
//!
//! abi_stable's own entry points are not used: they answer the first library for every later path, accept a newer
//! 0.x, and check layouts in one direction only - host older than plugin - where users mostly have the other.
//! Here the version is compared first, and the layouts in the direction in which types may have grown.

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::check_layout_compatibility;
use abi_stable::library::{AbiHeader, LibHeader, LibraryError, RootModule, lib_header_from_path};
use atelier_abi::PluginModRef;
use std::fmt;
use std::path::Path;

/// Why a library was refused: three lines, and more for the log.
#[derive(Debug)]
pub struct LoadError {
    /// What is wrong.
    pub message: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Everything there is to say, for the log.
    pub detail: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nexpected {}\nfound {}", self.message, self.expected, self.found)
    }
}

impl std::error::Error for LoadError {}

fn refused(message: &str, expected: impl Into<String>, found: impl Into<String>) -> LoadError {
    LoadError {
        message: message.into(),
        expected: expected.into(),
        found: found.into(),
        detail: String::new(),
    }
}

/// Opens a library; its constructors run. It is never closed again.
///
/// # Errors
/// Not a library, not a plugin, or a plugin of another boundary.
pub fn load_module(file: &Path) -> Result<PluginModRef, LoadError> {
    let header = lib_header_from_path(file).map_err(|e| not_opened(&e))?;
    check_version(header)?;
    check_layout(header)?;
    // SAFETY: the layouts were just compared, in the direction in which prefix types may differ: the accessors of a
    // prefix type know how many fields the value really has.
    unsafe { header.unchecked_layout::<PluginModRef>() }
        .map_err(|e| refused("the library cannot be started", "a plugin", e.to_string()))
}

fn not_opened(e: &LibraryError) -> LoadError {
    match e {
        LibraryError::OpenError { err, .. } => {
            refused("the system cannot open the library", "a library for this system", err.to_string())
        }
        LibraryError::GetSymbolError { .. } => refused(
            "this is not an atelier plugin",
            "a library built with atelier-sdk (crate-type `cdylib`)",
            "no plugin entry point",
        ),
        LibraryError::InvalidAbiHeader(found) => refused(
            "the plugin was built with another abi_stable",
            format!("{:?}", AbiHeader::VALUE),
            format!("{found:?}"),
        ),
        other => refused("the library cannot be opened", "a plugin", other.to_string()),
    }
}

/// Major, minor, patch.
type Version = (u32, u32, u32);

fn version(text: &str) -> Option<Version> {
    let mut parts = text.split(['.', '-', '+']).map(|p| p.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

fn plugin_version(header: &LibHeader) -> (String, Version) {
    let text = header.version_strings().version.to_string();
    let parsed = version(&text).unwrap_or_default();
    (text, parsed)
}

fn host_version() -> (String, Version) {
    let text = PluginModRef::VERSION_STRINGS.version.to_string();
    let parsed = version(&text).unwrap_or_default();
    (text, parsed)
}

fn check_version(header: &LibHeader) -> Result<(), LoadError> {
    let ((_, host), (text, plugin)) = (host_version(), plugin_version(header));
    if host.0 == plugin.0 {
        return Ok(());
    }
    Err(refused(
        "the plugin was built for another version of the plugin boundary; it must be built again",
        format!("boundary {}.x", host.0),
        format!("boundary {text}"),
    ))
}

fn check_layout(header: &LibHeader) -> Result<(), LoadError> {
    let ((host_text, host), (plugin_text, plugin)) = (host_version(), plugin_version(header));
    let ours = PluginModRef::LAYOUT;
    let differ = |detail: String, count: usize| {
        LoadError {
        message: "the plugin's types differ from the host's under the same version: it was built with a changed sdk"
            .into(),
        expected: format!("the types of boundary {host_text}"),
        found: format!("boundary {plugin_text} with {count} differences (all of them in the log)"),
        detail,
    }
    };
    let theirs = header.layout().ok_or_else(|| differ("the library carries no layout".into(), 1))?;
    // The one that may have fewer fields comes first.
    let result = match plugin >= host {
        true => check_layout_compatibility(ours, theirs),
        false => check_layout_compatibility(theirs, ours),
    };
    result.map_err(|e| differ(e.to_string(), e.errors.len()))
}
