//! Validation of a request against its schema: all violations at once, each with who set the field.

use crate::layers::{Layers, Source};
use crate::{json, schema};
use atelier_sdk::registry::nearest;
use atelier_sdk::{Error, ErrorKind, Violation};
use jsonschema::ValidationError;
use jsonschema::error::ValidationErrorKind as Kind;
use serde_json::Value;

/// A violation and who set the field.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Finding {
    /// What is wrong.
    #[serde(flatten)]
    pub violation: Violation,
    /// Who set it, in words.
    pub set_by: Option<String>,
}

/// Checks `values` against `schema`.
///
/// # Errors
/// [`ErrorKind::Internal`] if the schema itself is broken.
pub fn check(schema: &Value, layers: &Layers) -> Result<Vec<Finding>, Error> {
    let validator = jsonschema::validator_for(schema).map_err(|e| {
        Error::internal("the engine's schema is not a valid JSON schema").because(e.to_string())
    })?;
    let values = Value::Object(layers.values().clone());
    let violations: Vec<Violation> =
        validator.iter_errors(&values).flat_map(|e| describe(&e, schema)).collect();
    Ok(with_sources(violations, layers))
}

/// Adds who set each field.
pub fn with_sources(violations: Vec<Violation>, layers: &Layers) -> Vec<Finding> {
    violations
        .into_iter()
        .map(|violation| {
            let set_by = layers.source(&violation.pointer).map(Source::to_string);
            Finding { violation, set_by }
        })
        .collect()
}

/// One error for all findings.
pub fn error(findings: &[Finding]) -> Error {
    let count = match findings.len() {
        1 => "1 field is wrong".to_string(),
        n => format!("{n} fields are wrong"),
    };
    let lines: Vec<String> = findings.iter().map(line).collect();
    Error::new(ErrorKind::InvalidRequest, format!("{count}:\n{}", lines.join("\n")))
}

fn line(f: &Finding) -> String {
    let at = if f.violation.pointer.is_empty() { "/" } else { &f.violation.pointer };
    let by = f.set_by.as_deref().map(|s| format!(" (set by {s})")).unwrap_or_default();
    let hint = f.violation.hint.as_deref().map(|h| format!("\n      hint: {h}")).unwrap_or_default();
    format!("  {at}: {}{by}{hint}", f.violation.message)
}

fn describe(error: &ValidationError<'_>, root: &Value) -> Vec<Violation> {
    let pointer = error.instance_path().to_string();
    let value = json::brief(error.instance());
    let one = |message: String| vec![Violation::new(pointer.clone(), message)];
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().map(|key| unknown_field(&pointer, key, root)).collect()
        }
        Kind::Enum { options } => vec![not_a_choice(pointer, error.instance(), options)],
        Kind::Required { property } => one(format!("{property} is missing")),
        Kind::Type { kind } => one(format!("{value} is not {}", type_words(kind))),
        Kind::Minimum { limit } => one(format!("{value} is less than {limit}")),
        Kind::Maximum { limit } => one(format!("{value} is more than {limit}")),
        Kind::ExclusiveMinimum { limit } => one(format!("{value} is not more than {limit}")),
        Kind::ExclusiveMaximum { limit } => one(format!("{value} is not less than {limit}")),
        Kind::MultipleOf { multiple_of } => vec![not_a_multiple(pointer, error.instance(), *multiple_of)],
        Kind::MaxLength { limit } => one(format!("the text is longer than {limit} characters")),
        Kind::OneOfNotValid { .. } | Kind::AnyOf { .. } => vec![none_fits(pointer, error, root)],
        _ => one(error.masked_with(value).to_string()),
    }
}

fn type_words(kind: &jsonschema::error::TypeKind) -> String {
    use jsonschema::error::TypeKind;
    match kind {
        TypeKind::Single(t) => article(&t.to_string()),
        TypeKind::Multiple(set) => {
            set.iter().map(|t| article(&t.to_string())).collect::<Vec<_>>().join(" or ")
        }
    }
}

