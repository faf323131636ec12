//! The forms that schemas have.

use serde_json::{Map, Value, json};

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

/// A text that may be left out, or be `null`.
pub(super) fn optional_text() -> Value {
    json!({ "type": ["string", "null"] })
}

pub(super) fn flag() -> Value {
    json!({ "type": "boolean" })
}

/// How many there are of something.
pub(super) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

pub(super) fn moment() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

pub(super) fn one_of(values: &[&str]) -> Value {
    json!({ "enum": values })
}

pub(super) fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// An object whose fields may have any name.
pub(super) fn map(values: Value) -> Value {
    json!({ "type": "object", "additionalProperties": values })
}

pub(super) fn tags() -> Value {
    map(text())
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// An object with these fields and no other.
pub(super) fn closed(required: &[&str], properties: impl Into<Properties>) -> Value {
    let Properties(properties) = properties.into();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// The fields of an object.
pub(super) struct Properties(Map<String, Value>);

impl From<Map<String, Value>> for Properties {
    fn from(properties: Map<String, Value>) -> Self {
        Self(properties)
    }
}

impl<const N: usize> From<[(&str, Value); N]> for Properties {
    fn from(properties: [(&str, Value); N]) -> Self {
        Self(properties.map(|(name, of)| (name.to_owned(), of)).into_iter().collect())
    }
}
