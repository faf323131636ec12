//! Reading and changing single fields of an encoded protobuf message, without decoding the rest of it.
//!
//! Decoding a message into a struct and encoding it again drops every field that the struct does not have. The registry
//! must not do that to what a newer client stored, so a stored message is only ever changed here, field by field. See
//! the protobuf encoding specification (protobuf.dev/programming-guides/encoding) for the format and for the rule that
//! several occurrences of a sub-message merge, which for the bytes means: are appended.
//!
//! Every function that reads a message fails with [`ErrorKind::Corrupt`] when the bytes are not an encoded message.

use std::borrow::Cow;

use prost::bytes::{Buf, BufMut};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use crate::error::{Error, ErrorKind, Result};

/// One field of an encoded message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Field<'a> {
    /// The field's number.
    pub number: u32,
    /// What a length-delimited field holds; empty for the other wire types.
    pub content: &'a [u8],
    /// What a varint field holds; zero for the other wire types.
    pub varint: u64,
    /// The whole field as it stands in the message, key included.
    pub raw: &'a [u8],
}

impl<'a> Field<'a> {
    /// Whether it holds a length and so many bytes: a string, bytes, a sub-message.
    pub fn is_length_delimited(&self) -> bool {
        self.raw.first().is_some_and(|key| key & 7 == WireType::LengthDelimited as u8)
    }

    /// Whether it holds a number as a varint.
    pub(crate) fn is_varint(&self) -> bool {
        self.raw.first().is_some_and(|key| key & 7 == WireType::Varint as u8)
    }

    /// The fields within a group; `None` for the other wire types.
    pub(crate) fn group(&self) -> Option<&'a [u8]> {
        let mut rest = self.raw;
        let (group, WireType::StartGroup) = decode_key(&mut rest).ok()? else { return None };
        let inside = rest;
        loop {
            let before = rest;
            match decode_key(&mut rest).ok()? {
                (number, WireType::EndGroup) if number == group => return Some(&inside[..inside.len() - before.len()]),
                (number, wire_type) => drop(skip_value(&mut rest, number, wire_type).ok()?),
            }
        }
    }
}

/// The fields of an encoded message in the order in which they stand.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>> {
    let start = *rest;
    let (number, wire_type) = decode_key(rest).map_err(malformed)?;
    let mut value = *rest;
    let content = skip_value(rest, number, wire_type)?;
    let varint = if wire_type == WireType::Varint { decode_varint(&mut value).map_err(malformed)? } else { 0 };
    Ok(Field { number, content, varint, raw: &start[..start.len() - rest.len()] })
}

/// How deep groups may nest, as for messages in prost.
const MAX_GROUP_DEPTH: usize = 100;

fn skip_value<'a>(rest: &mut &'a [u8], number: u32, wire_type: WireType) -> Result<&'a [u8]> {
    let len = match wire_type {
        WireType::Varint => {
            decode_varint(rest).map_err(malformed)?;
            return Ok(&[]);
        }
        WireType::StartGroup => {
            skip_group(rest, number)?;
            return Ok(&[]);
        }
        WireType::EndGroup => return Err(malformed("a group ends that did not begin")),
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        WireType::LengthDelimited => decode_varint(rest).map_err(malformed)?,
    };
    let len = usize::try_from(len).map_err(malformed)?;
    let (content, after) = rest.split_at_checked(len).ok_or_else(|| malformed("it ends within a field"))?;
    *rest = after;
    Ok(if wire_type == WireType::LengthDelimited { content } else { &[] })
}

/// Groups are protobuf's first form of sub-message; proto3 has none, but an unknown field may be one.
fn skip_group(rest: &mut &[u8], number: u32) -> Result<()> {
    let mut open = vec![number];
    while let Some(&innermost) = open.last() {
        match decode_key(rest).map_err(malformed)? {
            (number, WireType::StartGroup) if open.len() < MAX_GROUP_DEPTH => open.push(number),
            (_, WireType::StartGroup) => return Err(malformed("its groups nest too deep")),
            (number, WireType::EndGroup) if number == innermost => drop(open.pop()),
            (number, wire_type) => drop(skip_value(rest, number, wire_type)?),
        }
    }
    Ok(())
}