fn article(json_type: &str) -> String {
    match json_type {
        "integer" => "a whole number".into(),
        "string" => "a text".into(),
        "object" => "a mapping".into(),
        "array" => "a list".into(),
        "boolean" => "true or false".into(),
        "null" => "null".into(),
        other => format!("a {other}"),
    }
}

fn unknown_field(parent: &str, key: &str, root: &Value) -> Violation {
    let path: Vec<&str> = parent.split('/').skip(1).collect();
    let known: Vec<&str> = schema::field(root, &path)
        .and_then(|f| f.get("properties"))
        .and_then(Value::as_object)
        .map(|p| p.keys().map(String::as_str).collect())
        .unwrap_or_default();
    let v = Violation::new(format!("{parent}/{}", json::escape(key)), "there is no such field");
    match nearest(key, known.iter().copied()) {
        Some(near) => v.hint(format!("did you mean `{near}`?")),
        None => v.hint(format!("there are: {}", known.join(", "))),
    }
}

fn not_a_choice(pointer: String, value: &Value, options: &Value) -> Violation {
    let choices: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let list = choices.join(", ");
    let v = Violation::new(pointer, format!("{} is not one of the choices", json::brief(value)));
    match value.as_str().and_then(|s| nearest(s, choices.iter().copied())) {
        Some(near) => v.hint(format!("did you mean `{near}`? there are: {list}")),
        None => v.hint(format!("there are: {list}")),
    }
}

fn not_a_multiple(pointer: String, value: &Value, step: f64) -> Violation {
    let v = Violation::new(pointer, format!("{} is not a multiple of {step}", json::brief(value)));
    match value.as_f64() {
        Some(x) if x > 0.0 => {
            let low = (x / step).floor() * step;
            v.hint(format!("the nearest are {low} and {}", low + step))
        }
        _ => v,
    }
}

/// schemars writes an enum with documented variants as `oneOf` constants: list them.
fn none_fits(pointer: String, error: &ValidationError<'_>, root: &Value) -> Violation {
    let path: Vec<&str> = pointer.split('/').skip(1).collect();
    let variants = schema::field(root, &path).and_then(|f| f.get("oneOf").or_else(|| f.get("anyOf")));
    let choices: Vec<Value> = variants
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .flat_map(|v| v.get("const").cloned().map(|c| vec![c]).unwrap_or_default())
        .collect();
    if choices.is_empty() {
        return Violation::new(pointer, error.masked_with(json::brief(error.instance())).to_string());
    }
    not_a_choice(pointer, error.instance(), &Value::Array(choices))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn findings(values: Value) -> Vec<Finding> {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["prompt"],
            "properties": {
                "prompt": {"type": "string"},
                "steps": {"type": "integer", "minimum": 1, "maximum": 150},
                "width": {"type": "integer", "multipleOf": 8},
                "sampler": {"type": "string", "enum": ["euler", "heun"]},
            }
        });
        let mut layers = Layers::default();
        layers.push(values.as_object().unwrap(), |_| Source::CommandLine);
        check(&schema, &layers).unwrap()
    }

    #[test]
    fn all_violations_come_at_once_with_value_source_and_hint() {
        let found = findings(json!({
            "step": 3, "steps": 0, "width": 500, "sampler": "eulr", "prompt": 7
        }));
        let text = error(&found).message().to_string();
        for expected in [
            "5 fields are wrong",
            "/step: there is no such field (set by command line)",
            "did you mean `steps`",
            "/steps: 0 is less than 1",
            "the nearest are 496 and 504",
            "did you mean `euler`? there are: euler, heun",
            "/prompt: 7 is not a text",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn a_missing_field_is_named() {
        assert!(error(&findings(json!({}))).message().contains("\"prompt\" is missing"));
    }
}
