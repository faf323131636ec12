//! From the bytes of a message to its JSON, in one pass over each message within it.
//!
//! The fields of a message are noted as they are found, and put in the order of their numbers if they do not stand in it; then
//! each is written, and so are the messages in it. Notes are in one list, in which those of an inner message stand behind those
//! of the outer one for as long as it is written. So the work is linear in the bytes, but for the sorting, and no value is copied
//! anywhere but to the text.

use std::collections::HashMap;
use std::fmt::Display;
use std::io::Write;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use feast_registry_core::{Error, ErrorKind, Result, wire};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::{Duration, Timestamp};
use serde::Serialize;

use super::plan::{Field, Form, Message, Plans, Shape, Value};

/// How deep messages may be in each other, as for all who decode them.
const DEPTH: usize = 100;

/// The fewest seconds that a duration has in text, with as many nanoseconds as there may be.
const LEAST: i64 = i64::MIN + 8;

/// What `all_fields_can_be_said` rules out.
const UNKNOWN: &str = "it has a field of a type whose form in JSON is not known";

/// What stood in a field.
#[derive(Clone, Copy)]
enum Raw<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Content(&'a [u8]),
    /// What no field of these messages has: eight bytes, a group.
    Other,
}

impl<'a> Raw<'a> {
    /// Takes the next field of a message: its number, and what stands in it.
    fn take(rest: &mut &'a [u8]) -> Result<(u32, Self)> {
        let (number, wire_type) = decode_key(rest).map_err(malformed)?;
        let raw = match wire_type {
            WireType::Varint => Self::Varint(decode_varint(rest).map_err(malformed)?),
            WireType::LengthDelimited => {
                let len = decode_varint(rest).map_err(malformed)?;
                let (content, after) =
                    usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len)).ok_or_else(ends_early)?;
                *rest = after;
                Self::Content(content)
            }
            WireType::ThirtyTwoBit => {
                let (bytes, after) = rest.split_first_chunk().ok_or_else(ends_early)?;
                *rest = after;
                Self::Fixed32(*bytes)
            }
            _ => {
                skip_field(wire_type, number, rest, DecodeContext::default()).map_err(malformed)?;
                Self::Other
            }
        };
        Ok((number, raw))
    }
}

/// A field that was found in a message.
#[derive(Clone, Copy)]
struct Found<'a> {
    /// Which of the message's fields it is.
    field: usize,
    raw: Raw<'a>,
    /// Whether another field of its oneof stands behind it.
    is_cleared: bool,
}

pub(super) struct Transcoder<'a, 'out> {
    plans: &'static Plans,
    found: Vec<Found<'a>>,
    out: &'out mut Vec<u8>,
}

impl<'a, 'out> Transcoder<'a, 'out> {
    pub(super) fn new(message: &'a [u8], out: &'out mut Vec<u8>) -> Self {
        let whole = Found { field: 0, raw: Raw::Content(message), is_cleared: false };
        Self { plans: Plans::get(), found: vec![whole], out }
    }

    /// Writes those fields of the message, which has a plan, that are wanted by their names in JSON. Before each is a comma,
    /// unless an opening brace is.
    pub(super) fn write(mut self, plan: usize, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
        let plans = self.plans;
        let message = plans.messages.get(plan).ok_or_else(|| corrupt("its type is not known"))?;
        let base = self.scan(message, 0..1)?;
        self.found.drain(..base);
        self.found.retain(|found| is_wanted(&message.fields[found.field].name));
        self.fields(message, 0, DEPTH)
    }

    /// Notes the fields of a message that is given in pieces, each in an earlier note, and says where the notes begin.
    fn scan(&mut self, message: &Message, pieces: Range<usize>) -> Result<usize> {
        let base = self.found.len();
        let (mut last, mut is_in_order) = (0, true);
        for piece in pieces {
            let Raw::Content(mut piece) = self.found[piece].raw else { return Err(wrong_type()) };
            while !piece.is_empty() {
                let (number, raw) = Raw::take(&mut piece)?;
                if let Some(field) = message.field(number) {
                    is_in_order &= last <= field;
                    last = field;
                    self.found.push(Found { field, raw, is_cleared: false });
                }
            }
        }
        for oneof in 0..message.oneofs {
            let mut set = None;
            let members = |found: &&mut Found<'_>| message.fields[found.field].oneof == Some(oneof);
            let mut is_cleared = false;
            for found in self.found[base..].iter_mut().rev().filter(members) {
                is_cleared |= *set.get_or_insert(found.field) != found.field;
                found.is_cleared = is_cleared;
            }
        }
        if !is_in_order {
            self.found[base..].sort_by_key(|found| found.field);
        }
        Ok(base)
    }

