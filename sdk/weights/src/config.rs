//! A component's `config.json`, read field by field: every value is checked against documented bounds before
//! anything is allocated by it, and every error names file and field.

use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The longest configuration file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// A JSON object with the path it came from. Fields that nobody asks for are ignored.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    fields: Map<String, Value>,
}

impl ConfigFile {
    /// Reads the JSON object in the file at `path`.
    ///
    /// Errors: unreadable, longer than 4 MiB, not JSON, not an object.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let io = |source| Error::Io { path: path.into(), source };
        let length = std::fs::metadata(path).map_err(io)?.len();
        if length > MAX_BYTES {
            let message = format!("expected at most {MAX_BYTES} bytes, found {length}");
            return Err(Error::Json { path: path.into(), message });
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        Self::parse(&text, path)
    }

    /// The JSON object in `text`; `path` is for messages.
    ///
    /// Errors: not JSON, not an object.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Self { path: path.into(), fields }),
            Ok(other) => Err(Error::Json {
                path: path.into(),
                message: format!("expected an object, found {}", kind(&other)),
            }),
            Err(e) => Err(Error::Json { path: path.into(), message: e.to_string() }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A field's value; none when absent or null.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|v| !v.is_null())
    }

    /// Whether a field is there with the value null, where that means something else than its absence.
    pub fn is_null(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(Value::is_null)
    }

    /// The names of the fields, in the file's order.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// An error about a field of this file.
    pub fn error(&self, field: &str, message: impl Into<String>) -> Error {
        Error::Config { path: self.path.clone(), field: field.into(), message: message.into() }
    }

    fn missing<T>(&self, field: &str, default: Option<T>, what: &str) -> Result<T> {
        default.ok_or_else(|| self.error(field, format!("expected {what}, found nothing")))
    }

