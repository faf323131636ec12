//! Values of fields in words.

use std::fmt::Write as _;

use prost::encoding::{WireType, decode_key, decode_varint};
use prost_reflect::{DynamicMessage, Kind as FieldKind, MapKey, ReflectMessage, Value};
use prost_types::{Duration, Timestamp};

use crate::words;

/// The longest summary of a message, in bytes, but for the end of its last word.
const SUMMARY: usize = 160;
/// The longest bytes that are shown as text when they are text.
const SHORT: usize = 1000;

/// A value in words: of text, all of it.
pub(super) fn value_in_words(value: &Value, kind: &FieldKind) -> String {
    leaf_in_words(value, kind).unwrap_or_else(|| summary(value, kind))
}

/// A value that is not made of others in words.
pub(super) fn leaf_in_words(value: &Value, kind: &FieldKind) -> Option<String> {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::F32(value) => value.to_string(),
        Value::F64(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::Bytes(bytes) => bytes_in_words(bytes),
        Value::EnumNumber(number) => {
            let known = kind.as_enum().and_then(|known| known.get_value(*number));
            known.map_or_else(|| number.to_string(), |value| value.name().to_owned())
        }
        Value::Message(message) => return time_in_words(message),
        Value::List(_) | Value::Map(_) => return None,
    })
}

/// A moment or a length of time.
fn time_in_words(message: &DynamicMessage) -> Option<String> {
    let number = |field| match message.get_field_by_number(field).as_deref() {
        Some(Value::I64(number)) => *number,
        Some(Value::I32(number)) => i64::from(*number),
        _ => 0,
    };
    let (seconds, nanos) = (|| number(1), || i32::try_from(number(2)).unwrap_or_default());
    match message.descriptor().full_name() {
        "google.protobuf.Timestamp" => Some(words::moment(&Timestamp { seconds: seconds(), nanos: nanos() })),
        "google.protobuf.Duration" => Some(words::duration(&Duration { seconds: seconds(), nanos: nanos() })),
        _ => None,
    }
}

/// A value in one short line, whatever it is made of. What has a name does not say it again.
pub(super) fn summary(value: &Value, kind: &FieldKind) -> String {
    let mut text = String::new();
    let own_name = if let Value::Message(message) = value { name_field(message) } else { None };
    write_value(&mut text, value, kind, own_name);
    if text.is_empty() && matches!(value, Value::Message(_)) {
        return "nothing set".to_owned();
    }
    shortened(&text, SUMMARY)
}

/// Stops soon after the text is longer than a summary: what is written is bounded, however much there is.
fn write_value(text: &mut String, value: &Value, kind: &FieldKind, without: Option<&str>) {
    if text.len() > SUMMARY {
        return;
    }
    match value {
        Value::Message(message) => match time_in_words(message) {
            Some(time) => text.push_str(&time),
            None => write_message(text, message, without),
        },
        Value::List(items) => write_list(text, items, |text, item| write_value(text, item, kind, None)),
        Value::Map(entries) => {
            let FieldKind::Message(entry) = kind else { return };
            let kind = entry.map_entry_value_field().kind();
            let mut entries: Vec<(&MapKey, &Value)> = entries.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            write_list(text, &entries, |text, (key, value)| {
                text.push_str(&shortened(&key_in_words(key), SUMMARY));
                text.push('=');
                write_value(text, value, &kind, None);
            });
        }
        Value::String(value) => text.push_str(&shortened(value, SUMMARY)),
        leaf => text.push_str(&leaf_in_words(leaf, kind).unwrap_or_default()),
    }
}

fn write_message(text: &mut String, message: &DynamicMessage, without: Option<&str>) {
    let mut is_first = true;
    let mut separate = |text: &mut String| {
        if !std::mem::take(&mut is_first) {
            text.push_str(", ");
        }
    };
    for (field, value) in message.fields().filter(|(field, _)| Some(field.name()) != without) {
        if text.len() > SUMMARY {
            return;
        }
        separate(text);
        let is_group = matches!(value, Value::Map(_) | Value::List(_))
            || matches!(value, Value::Message(message) if time_in_words(message).is_none());
        let (open, close) = if is_group { ("(", ")") } else { ("=", "") };
        text.push_str(field.name());
        text.push_str(open);
        write_value(text, value, &field.kind(), None);
        text.push_str(close);
    }
    for field in message.unknown_fields() {
        if text.len() > SUMMARY {
            return;
        }
        separate(text);
        // A string is written to as long as there is memory.
        let _ = write!(text, "unknown field {}", field.number());
    }
}

fn write_list<T>(text: &mut String, items: &[T], mut write: impl FnMut(&mut String, &T)) {
    for (index, item) in items.iter().enumerate() {
        if text.len() > SUMMARY {
            return;
        }
        if index > 0 {
            text.push_str(", ");
        }
        write(text, item);
    }
}

/// Elements of a list in their order, by name.
pub(super) fn order(values: &[Value], kind: &FieldKind) -> String {
    let mut text = String::new();
    write_list(&mut text, values, |text, value| match element_name(value) {
        Some(name) => text.push_str(&shortened(&name, SUMMARY)),
        None => write_value(text, value, kind, None),
    });
    shortened(&text, SUMMARY)
}

/// The name of an element of a list, for those that have one.
pub(super) fn element_name(value: &Value) -> Option<String> {
    let Value::Message(message) = value else { return None };
    let field = message.get_field_by_name(name_field(message)?)?;
    field.as_str().map(str::to_owned)
}

/// The field with a message's name, if it has one.
fn name_field(message: &DynamicMessage) -> Option<&'static str> {
    let is_set = |field: &&str| matches!(message.get_field_by_name(field).as_deref(), Some(Value::String(name)) if !name.is_empty());
    ["name", "feature_view_name", "feature_name"].into_iter().find(is_set)
}

/// A key of a map.
pub(super) fn key_in_words(key: &MapKey) -> String {
    match key {
        MapKey::String(key) => key.clone(),
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
    }
}

/// Bytes: as text where they are a short one, as the configuration of a custom source often is.
pub(super) fn bytes_in_words(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= SHORT && !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => {
            text.to_owned()
        }
        _ => bytes_by_hash(bytes),
    }
}

/// How many bytes these are, and a number that tells them from others (FNV-1a; not one that withstands an attacker).
pub(super) fn bytes_by_hash(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let unit = if bytes.len() == 1 { "byte" } else { "bytes" };
    format!("{} {unit} ({hash:016x})", bytes.len())
}

/// All occurrences of a field that is not known, as they are encoded.
pub(super) fn unknown_in_words(encoded: &[u8]) -> String {
    let mut rest = encoded;
    match decode_key(&mut rest) {
        Ok((_, WireType::Varint)) => match decode_varint(&mut rest) {
            Ok(number) if rest.is_empty() => return number.to_string(),
            _ => {}
        },
        Ok((_, WireType::LengthDelimited)) => match decode_varint(&mut rest) {
            Ok(length) if usize::try_from(length) == Ok(rest.len()) => return bytes_in_words(rest),
            _ => {}
        },
        _ => {}
    }
    bytes_by_hash(encoded)
}

/// Text of at most so many characters.
pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
