//! Schemas of Feast's messages, as protobuf's JSON has them.

use std::collections::BTreeMap;

use feast_registry_core::proto::DESCRIPTORS;
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind as FieldKind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::forms::{closed, list, map, reference, text};

/// Schemas by their names: those of messages by the full names of these.
pub(super) type Schemas = BTreeMap<String, Value>;

/// The properties of a message. What they refer to comes into `schemas`.
pub(super) fn properties(message: &str, schemas: &mut Schemas) -> Map<String, Value> {
    let Some(message) = DESCRIPTORS.get_message_by_name(message) else { return Map::new() };
    properties_of(&message, schemas)
}

fn properties_of(message: &MessageDescriptor, schemas: &mut Schemas) -> Map<String, Value> {
    message.fields().map(|field| (field.json_name().to_owned(), field_schema(&field, schemas))).collect()
}

fn field_schema(field: &FieldDescriptor, schemas: &mut Schemas) -> Value {
    if let (true, FieldKind::Message(entry)) = (field.is_map(), field.kind()) {
        return map(kind_schema(&entry.map_entry_value_field().kind(), schemas));
    }
    let one = kind_schema(&field.kind(), schemas);
    if field.is_list() { list(one) } else { one }
}

fn kind_schema(kind: &FieldKind, schemas: &mut Schemas) -> Value {
    match kind {
        FieldKind::Double | FieldKind::Float => {
            json!({ "anyOf": [{ "type": "number" }, { "enum": ["NaN", "Infinity", "-Infinity"] }] })
        }
        FieldKind::Int32 | FieldKind::Sint32 | FieldKind::Sfixed32 => int32(),
        FieldKind::Uint32 | FieldKind::Fixed32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        // JavaScript's numbers do not hold them.
        FieldKind::Int64 | FieldKind::Sint64 | FieldKind::Sfixed64 => {
            json!({ "type": "string", "pattern": "^-?[0-9]{1,19}$" })
        }
        FieldKind::Uint64 | FieldKind::Fixed64 => json!({ "type": "string", "pattern": "^[0-9]{1,20}$" }),
        FieldKind::Bool => json!({ "type": "boolean" }),
        FieldKind::String => text(),
        FieldKind::Bytes => json!({ "type": "string", "contentEncoding": "base64", "format": "byte" }),
        FieldKind::Enum(of) => reference(&enumeration(of, schemas)),
        FieldKind::Message(of) => match of.full_name() {
            "google.protobuf.Timestamp" => json!({ "type": "string", "format": "date-time" }),
            "google.protobuf.Duration" => json!({ "type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$" }),
            "google.protobuf.StringValue" => text(),
            _ => reference(&message(of, schemas)),
        },
    }
}

fn int32() -> Value {
    json!({ "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX })
}

/// Makes the schema of a message, unless it is there or being made: messages hold themselves.
fn message(of: &MessageDescriptor, schemas: &mut Schemas) -> String {
    let name = of.full_name().to_owned();
    if !schemas.contains_key(&name) {
        schemas.insert(name.clone(), Value::Null);
        let properties = properties_of(of, schemas);
        schemas.insert(name.clone(), closed(&[], properties));
    }
    name
}

/// A value that this version has no name for is told as its number.
fn enumeration(of: &EnumDescriptor, schemas: &mut Schemas) -> String {
    let name = of.full_name().to_owned();
    let names: Vec<String> = of.values().map(|value| value.name().to_owned()).collect();
    schemas.insert(name.clone(), json!({ "anyOf": [{ "enum": names }, int32()] }));
    name
}
