//! Small helpers on JSON values.

use serde_json::{Map, Value};

/// Lays `over` on `base`: objects are merged field by field, anything else replaces.
pub fn merge(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Value::Object(b)), Value::Object(o)) => merge(b, o),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// JSON pointers and values of all leaves (anything but a non-empty object).
pub fn leaves(map: &Map<String, Value>) -> Vec<(String, &Value)> {
    fn walk<'a>(at: &str, map: &'a Map<String, Value>, out: &mut Vec<(String, &'a Value)>) {
        for (key, value) in map {
            let pointer = format!("{at}/{}", escape(key));
            match value {
                Value::Object(inner) if !inner.is_empty() => walk(&pointer, inner, out),
                leaf => out.push((pointer, leaf)),
            }
        }
    }
    let mut out = Vec::new();
    walk("", map, &mut out);
    out
}

/// A key as a part of a JSON pointer (RFC 6901).
pub fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A value short enough for a message.
pub fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((i, _)) => format!("{}…", &text[..i]),
        None => text,
    }
}
