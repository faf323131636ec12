//! What is stored and cannot be decoded: another program wrote it, a disk damaged it, or a newer Feast knows what it means.
//!
//! An apply of a whole object needs nothing of it and replaces it. Whatever has to read it fails, with an error that says
//! which object it is.

use crate::backend::Key;
use crate::draft::Draft;
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::Kind;

/// A stored object that has to be read.
///
/// # Errors
/// `Corrupt` when it cannot be decoded.
pub(crate) fn readable(draft: &mut Draft<'_>, kind: Kind, project: &str, name: &str) -> Result<Option<Object>> {
    let Some(object) = draft.object(kind, project, name)? else { return Ok(None) };
    object.check().map_err(|error| unreadable(&Key::object(kind, project, name), error))?;
    Ok(Some(object))
}

/// The error about what is stored under a key, if it is that this cannot be decoded: with the key, and a remedy.
pub(crate) fn unreadable(key: &Key, error: Error) -> Error {
    if error.kind() != ErrorKind::Corrupt {
        return error;
    }
    let remedy = match key {
        Key::Object { .. } => "; apply it again as a whole, or delete it",
        _ => "",
    };
    Error::new(ErrorKind::Corrupt, format!("what is stored as {key} cannot be decoded{remedy}: {error}"))
        .with_source(error)
}
