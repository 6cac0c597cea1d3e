//! Which fields of a request are files.

use super::{FileField, Kind};
use crate::{json, schema};
use atelier_sdk::params::X_FILE;
use serde_json::Value;
use std::collections::BTreeMap;

type Found = BTreeMap<String, FileField>;

/// The file fields that `schema` describes, by JSON pointer without the first `/`. Inside of a mapping or
/// list that `values` does not have, there are none.
pub fn find(schema: &Value, values: &Value) -> Found {
    let mut found = Found::new();
    Walk { root: schema, found: &mut found }.walk(schema, values, "");
    found.into_iter().map(|(pointer, file)| (pointer[1..].to_string(), file)).collect()
}

struct Walk<'a> {
    root: &'a Value,
    found: &'a mut Found,
}

impl<'a> Walk<'a> {
    fn walk(&mut self, schema: &'a Value, value: &Value, at: &str) {
        let about = describing(self.root, schema);
        let mark = about.iter().find_map(|s| s.get(X_FILE));
        if let Some(mark) = mark.filter(|_| !at.is_empty()) {
            return self.add(kind(mark), value, at);
        }
        match value {
            Value::Object(map) => about.iter().for_each(|s| self.walk_mapping(s, map, at)),
            Value::Array(list) => about.iter().for_each(|s| self.walk_list(s, list, at)),
            _ => {}
        }
    }

    /// A mark on a list, which is where schemars puts that of a `Vec`, marks each of its items.
    fn add(&mut self, kind: Kind, value: &Value, at: &str) {
        match value {
            Value::Array(list) => {
                for (i, item) in list.iter().enumerate() {
                    self.add(kind, item, &format!("{at}/{i}"));
                }
            }
            one => {
                self.found.insert(at.to_string(), FileField { kind, value: one.clone() });
            }
        }
    }

    fn walk_mapping(&mut self, schema: &'a Value, map: &serde_json::Map<String, Value>, at: &str) {
        let below = |key: &str| format!("{at}/{}", json::escape(key));
        let named = schema.get("properties").and_then(Value::as_object);
        for (key, field) in named.into_iter().flatten() {
            self.walk(field, map.get(key).unwrap_or(&Value::Null), &below(key));
        }
        if let Some(others) = schema.get("additionalProperties") {
            for (key, value) in map.iter().filter(|(k, _)| named.is_none_or(|n| !n.contains_key(*k))) {
                self.walk(others, value, &below(key));
            }
        }
    }

    fn walk_list(&mut self, schema: &'a Value, list: &[Value], at: &str) {
        if let Some(items) = schema.get("items") {
            for (i, value) in list.iter().enumerate() {
                self.walk(items, value, &format!("{at}/{i}"));
            }
        }
    }
}

fn kind(mark: &Value) -> Kind {
    match mark.as_str() {
        Some("image") => Kind::Image,
        Some("path") => Kind::Path,
        Some("out") => Kind::Out,
        _ => Kind::Any,
    }
}

/// All schemas that describe the same value: a schema, what its `$ref` leads to and what it is composed of.
/// An alternative counts whether or not the value chose it. Each comes once, since a `$ref` may lead back.
fn describing<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let mut about = vec![schema];
    let mut next = 0;
    while let Some(at) = about.get(next).copied() {
        let parts = ["allOf", "anyOf", "oneOf"].iter().filter_map(|k| at.get(k)?.as_array()).flatten();
        for part in parts.chain([schema::resolve(root, at)]) {
            if !about.iter().any(|known| std::ptr::eq(*known, part)) {
                about.push(part);
            }
        }
        next += 1;
    }
    about
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(schema: &Value, values: &Value) -> Vec<(String, Kind, Value)> {
        find(schema, values).into_iter().map(|(k, f)| (k, f.kind, f.value)).collect()
    }

    #[test]
    fn fields_are_found_through_references_alternatives_mappings_and_lists() {
        let schema = json!({
            "$defs": {
                "Path": {"type": "string", "x-file": "any"},
                "Control": {"type": "object", "properties": {
                    "image": {"type": "string", "x-file": "image"},
                    "then": {"anyOf": [{"$ref": "#/$defs/Control"}, {"type": "null"}]},
                }},
                "Loop": {"$ref": "#/$defs/Loop"},
            },
            "properties": {
                "controls": {"type": "array", "items": {"$ref": "#/$defs/Control"}},
                "images": {"type": "array", "items": {"type": "string"}, "x-file": "image"},
                "masks": {"type": ["array", "null"], "x-file": "image"},
                "by name/s": {"additionalProperties": {"$ref": "#/$defs/Path"}},
                "text": {"type": "string"},
                "loop": {"$ref": "#/$defs/Loop"},
            },
        });
        let values = json!({
            "controls": [{"image": "a"}, {"image": "b", "then": {"image": "c"}}],
            "images": ["d", "e"],
            "masks": null,
            "by name/s": {"x/y": "f"},
            "text": "g", "loop": {"image": "h"},
        });
        let expected = [
            ("by name~1s/x~1y", Kind::Any, json!("f")),
            ("controls/0/image", Kind::Image, json!("a")),
            ("controls/1/image", Kind::Image, json!("b")),
            ("controls/1/then/image", Kind::Image, json!("c")),
            ("images/0", Kind::Image, json!("d")),
            ("images/1", Kind::Image, json!("e")),
            ("masks", Kind::Image, Value::Null),
        ];
        let expected = expected.map(|(k, kind, v)| (k.to_string(), kind, v));
        assert_eq!(found(&schema, &values), expected);
    }

    #[test]
    fn what_schemars_writes_is_understood() {
        use atelier_sdk::schemars;
        #[derive(schemars::JsonSchema)]
        #[schemars(crate = "atelier_sdk::schemars")]
        #[allow(dead_code)]
        struct Params {
            #[schemars(extend("x-file" = "image"))]
            image: Option<String>,
            #[schemars(extend("x-file" = "image"))]
            more: Vec<String>,
            extra: Option<Extra>,
        }
        #[derive(schemars::JsonSchema)]
        #[schemars(crate = "atelier_sdk::schemars")]
        #[allow(dead_code)]
        struct Extra {
            /// With a description beside it.
            #[schemars(extend("x-file" = "any"))]
            file: String,
        }
        let schema = schemars::schema_for!(Params).to_value();
        let values = json!({"image": "a", "more": ["b"], "extra": {"file": "c"}});
        let keys: Vec<String> = find(&schema, &values).into_keys().collect();
        assert_eq!(keys, ["extra/file", "image", "more/0"]);
    }
}