fn malformed(reason: impl ToString) -> Error {
    Error::new(ErrorKind::Corrupt, format!("this is not an encoded protobuf message: {}", reason.to_string()))
}

/// What a string or bytes field holds (the last occurrence counts), or nothing.
pub fn content(message: &[u8], number: u32) -> Result<Option<&[u8]>> {
    let mut last = None;
    for field in fields(message) {
        let field = field?;
        if field.number == number {
            last = Some(field.content);
        }
    }
    Ok(last)
}

/// The text of a string field, empty when it is not there.
pub fn text(message: &[u8], number: u32) -> Result<&str> {
    std::str::from_utf8(content(message, number)?.unwrap_or_default()).map_err(malformed)
}

/// A sub-message, all its occurrences merged; `None` when it is not there.
pub fn sub_message(message: &[u8], number: u32) -> Result<Option<Cow<'_, [u8]>>> {
    let mut merged: Option<Cow<'_, [u8]>> = None;
    for field in fields(message) {
        let field = field?;
        if field.number == number {
            match &mut merged {
                None => merged = Some(Cow::Borrowed(field.content)),
                Some(earlier) => earlier.to_mut().extend_from_slice(field.content),
            }
        }
    }
    Ok(merged)
}

/// The entries of a `map<string, string>`. A key that occurs twice comes twice; the later one counts.
pub fn string_map(message: &[u8], number: u32) -> Result<Vec<(&str, &str)>> {
    let mut entries = Vec::new();
    for field in fields(message) {
        let field = field?;
        if field.number == number {
            entries.push((text(field.content, 1)?, text(field.content, 2)?));
        }
    }
    Ok(entries)
}

/// The message with the fields that `keep` says, in their order.
pub fn retain(message: &[u8], keep: impl Fn(u32) -> bool) -> Result<Vec<u8>> {
    let mut kept = Vec::with_capacity(message.len());
    for field in fields(message) {
        let field = field?;
        if keep(field.number) {
            kept.extend_from_slice(field.raw);
        }
    }
    Ok(kept)
}

/// The message with a length-delimited field set to `content`, where the field first stood or else at the end; other
/// occurrences go.
pub fn set(message: &[u8], number: u32, content: &[u8]) -> Result<Vec<u8>> {
    let mut changed = Vec::with_capacity(message.len() + content.len() + 8);
    let mut is_set = false;
    for field in fields(message) {
        let field = field?;
        if field.number != number {
            changed.extend_from_slice(field.raw);
        } else if !is_set {
            put(&mut changed, number, content);
            is_set = true;
        }
    }
    if !is_set {
        put(&mut changed, number, content);
    }
    Ok(changed)
}

/// Appends a length-delimited field.
pub fn put(message: &mut Vec<u8>, number: u32, content: &[u8]) {
    encode_key(number, WireType::LengthDelimited, message);
    encode_varint(content.len() as u64, message);
    message.put_slice(content);
}

/// Appends a varint field; as proto3 has it, zero is left out.
pub fn put_varint(message: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        encode_key(number, WireType::Varint, message);
        encode_varint(value, message);
    }
}