    fn whole(&self, field: &str, value: &Value, range: &RangeInclusive<usize>) -> Result<usize> {
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n));
        let (low, high) = (range.start(), range.end());
        number.ok_or_else(|| {
            self.error(field, format!("expected a whole number from {low} to {high}, found {value}"))
        })
    }

    /// A whole number in `range`; `default` when absent, an error if there is none.
    pub fn count(&self, field: &str, range: RangeInclusive<usize>, default: Option<usize>) -> Result<usize> {
        match self.get(field) {
            Some(value) => self.whole(field, value, &range),
            None => self.missing(field, default, "a whole number"),
        }
    }

    /// A list of whole numbers, each in `range`, as many as `lengths` allows.
    pub fn counts(
        &self,
        field: &str,
        range: RangeInclusive<usize>,
        lengths: RangeInclusive<usize>,
    ) -> Result<Vec<usize>> {
        match self.get(field) {
            Some(Value::Array(values)) if lengths.contains(&values.len()) => {
                values.iter().map(|v| self.whole(field, v, &range)).collect()
            }
            Some(Value::Array(values)) => {
                let (low, high) = (lengths.start(), lengths.end());
                Err(self
                    .error(field, format!("expected from {low} to {high} numbers, found {}", values.len())))
            }
            Some(other) => {
                Err(self.error(field, format!("expected a list of whole numbers, found {}", kind(other))))
            }
            None => self.missing(field, None, "a list of whole numbers"),
        }
    }

    /// One whole number for all of `blocks` blocks, or a list with one for each; each in `range`.
    pub fn per_block(
        &self,
        field: &str,
        range: RangeInclusive<usize>,
        blocks: usize,
        default: Option<usize>,
    ) -> Result<Vec<usize>> {
        match self.get(field) {
            Some(Value::Array(_)) => self.counts(field, range, blocks..=blocks),
            _ => Ok(vec![self.count(field, range, default)?; blocks]),
        }
    }

    /// A finite number in `range`; `default` when absent, an error if there is none.
    pub fn number(&self, field: &str, range: RangeInclusive<f64>, default: Option<f64>) -> Result<f64> {
        let Some(value) = self.get(field) else { return self.missing(field, default, "a number") };
        let number = value.as_f64().filter(|n| n.is_finite() && range.contains(n));
        let (low, high) = (range.start(), range.end());
        number.ok_or_else(|| {
            self.error(field, format!("expected a number from {low} to {high}, found {value}"))
        })
    }

    /// True or false; `default` when absent.
    pub fn flag(&self, field: &str, default: bool) -> Result<bool> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(other) => Err(self.error(field, format!("expected true or false, found {}", kind(other)))),
        }
    }

    /// A text; `default` when absent, an error if there is none.
    pub fn text(&self, field: &str, default: Option<&str>) -> Result<String> {
        match self.get(field) {
            None => self.missing(field, default.map(String::from), "a text"),
            Some(Value::String(s)) => Ok(s.clone()),
            Some(other) => Err(self.error(field, format!("expected a text, found {}", kind(other)))),
        }
    }

    /// A list of texts, as many as `lengths` allows.
    pub fn texts(&self, field: &str, lengths: RangeInclusive<usize>) -> Result<Vec<String>> {
        let wrong = |found: &str| {
            self.error(
                field,
                format!("expected a list of {}..={} texts, found {found}", lengths.start(), lengths.end()),
            )
        };
        match self.get(field) {
            Some(Value::Array(values)) if lengths.contains(&values.len()) => {
                values.iter().map(|v| v.as_str().map(String::from).ok_or_else(|| wrong(kind(v)))).collect()
            }
            Some(Value::Array(values)) => Err(wrong(&format!("{} entries", values.len()))),
            Some(other) => Err(wrong(kind(other))),
            None => Err(wrong("nothing")),
        }
    }

    /// Refuses the field if it is there with another value than `neutral`, which means that a feature is off.
    pub fn refuse_unless(&self, field: &str, neutral: &Value) -> Result<()> {
        let same =
            |value: &Value| value == neutral || (value.is_number() && value.as_f64() == neutral.as_f64());
        match self.get(field) {
            Some(value) if !same(value) => {
                Err(self.error(field, format!("{value} is not supported (only {neutral})")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses the field if it is there and not null.
    pub fn refuse(&self, field: &str) -> Result<()> {
        match self.get(field) {
            Some(value) => Err(self.error(field, format!("{value} is not supported (only null)"))),
            None => Ok(()),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ConfigFile {
        ConfigFile::parse(text, "unet/config.json").unwrap()
    }

    #[test]
    fn numbers_out_of_bounds_name_file_field_and_bounds() {
        for bad in ["0", "20000", "-1", "1.5", "1e+30", "\"320\"", "[320]"] {
            let c = config(&format!("{{\"in_channels\":{bad}}}"));
            let message = c.count("in_channels", 1..=16384, Some(4)).unwrap_err().to_string();
            for part in ["unet/config.json", "in_channels", "1 to 16384", bad] {
                assert!(message.contains(part), "{message} lacks {part}");
            }
        }
    }

    #[test]
    fn absent_and_null_take_the_default_and_fail_without_one() {
        for text in ["{}", "{\"n\":null}"] {
            assert_eq!(config(text).count("n", 1..=9, Some(3)).unwrap(), 3);
            assert!(config(text).count("n", 1..=9, None).unwrap_err().to_string().contains("found nothing"));
        }
    }

    #[test]
    fn one_number_or_one_per_block() {
        assert_eq!(config("{\"n\":8}").per_block("n", 1..=9, 3, None).unwrap(), [8, 8, 8]);
        assert_eq!(config("{\"n\":[5,6,7]}").per_block("n", 1..=9, 3, None).unwrap(), [5, 6, 7]);
        assert!(config("{\"n\":[5,6]}").per_block("n", 1..=9, 3, None).is_err());
        assert!(config("{\"n\":[5,6,10]}").per_block("n", 1..=9, 3, None).is_err());
    }

    #[test]
    fn features_that_are_on_are_refused_by_name() {
        let c = config("{\"class_embed_type\":\"timestep\",\"scale\":1.0,\"other\":2}");
        assert!(c.refuse("class_embed_type").unwrap_err().to_string().contains("not supported"));
        assert!(c.refuse("absent").is_ok());
        assert!(c.refuse_unless("scale", &1.into()).is_ok());
        assert!(c.refuse_unless("other", &1.into()).is_err());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(ConfigFile::parse("[1]", "c.json").unwrap_err().to_string().contains("found a list"));
        assert!(ConfigFile::parse("{", "c.json").unwrap_err().to_string().contains("c.json"));
    }
}
