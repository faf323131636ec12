//! Entries of the journal as bytes.
//!
//! What is stored must be readable by every later version, so the layout is spelled out here, and depends on nothing that may
//! change, as the order of an enum's variants. These are protobuf messages; a field that is added later is no trouble.

use feast_registry_core::{
    Bytes, Change, CommitId, Error, ErrorKind, Image, JournalEntry, Key, Kind, Result, Revision, Target,
};
use prost::Message;
use prost_types::Timestamp;

/// An entry, but for its revision, which is its key.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    at: Option<Timestamp>,
    #[prost(string, optional, tag = "3")]
    author: Option<String>,
    #[prost(string, optional, tag = "4")]
    reason: Option<String>,
    #[prost(message, repeated, tag = "5")]
    changes: Vec<StoredChange>,
}

/// A change. `what` is one of the letters below; of the other fields, those count that its kind of target has.
#[derive(Clone, PartialEq, Message)]
struct StoredChange {
    #[prost(string, tag = "1")]
    what: String,
    #[prost(string, tag = "2")]
    kind: String,
    #[prost(string, tag = "3")]
    project: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(int32, tag = "5")]
    number: i32,
    /// An image: nothing was there, or these bytes.
    #[prost(bytes = "bytes", optional, tag = "6")]
    before: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "7")]
    after: Option<Bytes>,
}

const OBJECT: &str = "object";
const VERSION: &str = "version";
const USER_METADATA: &str = "user_metadata";
const FACT: &str = "fact";
/// All versions of a view, and all that a project has. What was there is in changes of its own.
const VERSIONS: &str = "versions";
const PROJECT: &str = "project";

/// An entry as it is stored.
pub(crate) fn encoded(entry: &JournalEntry) -> Vec<u8> {
    let changes = entry.changes.iter().map(|change| {
        let (what, kind, project, name, number) = match &change.target {
            Target::Key(Key::Object { kind, project, name }) => (OBJECT, kind.plural(), project, name.as_str(), 0),
            Target::Key(Key::Version { project, view, number }) => (VERSION, "", project, view.as_str(), *number),
            Target::Key(Key::UserMetadata { kind, project, view }) => {
                (USER_METADATA, kind.plural(), project, view.as_str(), 0)
            }
            Target::Key(Key::Metadata { project, name }) => (FACT, "", project, name.as_str(), 0),
            Target::Versions { project, view } => (VERSIONS, "", project, view.as_str(), 0),
            Target::Project { project } => (PROJECT, "", project, "", 0),
        };
        StoredChange {
            what: what.to_owned(),
            kind: kind.to_owned(),
            project: project.clone(),
            name: name.to_owned(),
            number,
            before: bytes(&change.before),
            after: bytes(&change.after),
        }
    });
    let entry = Entry {
        id: entry.id.as_bytes().to_vec(),
        at: Some(entry.at),
        author: entry.author.clone(),
        reason: entry.reason.clone(),
        changes: changes.collect(),
    };
    entry.encode_to_vec()
}

fn bytes(image: &Image) -> Option<Bytes> {
    match image {
        Image::Value(bytes) => Some(bytes.clone()),
        Image::Absent | Image::NotKept => None,
    }
}

/// The entry of a revision, from how it is stored.
///
/// # Errors
/// `Corrupt` when it is none.
pub(crate) fn decoded(revision: Revision, stored: &[u8]) -> Result<JournalEntry> {
    let corrupt = || Error::new(ErrorKind::Corrupt, format!("the entry {revision} of the journal cannot be read"));
    let stored = Entry::decode(stored).map_err(|error| corrupt().with_source(error))?;
    let id = CommitId::from_bytes(stored.id.try_into().map_err(|_| corrupt())?);
    let mut entry = JournalEntry::new(revision, id, stored.at.ok_or_else(corrupt)?);
    (entry.author, entry.reason) = (stored.author, stored.reason);
    for StoredChange { what, kind, project, name, number, before, after } in stored.changes {
        let kind = || kind.parse::<Kind>().map_err(|_| corrupt());
        let key = match what.as_str() {
            OBJECT => Key::Object { kind: kind()?, project, name },
            VERSION => Key::Version { project, view: name, number },
            USER_METADATA => Key::UserMetadata { kind: kind()?, project, view: name },
            FACT => Key::Metadata { project, name },
            VERSIONS => {
                entry.changes.push(Change::removal(Target::Versions { project, view: name }));
                continue;
            }
            PROJECT => {
                entry.changes.push(Change::removal(Target::Project { project }));
                continue;
            }
            _ => return Err(corrupt()),
        };
        entry.changes.push(Change::of_key(key, before.into(), after.into()));
    }
    Ok(entry)
}
