//! The options of a plugin: a schema and a constructor that must agree.

use super::report::{Checked, ensure, fail, words};
use crate::error::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};

const UNKNOWN: &str = "no_such_option";

/// A schema with the constructor that it describes.
pub(super) struct Options<'a> {
    pub(super) schema: &'a Value,
    pub(super) make: &'a dyn Fn(&Value) -> Result<()>,
}

impl Options<'_> {
    /// None, all with their defaults, and the ones that the plugin is checked with.
    pub(super) fn accept_their_own_defaults(&self, given: &Value) -> Checked {
        let validator = self.validator()?;
        for options in [&json!({}), &self.written_out(), given] {
            if let Err(e) = validator.validate(options) {
                return fail(format!("its schema refuses {options}: {e}, at `{}`", e.instance_path()));
            }
            (self.make)(options).or_else(|e| fail(format!("it refuses {options}: {}", words(&e))))?;
        }
        Ok(())
    }

    pub(super) fn refuse_unknown_fields(&self) -> Checked {
        let options = json!({ UNKNOWN: 1 });
        ensure(!self.validator()?.is_valid(&options), || format!("its schema accepts {options}"))?;
        let Err(e) = (self.make)(&options) else { return fail(format!("it accepts {options}")) };
        ensure(e.kind() == ErrorKind::InvalidRequest, || wrong_kind(&e))?;
        ensure(words(&e).contains(UNKNOWN), || format!("its refusal does not say which: {}", words(&e)))
    }

    pub(super) fn are_described(&self) -> Checked {
        let silent = |field: &Value| field["description"].as_str().is_none_or(|s| s.trim().is_empty());
        let silent: Vec<_> = self.fields().filter(|(_, field)| silent(field)).map(|(name, _)| name).collect();
        ensure(silent.is_empty(), || format!("no description of {}", silent.join(", ")))
    }

    /// Every option with the default that the schema states. An absent one is `null`, as serde takes it.
    pub(super) fn written_out(&self) -> Value {
        let default = |field: &Value| field.get("default").cloned().unwrap_or_default();
        self.fields().map(|(name, field)| (name.to_owned(), default(field))).collect::<Map<_, _>>().into()
    }

    fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.schema["properties"].as_object().into_iter().flatten().map(|(name, field)| (&**name, field))
    }

    fn validator(&self) -> Checked<jsonschema::Validator> {
        jsonschema::validator_for(self.schema)
            .or_else(|e| fail(format!("its schema is not a JSON schema: {e}")))
    }
}

fn wrong_kind(e: &Error) -> String {
    format!("refuses with an error of kind {:?} instead of InvalidRequest: {}", e.kind(), words(e))
}

/// The error with which a plugin must refuse `what`, a request that it cannot serve.
pub(super) fn refusal<T>(result: Result<T>, what: impl FnOnce() -> String) -> Checked {
    match result {
        Ok(_) => fail(format!("accepts {}", what())),
        Err(e) => ensure(e.kind() == ErrorKind::InvalidRequest, || format!("{}: {}", what(), wrong_kind(&e))),
    }
}