    fn fields(&mut self, message: &'static Message, base: usize, depth: usize) -> Result<()> {
        let (mut start, end) = (base, self.found.len());
        while start < end {
            let field = self.found[start].field;
            let count = self.found[start..end].iter().take_while(|found| found.field == field).count();
            self.field(&message.fields[field], start..start + count, depth)?;
            start += count;
        }
        Ok(())
    }

    fn field(&mut self, field: &'static Field, mut found: Range<usize>, depth: usize) -> Result<()> {
        let start = self.out.len();
        while found.start < found.end && self.found[found.start].is_cleared {
            // Nobody sees it, but who decodes the message does, and refuses what is malformed.
            self.value(&field.value, found.start..found.start + 1, depth)?;
            found.start += 1;
        }
        self.out.truncate(start);
        if found.is_empty() {
            return Ok(());
        }
        self.comma();
        self.out.extend_from_slice(field.opening.as_bytes());
        let is_there = match (field.shape, &field.value) {
            (Shape::One, value) => self.value(value, found, depth)? || field.has_presence,
            (Shape::List, value) => self.list(value, found, depth)?,
            (Shape::Map, Value::Message(entry)) => self.map(&self.plans.messages[*entry], found, depth)?,
            (Shape::Map, _) => return Err(corrupt(UNKNOWN)),
        };
        if !is_there {
            self.out.truncate(start);
        }
        Ok(())
    }

    /// Writes the last of these values, or where there is none the default, and says whether it is another than the default.
    fn value(&mut self, value: &'static Value, found: Range<usize>, depth: usize) -> Result<bool> {
        if let Value::Message(plan) = value {
            let depth = depth.checked_sub(1).ok_or_else(|| corrupt("its messages nest too deep"))?;
            self.message(&self.plans.messages[*plan], found, depth)?;
            return Ok(true);
        }
        let start = self.out.len();
        let mut is_set = false;
        if found.is_empty() {
            let default = match value {
                Value::Text | Value::Bytes => Raw::Content(&[]),
                Value::Float => Raw::Fixed32([0; 4]),
                _ => Raw::Varint(0),
            };
            self.scalar(value, default)?;
        }
        for index in found {
            self.out.truncate(start);
            is_set = self.scalar(value, self.found[index].raw)?;
        }
        Ok(is_set)
    }

    fn message(&mut self, message: &'static Message, pieces: Range<usize>, depth: usize) -> Result<()> {
        let base = self.scan(message, pieces)?;
        match message.form {
            Form::Object => {
                self.out.push(b'{');
                self.fields(message, base, depth)?;
                self.out.push(b'}');
            }
            Form::Wrapper => {
                let found = base..self.found.len();
                message.fields.first().map_or(Ok(true), |field| self.value(&field.value, found, depth))?;
            }
            // Both are told beyond what protobuf's JSON has room for, years 1 to 9999 and 10,000 years: an object that is stored is in its
            // list, and what its list has is what there is.
            Form::Timestamp => {
                let [seconds, nanos] = self.seconds_and_nanos(base)?;
                self.quoted(Timestamp { seconds, nanos: nanos as i32 });
            }
            Form::Duration => {
                let [seconds, nanos] = self.seconds_and_nanos(base)?;
                // The text of the least of all numbers would be that of one that there is not.
                self.quoted(Duration { seconds: seconds.max(LEAST), nanos: nanos as i32 });
            }
            Form::Unknown => return Err(corrupt(UNKNOWN)),
        }
        self.found.truncate(base);
        Ok(())
    }

    /// The two numbers that moments and durations are.
    fn seconds_and_nanos(&self, base: usize) -> Result<[i64; 2]> {
        let mut numbers = [0; 2];
        for found in &self.found[base..] {
            let Raw::Varint(number) = found.raw else { return Err(wrong_type()) };
            if let Some(of_field) = numbers.get_mut(found.field) {
                *of_field = number as i64;
            }
        }
        Ok(numbers)
    }

    /// Writes a list and says whether there is anything in it.
    fn list(&mut self, value: &'static Value, found: Range<usize>, depth: usize) -> Result<bool> {
        self.out.push(b'[');
        let start = self.out.len();
        for index in found {
            match self.found[index].raw {
                Raw::Content(mut packed) if value.is_packable() => {
                    while !packed.is_empty() {
                        let number = decode_varint(&mut packed).map_err(malformed)?;
                        self.comma_after(start);
                        self.scalar(value, Raw::Varint(number))?;
                    }
                }
                _ => {
                    self.comma_after(start);
                    self.value(value, index..index + 1, depth)?;
                }
            }
        }
        let is_there = self.out.len() > start;
        self.out.push(b']');
        Ok(is_there)
    }

