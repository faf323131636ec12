//! Stored messages as JSON: protobuf's own mapping, as Feast's `MessageToDict` has it.
//!
//! Nearly all that lists of thousands of views cost is this, so it goes from the stored bytes to the text, without a message
//! between them: a view with 20 features takes about 6.5 µs, and about 29 with `prost-reflect`, which makes a tree of maps of it first.
//! That crate knows the descriptors, and it is what the text is held against in tests.

use feast_registry_core::{Error, ErrorKind, Object, Result};
use serde_json::{Map, Value};

use self::plan::Plans;
use self::transcode::Transcoder;

mod plan;
#[cfg(test)]
mod tests;
mod transcode;

/// Writes an object as JSON.
///
/// # Errors
/// `Corrupt` when it cannot be decoded. Nothing is left behind then.
pub(crate) fn write(object: &Object, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    out.push(b'{');
    let written = write_fields(object, None, out);
    match written {
        Ok(()) => out.push(b'}'),
        Err(_) => out.truncate(start),
    }
    written
}

/// Writes the fields of an object, but for one of this name, into a JSON object that is open and may have others already.
///
/// # Errors
/// As [`write`].
pub(crate) fn write_fields(object: &Object, except: Option<&str>, out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let written = transcode(object, out, |name| Some(name) != except);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Begins another field of a JSON object that is open.
pub(crate) fn member(name: &str, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    text(name, out);
    out.push(b':');
}

/// Writes a text.
pub(crate) fn text(text: &str, out: &mut Vec<u8>) {
    // To memory a text is written always.
    drop(serde_json::to_writer(out, text));
}

/// An object as a JSON object, for what changes it.
///
/// # Errors
/// As [`write`].
pub(crate) fn value(object: &Object) -> Result<Map<String, Value>> {
    let mut text = Vec::new();
    write(object, &mut text)?;
    parsed(object, &text)
}

/// What an object has under one name, at the top of its JSON; `None` where that is nothing. The rest of the object is not read.
///
/// # Errors
/// As [`write`], for that field.
pub(crate) fn field(object: &Object, name: &str) -> Result<Option<Value>> {
    let mut text = b"{".to_vec();
    transcode(object, &mut text, |of| of == name)?;
    text.push(b'}');
    Ok(parsed(object, &text)?.remove(name))
}

fn transcode(object: &Object, out: &mut Vec<u8>, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
    let plan = Plans::get().of(object.kind).ok_or_else(|| {
        Error::new(ErrorKind::Internal, format!("there is no message {}", object.kind.message_name()))
    })?;
    Transcoder::new(&object.bytes, out).write(plan, is_wanted).map_err(|error| has_no_json(object, error))
}

fn parsed(object: &Object, text: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(text).map_err(|error| has_no_json(object, error))
}

fn has_no_json(object: &Object, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let name = object.name().unwrap_or_default();
    Error::new(ErrorKind::Corrupt, format!("the {} `{name}` has no form in JSON: {error}", object.kind))
        .with_source(error)
}