/// Copies the value of one field, whose key has been read, from any buffer: what a decoder calls field by field.
pub(crate) fn copy_field(
    number: u32,
    wire_type: WireType,
    from: &mut impl Buf,
    to: &mut impl BufMut,
) -> Result<(), prost::DecodeError> {
    let mut open: Vec<u32> = Vec::new();
    let (mut number, mut wire_type) = (number, wire_type);
    loop {
        encode_key(number, wire_type, to);
        let len = match wire_type {
            WireType::Varint => {
                encode_varint(decode_varint(from)?, to);
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => {
                let len = decode_varint(from)?;
                encode_varint(len, to);
                len
            }
            WireType::StartGroup if open.len() < MAX_GROUP_DEPTH => {
                open.push(number);
                0
            }
            WireType::EndGroup if open.last() == Some(&number) => {
                open.pop();
                0
            }
            WireType::StartGroup | WireType::EndGroup => return Err(decode_error("its groups do not balance")),
        };
        if len > from.remaining() as u64 {
            return Err(decode_error("it ends within a field"));
        }
        to.put(from.take(len as usize));
        if open.is_empty() {
            return Ok(());
        }
        (number, wire_type) = decode_key(from)?;
    }
}

/// prost means its constructor for itself, and has no other for those who implement `Message`.
#[allow(deprecated)]
fn decode_error(reason: &'static str) -> prost::DecodeError {
    prost::DecodeError::new(reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::proto::core::{Entity, EntityMeta, EntitySpecV2};

    fn entity() -> Entity {
        Entity {
            spec: Some(EntitySpecV2 {
                name: "driver".into(),
                tags: [("team".to_owned(), "a".to_owned())].into(),
                ..Default::default()
            }),
            meta: Some(EntityMeta::default()),
        }
    }

    #[test]
    fn occurrences_of_a_sub_message_merge() {
        let mut bytes = entity().encode_to_vec();
        let more = Entity {
            spec: Some(EntitySpecV2 { owner: "me".into(), name: "rider".into(), ..Default::default() }),
            meta: None,
        };
        bytes.extend(more.encode_to_vec());
        let spec = sub_message(&bytes, 1).expect("well-formed").expect("present");
        assert_eq!(
            EntitySpecV2::decode(&*spec).expect("a spec"),
            Entity::decode(&*bytes).expect("an entity").spec.expect("a spec")
        );
        assert_eq!(text(&spec, 1).expect("text"), "rider");
        assert_eq!(string_map(&spec, 8).expect("tags"), [("team", "a")]);
    }

    #[test]
    fn setting_a_field_keeps_all_others_where_they_are() {
        let mut bytes = entity().encode_to_vec();
        put(&mut bytes, 999, b"unknown");
        put_varint(&mut bytes, 1000, 7);
        let changed = set(&bytes, 1, b"").expect("well-formed");
        let numbers: Vec<u32> = fields(&changed).map(|field| field.expect("well-formed").number).collect();
        assert_eq!(numbers, [1, 2, 999, 1000]);
        assert_eq!(content(&changed, 999).expect("well-formed"), Some(&b"unknown"[..]));
    }

    #[test]
    fn groups_are_skipped_whole_and_must_balance() {
        let group = [0x0b, 0x08, 0x01, 0x13, 0x14, 0x0c]; // 1 { 1: 1, 2 {} }
        let found: Vec<_> = fields(&group).collect::<Result<_>>().expect("well-formed");
        assert_eq!(found, [Field { number: 1, content: &[], varint: 0, raw: &group }]);
        let inside = found[0].group().expect("a group");
        assert_eq!(inside, &group[1..5]);
        let inner: Vec<_> = fields(inside).collect::<Result<_>>().expect("well-formed");
        assert_eq!((inner[0].group(), inner[1].group()), (None, Some(&[][..])));
        for broken in [&group[..5], &[0x0b, 0x14][..], &[0x0c][..], &[0x0b; 200]] {
            assert!(fields(broken).any(|field| field.is_err()), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_what_is_read_is_what_stands_there(bytes: Vec<u8>) {
            let read: Vec<_> = fields(&bytes).collect();
            if read.iter().all(|field| field.is_ok()) {
                let joined: Vec<u8> = read.iter().flatten().flat_map(|field| field.raw.iter().copied()).collect();
                prop_assert_eq!(joined, bytes);
            }
        }
    }
}
