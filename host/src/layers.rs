//! The layered request: which value each field has, and who set it.

use crate::json;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Who set a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The engine's default.
    Default,
    /// The model's own default.
    Model(String),
    /// A preset.
    Preset {
        /// Its name.
        name: String,
        /// The line in its file.
        line: Option<usize>,
    },
    /// A file given by `--param-file`.
    File {
        /// The file.
        path: String,
        /// The line.
        line: Option<usize>,
    },
    /// An image's metadata, by `--like`.
    Like(String),
    /// The command line.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |line: &Option<usize>| line.map(|l| format!(":{l}")).unwrap_or_default();
        match self {
            Self::Default => f.write_str("default"),
            Self::Model(key) => write!(f, "model {key}"),
            Self::Preset { name, line } => write!(f, "preset {name}{}", at(line)),
            Self::File { path, line } => write!(f, "{path}{}", at(line)),
            Self::Like(path) => write!(f, "metadata of {path}"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// Parameters with the source of every leaf.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    values: Map<String, Value>,
    sources: BTreeMap<String, Source>,
}

impl Layers {
    /// Lays `over` on top; `source` tells who set a leaf, given its JSON pointer.
    pub fn push(&mut self, over: &Map<String, Value>, source: impl Fn(&str) -> Source) {
        for (pointer, _) in json::leaves(over) {
            // A leaf replaces whatever stood at or below its place.
            let below = format!("{pointer}/");
            self.sources.retain(|p, _| *p != pointer && !p.starts_with(&below));
            let set_by = source(&pointer);
            self.sources.insert(pointer, set_by);
        }
        json::merge(&mut self.values, over);
    }

    /// Replaces values of the outermost fields where `with` gives another; who set them stays.
    pub fn rewrite(&mut self, with: impl Fn(&str, &Value) -> Option<Value>) {
        for (name, value) in &mut self.values {
            if let Some(new) = with(name, value) {
                *value = new;
            }
        }
    }

    /// The merged values.
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// Who set the field at `pointer`, or the nearest field above it.
    pub fn source(&self, pointer: &str) -> Option<&Source> {
        let mut at = pointer;
        loop {
            if let Some(s) = self.sources.get(at) {
                return Some(s);
            }
            at = &at[..at.rfind('/')?];
        }
    }

    /// Every leaf that is not an engine's default, with its source.
    pub fn changes(&self) -> Vec<(String, &Value, &Source)> {
        json::leaves(&self.values)
            .into_iter()
            .filter_map(|(p, v)| match self.source(&p) {
                None | Some(Source::Default) => None,
                Some(s) => Some((p, v, s)),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(v: Value) -> Map<String, Value> {
        v.as_object().unwrap().clone()
    }

    #[test]
    fn later_layers_win_and_are_remembered() {
        let mut l = Layers::default();
        l.push(&map(json!({"steps": 20, "o": {"eta": 0, "rho": 7}})), |_| Source::Default);
        l.push(&map(json!({"o": {"eta": 1}})), |_| Source::CommandLine);
        assert_eq!(Value::Object(l.values().clone()), json!({"steps": 20, "o": {"eta": 1, "rho": 7}}));
        assert_eq!(l.source("/o/eta"), Some(&Source::CommandLine));
        assert_eq!(l.source("/o/rho"), Some(&Source::Default));
        assert_eq!(l.changes().len(), 1);
    }

    #[test]
    fn a_violation_inside_a_value_is_traced_to_who_set_the_value() {
        let mut l = Layers::default();
        l.push(&map(json!({"list": [1, 2]})), |_| Source::CommandLine);
        assert_eq!(l.source("/list/1"), Some(&Source::CommandLine));
        assert_eq!(l.source("/other"), None);
    }
}
