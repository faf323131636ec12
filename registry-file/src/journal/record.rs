//! An entry of the journal as it is serialized.

use bytes::Bytes;
use feast_registry_core::config::History;
use feast_registry_core::{
    Change, Commit, CommitId, Error, ErrorKind, Image, JournalEntry, Key, Kind, Result, Revision, Target, images, wire,
};
use prost::Message;
use prost_types::Timestamp;

use super::corrupt;

/// A commit: whether something was stored before and since, and with [`History::Full`] what.
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
    /// What was there, where that is kept: if it has a length, as [`images::pack`] makes it with what is there since.
    #[prost(bytes = "bytes", optional, tag = "8")]
    before: Option<Bytes>,
    #[prost(int32, optional, tag = "9")]
    before_length: Option<i32>,
    #[prost(bytes = "bytes", optional, tag = "10")]
    after: Option<Bytes>,
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
    pub(super) fn new(revision: u64, commit: &Commit, changes: Vec<Change>, history: History) -> Self {
        Self {
            revision,
            id: commit.id.as_bytes().to_vec(),
            seconds: commit.at.seconds,
            nanos: commit.at.nanos,
            author: commit.author.clone(),
            reason: commit.reason.clone(),
            changes: changes.into_iter().map(|change| ChangeRecord::new(change, history)).collect(),
        }
    }

    /// The entry that bytes are, with or without those before and after each change.
    pub(super) fn entry(bytes: &[u8], images: bool) -> Result<JournalEntry> {
        let record = Self::decode(bytes).map_err(corrupt)?;
        let id = CommitId::from_bytes(record.id.try_into().map_err(|_| strange("an identity"))?);
        let at = Timestamp { seconds: record.seconds, nanos: record.nanos };
        let mut entry = JournalEntry::new(Revision::new(record.revision), id, at);
        (entry.author, entry.reason) = (record.author, record.reason);
        entry.changes = record.changes.into_iter().map(|change| change.into_change(images)).collect::<Result<_>>()?;
        Ok(entry)
    }
}

#[cfg(test)]
impl JournalRecord {
    /// Has other lengths of what is packed than were packed.
    pub(super) fn spoil(&mut self) {
        self.changes.iter_mut().for_each(|change| change.before_length = Some(i32::MAX));
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
    fn new(change: Change, history: History) -> Self {
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
        let mut record =
            Self { was_there: change.before != Image::Absent, is_there: change.after != Image::Absent, ..record };
        if history == History::Full {
            record.keep(&change.before, &change.after);
        }
        record
    }

    fn into_change(mut self, images: bool) -> Result<Change> {
        let kept = if images { self.images()? } else { [None, None] };
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
        let image = |is_there, value: Option<Bytes>| match (is_there, value) {
            (false, _) => Image::Absent,
            (true, Some(value)) => Image::Value(value),
            (true, None) => Image::NotKept,
        };
        let [before, after] = kept;
        Ok(Change::of_key(key, image(was_there, before), image(is_there, after)))
    }

    /// Puts in what is kept of a change.
    fn keep(&mut self, before: &Image, after: &Image) {
        let value = |image: &Image| match image {
            Image::Value(value) => Some(value.clone()),
            Image::Absent | Image::NotKept => None,
        };
        (self.before, self.after) = (value(before), value(after));
        if let (Some(before), Some(after)) = (&self.before, &self.after)
            && let Some((packed, length)) = images::pack(before, after)
        {
            (self.before, self.before_length) = (Some(packed), Some(length));
        }
    }

    /// Takes out what is kept before and after.
    fn images(&mut self) -> Result<[Option<Bytes>; 2]> {
        let (before, after) = (self.before.take(), self.after.take());
        let Some(length) = self.before_length else { return Ok([before, after]) };
        let unpacked =
            images::unpack(before.as_deref().unwrap_or_default(), length, after.as_deref().unwrap_or_default());
        Ok([Some(unpacked.ok_or_else(|| strange("what was there before"))?), after])
    }
}