    /// Writes a map and says that there is something in it. Of two entries with one key, the later one counts.
    fn map(&mut self, entry: &'static Message, found: Range<usize>, depth: usize) -> Result<bool> {
        let last = if found.len() > 1 { self.last_by_key(found.clone())? } else { HashMap::new() };
        self.out.push(b'{');
        for index in found {
            let start = self.out.len();
            self.comma();
            let base = self.scan(entry, index..index + 1)?;
            let end = self.found.len();
            let values = base + self.found[base..].partition_point(|found| found.field == 0);
            self.value(&entry.fields[0].value, base..values, depth)?;
            self.out.push(b':');
            self.value(&entry.fields[1].value, values..end, depth)?;
            self.found.truncate(base);
            if let Raw::Content(entry) = self.found[index].raw
                && last.get(key_of(entry)?).is_some_and(|last| *last != index)
            {
                self.out.truncate(start);
            }
        }
        self.out.push(b'}');
        Ok(true)
    }

    fn last_by_key(&self, found: Range<usize>) -> Result<HashMap<&'a [u8], usize>> {
        let mut last = HashMap::with_capacity(found.len());
        for index in found {
            if let Raw::Content(entry) = self.found[index].raw {
                last.insert(key_of(entry)?, index);
            }
        }
        Ok(last)
    }

    /// Writes a value and says whether it is another than the default.
    fn scalar(&mut self, value: &'static Value, raw: Raw<'a>) -> Result<bool> {
        match (value, raw) {
            (Value::Bool, Raw::Varint(number)) => {
                self.json(&(number != 0))?;
                Ok(number != 0)
            }
            (Value::Int32, Raw::Varint(number)) => {
                self.json(&(number as i32))?;
                Ok(number as i32 != 0)
            }
            (Value::Int64, Raw::Varint(number)) => {
                self.quoted(number as i64);
                Ok(number != 0)
            }
            (Value::Uint64, Raw::Varint(number)) => {
                self.quoted(number);
                Ok(number != 0)
            }
            (Value::Enum(names), Raw::Varint(number)) => {
                let number = number as i32;
                match names.get(&number) {
                    Some(name) => self.out.extend_from_slice(name.as_bytes()),
                    None => self.json(&number)?,
                }
                Ok(number != 0)
            }
            (Value::Float, Raw::Fixed32(bytes)) => {
                let number = f32::from_le_bytes(bytes);
                match number {
                    _ if number.is_nan() => self.quoted("NaN"),
                    f32::INFINITY => self.quoted("Infinity"),
                    f32::NEG_INFINITY => self.quoted("-Infinity"),
                    _ => self.json(&number)?,
                }
                // To Python, which is followed here, the zero with a sign is another value.
                Ok(bytes != [0; 4])
            }
            (Value::Text, Raw::Content(text)) => {
                let text = std::str::from_utf8(text).map_err(|error| corrupt(&error.to_string()))?;
                self.json(text)?;
                Ok(!text.is_empty())
            }
            (Value::Bytes, Raw::Content(bytes)) => {
                self.out.push(b'"');
                let start = self.out.len();
                let len = base64::encoded_len(bytes.len(), true).ok_or_else(|| corrupt("it is too long"))?;
                self.out.resize(start + len, 0);
                STANDARD.encode_slice(bytes, &mut self.out[start..]).map_err(|error| corrupt(&error.to_string()))?;
                self.out.push(b'"');
                Ok(!bytes.is_empty())
            }
            (Value::Unknown, _) => Err(corrupt(UNKNOWN)),
            _ => Err(wrong_type()),
        }
    }

    fn json(&mut self, value: &(impl Serialize + ?Sized)) -> Result<()> {
        serde_json::to_writer(&mut *self.out, value).map_err(|error| corrupt(&error.to_string()))
    }

    /// Writes a text in which nothing has to be escaped.
    fn quoted(&mut self, text: impl Display) {
        // To memory it is written always.
        drop(write!(self.out, "\"{text}\""));
    }

    fn comma(&mut self) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
    }

    fn comma_after(&mut self, start: usize) {
        if self.out.len() > start {
            self.out.push(b',');
        }
    }
}

fn key_of(entry: &[u8]) -> Result<&[u8]> {
    Ok(wire::content(entry, 1)?.unwrap_or_default())
}

fn corrupt(why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, why.to_owned())
}

fn malformed(error: DecodeError) -> Error {
    corrupt(&error.to_string())
}

fn ends_early() -> Error {
    corrupt("it ends within a field")
}

fn wrong_type() -> Error {
    corrupt("a field has a value of another type")
}
