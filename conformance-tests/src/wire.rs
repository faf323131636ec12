//! Writing and looking at single fields of encoded messages, those included that no struct knows.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

/// Appends a length-delimited field.
pub(crate) fn put(message: &mut Vec<u8>, number: u32, content: &[u8]) {
    encode_key(number, WireType::LengthDelimited, message);
    encode_varint(content.len() as u64, message);
    message.extend_from_slice(content);
}

/// Appends a varint field.
pub(crate) fn put_varint(message: &mut Vec<u8>, number: u32, value: u64) {
    encode_key(number, WireType::Varint, message);
    encode_varint(value, message);
}

/// A field as it stands in a message: its number, what it holds if it is length-delimited, and all of its bytes.
type Field<'a> = (u32, &'a [u8], &'a [u8]);

fn fields(message: &[u8]) -> Vec<Field<'_>> {
    let parse = || -> Result<Vec<Field<'_>>, prost::DecodeError> {
        let mut rest = message;
        let mut found = Vec::new();
        while !rest.is_empty() {
            let start = rest;
            let (number, wire_type) = decode_key(&mut rest)?;
            let mut content = rest;
            skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
            content = &content[..content.len() - rest.len()];
            if wire_type == WireType::LengthDelimited {
                decode_varint(&mut content)?;
            } else {
                content = &[];
            }
            found.push((number, content, &start[..start.len() - rest.len()]));
        }
        Ok(found)
    };
    parse().unwrap_or_else(|error| panic!("a stored message is not well-formed protobuf: {error}"))
}

/// What the occurrences of a length-delimited field hold, joined: as protobuf merges a sub-message.
pub(crate) fn content(message: &[u8], number: u32) -> Vec<u8> {
    fields(message).into_iter().filter(|field| field.0 == number).flat_map(|field| field.1).copied().collect()
}

/// The fields whose numbers are wanted, as they stand and in their order.
pub(crate) fn raw(message: &[u8], is_wanted: impl Fn(u32) -> bool) -> Vec<u8> {
    fields(message).into_iter().filter(|field| is_wanted(field.0)).flat_map(|field| field.2).copied().collect()
}
