//! Fields that this version does not know, of an object that is replaced by one that was said without them.

use std::borrow::Cow;
use std::collections::HashSet;

use prost_reflect::{Cardinality, FieldDescriptor, Kind as FieldKind, MessageDescriptor};

use crate::encoded::Object;
use crate::error::Result;
use crate::proto::DESCRIPTORS;
use crate::wire;

/// How deep messages are looked into; deeper ones are refused when they are stored.
const MAX_DEPTH: usize = 64;

/// The object with those fields of what is stored that this version does not know: of the message and of each message in it that both
/// have. What stands in lists and maps is replaced as a whole, since nothing says which of their items are the same.
pub(crate) fn with_unknown_of(stored: &Object, object: &Object) -> Result<Object> {
    let descriptor = DESCRIPTORS.get_message_by_name(&format!("feast.core.{}", object.kind.message_name()));
    // Of what cannot be decoded nothing can be kept: what is applied mends it.
    let Some(descriptor) = descriptor.filter(|_| stored.check().is_ok()) else { return Ok(object.clone()) };
    match merged(&descriptor, &stored.bytes, &object.bytes, MAX_DEPTH)? {
        Some(bytes) => Ok(Object::new(object.kind, bytes)),
        None => Ok(object.clone()),
    }
}

/// The message with the unknown fields of another; `None` if there are none that it does not have.
fn merged(of: &MessageDescriptor, stored: &[u8], message: &[u8], depth: usize) -> Result<Option<Vec<u8>>> {
    let mut merged = Cow::Borrowed(message);
    for field in of.fields().filter(is_message) {
        let (number, FieldKind::Message(of)) = (field.number(), field.kind()) else { continue };
        let (Some(stored), Some(own)) = (wire::sub_message(stored, number)?, wire::sub_message(message, number)?)
        else {
            continue;
        };
        let inner = if depth == 0 { None } else { self::merged(&of, &stored, &own, depth - 1)? };
        if let Some(inner) = inner {
            merged = Cow::Owned(wire::set(&merged, number, &inner)?);
        }
    }
    let own: HashSet<u32> = wire::fields(message).map(|field| Ok(field?.number)).collect::<Result<_>>()?;
    for field in wire::fields(stored) {
        let field = field?;
        if of.get_field(field.number).is_none() && !own.contains(&field.number) {
            merged.to_mut().extend_from_slice(field.raw);
        }
    }
    Ok(match merged {
        Cow::Borrowed(_) => None,
        Cow::Owned(merged) => Some(merged),
    })
}

/// Whether a field is one message.
fn is_message(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), FieldKind::Message(_)) && field.cardinality() != Cardinality::Repeated
}
