//! The schema of a request: what the engine says, with the choices that the registries know.

use crate::registries::Registries;
use atelier_sdk::describe::EngineTaskDescription;
use atelier_sdk::params::X_REGISTRY;
use serde_json::{Map, Value};

/// Extension that makes a field hold the options of what another field chooses.
pub const X_OPTIONS_OF: &str = "x-options-of";

/// The full schema of a task: every field that chooses among plugins lists them.
pub fn of(task: &EngineTaskDescription, registries: &Registries) -> Value {
    let mut schema = task.schema.clone();
    fill(&mut schema, registries);
    schema
}

fn fill(schema: &mut Value, registries: &Registries) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for field in properties.values_mut().filter_map(Value::as_object_mut) {
        let choices = match field.get(X_REGISTRY).and_then(Value::as_str) {
            Some("sampler") => registries.samplers.names().collect::<Vec<_>>(),
            Some("schedule") => registries.schedules.names().collect(),
            _ => continue,
        };
        let mut choices: Vec<Value> = choices.into_iter().map(Value::String).collect();
        // A choice that may be left open.
        if types(&Value::Object(field.clone())).contains(&"null") {
            choices.push(Value::Null);
        }
        field.insert("enum".into(), Value::Array(choices));
    }
}

/// The default of every property that has one.
pub fn defaults(schema: &Value) -> Map<String, Value> {
    let mut out = Map::new();
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (key, field) in properties {
            if let Some(default) = field.get("default") {
                out.insert(key.clone(), default.clone());
            }
        }
    }
    out
}

/// The schema of the field at a dotted path, as far as it is described.
pub fn field<'a>(schema: &'a Value, path: &[&str]) -> Option<&'a Value> {
    let mut at = schema;
    for part in path {
        at = resolve(schema, at.get("properties")?.get(part)?);
    }
    Some(at)
}

/// What a `$ref` within the same schema leads to; anything else as it is.
pub(crate) fn resolve<'a>(root: &'a Value, at: &'a Value) -> &'a Value {
    let target = at.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
    target.and_then(|p| root.pointer(p)).unwrap_or(at)
}

/// The JSON types that a field accepts; empty when it accepts anything.
pub fn types(field: &Value) -> Vec<&str> {
    match field.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        // A choice without a type is a choice among texts here.
        _ if field.get("enum").is_some() || field.get("oneOf").is_some() => vec!["string"],
        _ => Vec::new(),
    }
}
