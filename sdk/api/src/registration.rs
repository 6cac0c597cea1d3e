//! Registration of what a request chooses by name and sets options of: samplers and schedules.

use crate::error::{Error, ErrorKind, Result};
use crate::registry::Keyed;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;

/// The names of a plugin.
pub trait Info {
    /// Its key.
    fn key(&self) -> &'static str;
    /// Other names that find it.
    fn aliases(&self) -> &'static [&'static str];
}

/// Registers a plugin of trait `T`, described by an `I`.
pub struct Reg<I: 'static, T: ?Sized + 'static> {
    /// What it is.
    pub info: &'static I,
    /// Schema of its options.
    pub schema: fn() -> Value,
    /// Makes one from JSON options (`{}` for the defaults).
    pub make: fn(&Value) -> Result<Box<T>>,
    /// The crate that registers it.
    pub origin: &'static str,
}

impl<I, T: ?Sized> Clone for Reg<I, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I, T: ?Sized> Copy for Reg<I, T> {}

impl<I: fmt::Debug, T: ?Sized> fmt::Debug for Reg<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reg").field("info", self.info).field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl<I: Info, T: ?Sized> Keyed for Reg<I, T> {
    fn key(&self) -> &str {
        self.info.key()
    }
    fn origin(&self) -> &str {
        self.origin
    }
    fn aliases(&self) -> Vec<&str> {
        self.info.aliases().to_vec()
    }
}

/// The options of `kind` `key` from JSON; `null` is no options.
pub(crate) fn parse_options<O: DeserializeOwned>(kind: &str, key: &str, options: &Value) -> Result<O> {
    let options = if options.is_null() { Value::Object(Default::default()) } else { options.clone() };
    serde_json::from_value(options).map_err(|e| {
        Error::new(ErrorKind::InvalidRequest, format!("wrong options for {kind} `{key}`: {e}"))
            .hint(format!("`atelier schema {kind} {key}` shows what it takes"))
    })
}
