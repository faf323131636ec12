//! An entry of the journal as it is serialized.

use feast_registry_core::{
    Change, Commit, CommitId, Error, ErrorKind, Image, JournalEntry, Key, Kind, Result, Revision, Target, wire,
};
use prost::Message;
use prost_types::Timestamp;

use super::corrupt;

/// A commit, without what was stored before and since: only whether something was.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct JournalRecord {
    #[prost(uint64, tag = "1")]
    revision: u64,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(int64, tag = "3")]
    seconds: i64,
    #[prost(int32, tag = "4")]
    nanos: i32,
    #[prost(string, optional, tag = "5")]
    author: Option<String>,
    #[prost(string, optional, tag = "6")]
    reason: Option<String>,
    #[prost(message, repeated, tag = "7")]
    changes: Vec<ChangeRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChangeRecord {
    #[prost(enumeration = "Of", tag = "1")]
    of: i32,
    /// The kind of object or view, as its field of `feast.core.Registry`.
    #[prost(uint32, tag = "2")]
    field: u32,
    #[prost(string, tag = "3")]
    project: String,
    /// The name of an object, a view or a fact.
    #[prost(string, tag = "4")]
    name: String,
    /// The number of a version.
    #[prost(int32, tag = "5")]
    number: i32,
    #[prost(bool, tag = "6")]
    was_there: bool,
    #[prost(bool, tag = "7")]
    is_there: bool,
}

/// What a change is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Of {
    Unknown = 0,
    Object = 1,
    Version = 2,
    UserMetadata = 3,
    Metadata = 4,
    Versions = 5,
    Project = 6,
}

impl JournalRecord {
    pub(super) fn new(revision: u64, commit: &Commit, changes: Vec<Change>) -> Self {
        Self {
            revision,
            id: commit.id.as_bytes().to_vec(),
            seconds: commit.at.seconds,
            nanos: commit.at.nanos,
            author: commit.author.clone(),
            reason: commit.reason.clone(),
            changes: changes.into_iter().map(ChangeRecord::new).collect(),
        }
    }

    /// The entry that bytes are.
    pub(super) fn entry(bytes: &[u8]) -> Result<JournalEntry> {
        let record = Self::decode(bytes).map_err(corrupt)?;
        let id = CommitId::from_bytes(record.id.try_into().map_err(|_| strange("an identity"))?);
        let at = Timestamp { seconds: record.seconds, nanos: record.nanos };
        let mut entry = JournalEntry::new(Revision::new(record.revision), id, at);
        (entry.author, entry.reason) = (record.author, record.reason);
        entry.changes = record.changes.into_iter().map(ChangeRecord::into_change).collect::<Result<_>>()?;
        Ok(entry)
    }
}

/// The revision and the identity of an entry, without decoding the rest of it.
pub(super) fn place(bytes: &[u8]) -> Result<(u64, CommitId)> {
    let (mut revision, mut id) = (None, None);
    for field in wire::fields(bytes) {
        let field = field?;
        match field.number {
            1 => revision = Some(field.varint),
            2 => id = field.content.try_into().ok().map(CommitId::from_bytes),
            _ => break,
        }
    }
    Ok((revision.ok_or_else(|| strange("a revision"))?, id.ok_or_else(|| strange("an identity"))?))
}

fn strange(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("an entry of its journal is without {what}"))
}

impl ChangeRecord {
    fn new(change: Change) -> Self {
        let of_key = |of, field, project, name, number| Self {
            of: i32::from(of),
            field,
            project,
            name,
            number,
            ..Self::default()
        };
        let record = match change.target {
            Target::Key(Key::Object { kind, project, name }) => {
                of_key(Of::Object, kind.registry_field(), project, name, 0)
            }
            Target::Key(Key::Version { project, view, number }) => of_key(Of::Version, 0, project, view, number),
            Target::Key(Key::UserMetadata { kind, project, view }) => {
                of_key(Of::UserMetadata, kind.registry_field(), project, view, 0)
            }
            Target::Key(Key::Metadata { project, name }) => of_key(Of::Metadata, 0, project, name, 0),
            Target::Versions { project, view } => of_key(Of::Versions, 0, project, view, 0),
            Target::Project { project } => of_key(Of::Project, 0, project, String::new(), 0),
        };
        Self { was_there: change.before != Image::Absent, is_there: change.after != Image::Absent, ..record }
    }

    fn into_change(self) -> Result<Change> {
        let Self { field, number, was_there, is_there, .. } = self;
        let kind = || {
            let kind = Kind::ALL.iter().copied().find(|kind| kind.registry_field() == field);
            kind.ok_or_else(|| strange("a kind that is known"))
        };
        let (of, project, name) = (self.of(), self.project, self.name);
        let key = match of {
            Of::Object => Key::Object { kind: kind()?, project, name },
            Of::Version => Key::Version { project, view: name, number },
            Of::UserMetadata => Key::UserMetadata { kind: kind()?, project, view: name },
            Of::Metadata => Key::Metadata { project, name },
            Of::Versions => return Ok(Change::removal(Target::Versions { project, view: name })),
            Of::Project => return Ok(Change::removal(Target::Project { project })),
            Of::Unknown => return Err(strange("a change that is known")),
        };
        let image = |is_there| if is_there { Image::NotKept } else { Image::Absent };
        Ok(Change::of_key(key, image(was_there), image(is_there)))
    }
}
