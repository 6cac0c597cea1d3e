//! YAML files to JSON values, with nothing lost on the way.
//!
//! JSON has no NaN, no infinity, no tags and only text keys; a silent conversion would turn `.nan` into
//! null. Here each is an error that names the place.

use atelier_sdk::{Error, ErrorKind, Result};
use serde_json::{Map, Value};
use serde_yaml::Value as Yaml;

/// Deepest nesting accepted.
const MAX_DEPTH: usize = 64;

/// Parses a YAML document into JSON.
///
/// # Errors
/// Not YAML (with line and column), duplicate keys, NaN, infinities, tags, keys that are not text.
pub fn parse(text: &str) -> Result<Value> {
    let yaml: Yaml = serde_yaml::from_str(text)
        .map_err(|e| Error::new(ErrorKind::InvalidRequest, "not valid YAML").because(e.to_string()))?;
    convert(yaml, "", 0)
}

fn convert(yaml: Yaml, at: &str, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH {
        return Err(Error::invalid(format!("nested deeper than {MAX_DEPTH} levels")));
    }
    match yaml {
        Yaml::Null => Ok(Value::Null),
        Yaml::Bool(b) => Ok(Value::Bool(b)),
        Yaml::String(s) => Ok(Value::String(s)),
        Yaml::Number(n) => number(&n, at),
        Yaml::Sequence(items) => items
            .into_iter()
            .enumerate()
            .map(|(i, v)| convert(v, &format!("{at}/{i}"), depth + 1))
            .collect::<Result<Vec<_>>>()
            .map(Value::Array),
        Yaml::Mapping(map) => {
            let mut out = Map::new();
            for (k, v) in map {
                let key = text_key(k, at)?;
                let value = convert(v, &format!("{at}/{key}"), depth + 1)?;
                out.insert(key, value);
            }
            Ok(Value::Object(out))
        }
        Yaml::Tagged(t) => Err(Error::invalid(format!("`{at}` has the tag `{}`", t.tag))
            .hint("remove the tag; presets hold plain values")),
    }
}

fn number(n: &serde_yaml::Number, at: &str) -> Result<Value> {
    if let Some(i) = n.as_i64() {
        return Ok(i.into());
    }
    if let Some(u) = n.as_u64() {
        return Ok(u.into());
    }
    n.as_f64().and_then(serde_json::Number::from_f64).map(Value::Number).ok_or_else(|| {
        let what = if at.is_empty() { "the value".into() } else { format!("`{at}`") };
        Error::invalid(format!("{what} is {n}")).hint("give a finite number")
    })
}

fn text_key(key: Yaml, at: &str) -> Result<String> {
    match key {
        Yaml::String(s) => Ok(s),
        other => Err(Error::invalid(format!("a key under `{at}/` is not text: {other:?}"))
            .hint("put the key in quotes")),
    }
}

/// The line (from 1) on which the field at `path` is set in block-style YAML, if it can be told.
///
/// The YAML reader keeps no positions; this follows indentation. Flow style (`{a: 1}`) is not followed.
pub fn line_of(text: &str, path: &[&str]) -> Option<usize> {
    let mut parents: Vec<usize> = Vec::new(); // indentation of each key found so far
    for (number, line) in text.lines().enumerate() {
        let body = line.trim_start();
        if body.is_empty() || body.starts_with('#') {
            continue;
        }
        let indent = line.len() - body.len();
        while parents.last().is_some_and(|p| indent <= *p) {
            parents.pop();
        }
        let Some(wanted) = path.get(parents.len()) else { continue };
        let is_child = parents.last().is_none_or(|p| indent > *p) && (!parents.is_empty() || indent == 0);
        let key = body.split_once(':').map(|(k, _)| k.trim().trim_matches(['"', '\'']));
        if is_child && key == Some(wanted) {
            if parents.len() + 1 == path.len() {
                return Some(number + 1);
            }
            parents.push(indent);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_cannot_hold_is_an_error_that_names_the_place() {
        for (text, place) in
            [("a: {b: .nan}", "/a/b"), ("a: [1, .inf]", "/a/1"), ("a: !x 1", "/a"), ("1: 2", "Number(1)")]
        {
            let e = parse(text).unwrap_err();
            assert!(e.message().contains(place), "{text}: {e}");
        }
    }

    #[test]
    fn syntax_errors_say_where_and_duplicate_keys_which() {
        for (text, place) in [("a: [1", "line"), ("a: 1\na: 2", "\"a\"")] {
            let e = parse(text).unwrap_err();
            assert!(e.chain().join(" ").contains(place), "{text}: {:?}", e.chain());
        }
    }

    #[test]
    fn lines_are_found_by_indentation() {
        let text = "schema_version: 1\nparams:\n  # steps: 3\n  steps: 20\n  o:\n    eta: 1\nsteps: 4\n";
        assert_eq!(line_of(text, &["params", "steps"]), Some(4));
        assert_eq!(line_of(text, &["params", "o", "eta"]), Some(6));
        assert_eq!(line_of(text, &["steps"]), Some(7));
        assert_eq!(line_of(text, &["eta"]), None);
    }
}
