//! What an object takes in memory when it is decoded and compared, besides its text and bytes.
//!
//! Two bytes are an empty message, and decoded it has all the fields of its kind: a megabyte of them takes a gigabyte. So what
//! a client sends is looked through before it is decoded.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{Cardinality, FieldDescriptor, Kind as FieldKind, MessageDescriptor};

use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::proto::DESCRIPTORS;
use crate::rules::depth::MAX_DEPTH;
use crate::wire;

/// The most that it may take, in bytes: so much in any case, and more for what is large by its text, as services that name many
/// views with tags are, up to a limit. (`large_objects_are_as_large_as_anybody_needs`)
pub(crate) const MAX_STRUCTURE: usize = 256 << 20;
const MORE_FOR_EACH_BYTE: usize = 32;
const LIMIT: usize = 1 << 30;

/// Objects of up to so many bytes take less than that, whatever is in them. (`small_objects_need_not_be_looked_through`)
pub(crate) const SMALL: usize = 16 << 10;

/// What a string, a list or a boxed message takes where it is kept, without what is in it.
const POINTER: usize = 24;
/// What a map takes where it is kept.
const MAP: usize = 48;
/// What a number takes, with whether it is there.
const NUMBER: usize = 16;

/// Two definitions are compared in a form that is looked through by the fields' names. In it a message takes this, unless it
/// is empty;
const FORM_OF_MESSAGE: usize = 1024;
/// and a value in a list this.
const FORM_OF_VALUE: usize = 144;
/// An entry of a map takes this in both forms.
const ENTRY: usize = 256;
/// What a field takes that nobody knows, in both.
const UNKNOWN: usize = 128;

/// Checks that an object can be decoded without taking more memory than it should.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn check_structure(object: &Object, project: &str) -> Result<()> {
    if object.bytes.len() <= SMALL {
        return Ok(());
    }
    let descriptor = DESCRIPTORS.get_message_by_name(&format!("feast.core.{}", object.kind.message_name()));
    let most = (MAX_STRUCTURE + object.bytes.len().saturating_mul(MORE_FOR_EACH_BYTE)).min(LIMIT);
    let mut left = most;
    let fits = descriptor.is_none_or(|of| take_object(&of, object, &mut left).is_some());
    if fits {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a {} of project `{project}` has too many parts, as features, tags or intervals: in memory it would take more than \
         {} MiB. Divide it",
        object.kind,
        most >> 20,
    )))
}

/// What the registry keeps about an object, as its intervals, is no part of its definition and is not compared.
fn take_object(of: &MessageDescriptor, object: &Object, left: &mut usize) -> Option<()> {
    let meta = object.kind.layout().meta;
    for field in wire::fields(&object.bytes).map_while(Result::ok) {
        take(of, field.raw, left, MAX_DEPTH, Some(field.number) != meta)?;
    }
    Some(())
}

/// Takes what a message needs from what is left; `None` when there is too little. What is malformed, or too deep, is for others
/// to refuse.
fn take(of: &MessageDescriptor, message: &[u8], left: &mut usize, levels: usize, is_compared: bool) -> Option<()> {
    let if_compared = |bytes: usize| if is_compared { bytes } else { 0 };
    for field in wire::fields(message).map_while(Result::ok) {
        let Some(known) = of.get_field(field.number) else {
            *left = left.checked_sub(UNKNOWN + field.raw.len())?;
            continue;
        };
        let inner = match known.kind() {
            FieldKind::Message(inner) => Some(inner),
            _ => None,
        };
        let is_repeated = known.cardinality() == Cardinality::Repeated;
        let needed = match &inner {
            Some(_) if known.is_map() => ENTRY,
            // One that is there once lies within what it is in.
            Some(inner) => {
                let own = if is_repeated { size(inner) } else { NUMBER };
                own + if field.content.is_empty() { 0 } else { if_compared(FORM_OF_MESSAGE) }
            }
            // Numbers that are packed take at least a byte each.
            None if field.is_length_delimited() && is_number(&known) => {
                field.content.len().saturating_mul(NUMBER / 2 + if_compared(FORM_OF_VALUE))
            }
            None if is_repeated => POINTER + if_compared(FORM_OF_VALUE),
            None => POINTER,
        };
        *left = left.checked_sub(needed)?;
        if let Some(inner) = inner
            && field.is_length_delimited()
            && levels > 0
        {
            take(&inner, field.content, left, levels - 1, is_compared)?;
        }
    }
    Some(())
}

fn is_number(field: &FieldDescriptor) -> bool {
    !matches!(field.kind(), FieldKind::String | FieldKind::Bytes | FieldKind::Message(_))
}

/// What a message takes by itself, with nothing in it.
pub(crate) fn size(of: &MessageDescriptor) -> usize {
    static SIZES: LazyLock<HashMap<String, usize>> = LazyLock::new(|| {
        DESCRIPTORS.all_messages().map(|of| (of.full_name().to_owned(), inline(&of, &mut Vec::new()))).collect()
    });
    SIZES.get(of.full_name()).copied().unwrap_or(POINTER)
}

/// The same, with the messages that lie within it as they are, and not behind a pointer: all but those that are within themselves.
fn inline(of: &MessageDescriptor, within: &mut Vec<String>) -> usize {
    if within.iter().any(|name| name == of.full_name()) {
        return POINTER;
    }
    within.push(of.full_name().to_owned());
    let mut field = |field: &FieldDescriptor| match (field.cardinality(), field.kind()) {
        (Cardinality::Repeated, _) if field.is_map() => MAP,
        (Cardinality::Repeated, _) | (_, FieldKind::String | FieldKind::Bytes) => POINTER + NUMBER / 2,
        (_, FieldKind::Message(inner)) => NUMBER / 2 + inline(&inner, within),
        _ => NUMBER,
    };
    let alone: usize = of.fields().filter(|of| of.containing_oneof().is_none()).map(|of| field(&of)).sum();
    let one_of: usize =
        of.oneofs().map(|one| NUMBER + one.fields().map(|of| field(&of)).max().unwrap_or_default()).sum();
    within.pop();
    alone + one_of
}
