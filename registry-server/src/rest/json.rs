//! Stored messages as JSON: protobuf's own mapping, as Feast's `MessageToDict` has it.

use bytes::Bytes;
use feast_registry_core::proto::DESCRIPTORS;
use feast_registry_core::{Error, ErrorKind, Object, Result};
use prost_reflect::DynamicMessage;
use serde_json::{Map, Value};

/// Writes an object as JSON.
///
/// # Errors
/// `Corrupt` when it has what cannot be said in JSON, such as a moment that is none.
pub(crate) fn write(object: &Object, out: &mut Vec<u8>) -> Result<()> {
    let message = dynamic(object)?;
    serde_json::to_writer(out, &message).map_err(|error| cannot_be_said(object, &error))
}

/// An object as a JSON object, for what changes it.
///
/// # Errors
/// As [`write`].
pub(crate) fn value(object: &Object) -> Result<Map<String, Value>> {
    match serde_json::to_value(dynamic(object)?) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Ok(Map::new()),
        Err(error) => Err(cannot_be_said(object, &error)),
    }
}

fn dynamic(object: &Object) -> Result<DynamicMessage> {
    let name = format!("feast.core.{}", object.kind.message_name());
    let descriptor = DESCRIPTORS.get_message_by_name(&name);
    let descriptor =
        descriptor.ok_or_else(|| Error::new(ErrorKind::Internal, format!("there is no message {name}")))?;
    DynamicMessage::decode(descriptor, Bytes::clone(&object.bytes)).map_err(|error| {
        let name = object.name().unwrap_or_default();
        Error::new(ErrorKind::Corrupt, format!("the {} `{name}` cannot be decoded", object.kind)).with_source(error)
    })
}

fn cannot_be_said(object: &Object, error: &serde_json::Error) -> Error {
    let name = object.name().unwrap_or_default();
    Error::new(ErrorKind::Corrupt, format!("the {} `{name}` has no form in JSON: {error}", object.kind))
}
