//! What clients did, as they recorded it: the operations of a history.

use bytes::Bytes;
use feast_registry_core::proto::core::FeatureViewVersionRecord;
use feast_registry_core::{Commit, CommitId, Expected, Key, Query, Record, Write};
use prost::Message as _;

use crate::sample;

/// When an operation ended whose outcome nobody knows: it may take effect at any time.
pub(crate) const NEVER: u64 = u64::MAX;

/// A history: what several clients did on one storage that was empty before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    /// What the plans of the clients were made from.
    pub(crate) seed: u64,
    /// Whether lists are in the order of first storing.
    pub(crate) keeps_order: bool,
    /// The operations of each client are in their order, and do not overlap unless one is pending.
    pub(crate) operations: Vec<Operation>,
    /// The commits in the order of the journal, each with its revision; `None` where the storage has no journal.
    pub(crate) journal: Option<Vec<(u32, u64)>>,
}

/// One call of a client, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) client: u32,
    /// Nanoseconds, by a clock that all clients share and that never goes back.
    pub(crate) began: u64,
    /// The same; [`NEVER`] when the outcome is unknown.
    pub(crate) ended: u64,
    pub(crate) call: Call,
}

impl Operation {
    /// Whether one was over before the other began.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        self.ended < other.began
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Commit(Sent, Answer),
    /// Queries, each with what it found.
    Read(Vec<(Query, Vec<Seen>)>),
}

/// A record as a query found it.
pub(crate) type Seen = (Key, Bytes);

/// A commit. Its number is its identity, and the value of all that it puts: so whoever sees a value knows who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) number: u32,
    pub(crate) expectations: Vec<(Key, Expected)>,
    pub(crate) writes: Vec<Write>,
}

impl Sent {
    /// What a backend is given.
    pub(crate) fn to_commit(&self) -> Commit {
        Commit::new(self.expectations.clone(), self.writes.clone()).with_id(identity_of(self.number))
    }
}

/// What became of a commit, as far as its client learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// With its revision, where there is a journal.
    Committed(Option<u64>),
    Conflict(Key),
    /// It was not done and will not be, said the backend: its deadline was over, or there was no room.
    NotDone,
    Unknown,
}

/// The identity of the commit of a number, in whatever process.
pub(crate) fn identity_of(number: u32) -> CommitId {
    CommitId::new(&sample::at(sample::AT), number.into())
}

/// What is stored under a key by the commit of a number: well-formed, and different for each number.
pub(crate) fn record(key: &Key, number: u32) -> Record {
    let text = number.to_string();
    match key {
        Key::Object { kind, project, name } => sample::object(*kind, project, name, text),
        Key::Version { project, view, number, .. } => sample::version(project, view, *number, text),
        Key::UserMetadata { kind, project, view } => sample::user_metadata(*kind, project, view, text),
        Key::Metadata { project, name } if name == Key::PROJECT_UUID => {
            sample::identity(project, i32::try_from(number).unwrap_or(i32::MAX))
        }
        Key::Metadata { project, .. } => sample::last_updated(project, number.into()),
    }
}

/// The number whose record has this value under a key; `None` for what no commit of these histories stores.
pub(crate) fn number_of(key: &Key, value: &[u8]) -> Option<u32> {
    let version;
    let text = match key {
        Key::Version { .. } => {
            version = FeatureViewVersionRecord::decode(value).ok()?;
            &version.feature_view_proto[..]
        }
        _ => value,
    };
    // In all of them the number comes last, and what comes before it is no digit.
    let first = text.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last + 1);
    let number = std::str::from_utf8(&text[first..]).ok()?.parse().ok()?;
    (record(key, number).value == value).then_some(number)
}

/// The keys that a query or a write is of by itself, without what a list finds.
pub(crate) fn touches(write: &Write, key: &Key) -> bool {
    match write {
        Write::Put(record) => record.key == *key,
        Write::Delete(of) if of == key => true,
        Write::Delete(Key::Object { kind, project, name }) => {
            matches!(key, Key::UserMetadata { kind: k, project: p, view } if k == kind && p == project && view == name)
        }
        Write::Delete(_) => false,
        Write::DeleteVersions { project, view } => {
            matches!(key, Key::Version { project: p, view: v, .. } if p == project && v == view)
        }
        Write::DeleteProject { project } => key.project() == project,
    }
}

/// Whether a query may find what is under a key.
pub(crate) fn looks_at(query: &Query, key: &Key) -> bool {
    let is_of = |wanted: &Option<String>| wanted.as_deref().is_none_or(|project| project == key.project());
    match (query, key) {
        (Query::Keys(keys), key) => keys.contains(key),
        (Query::Objects { kind, project, .. }, Key::Object { kind: of, .. }) => kind == of && is_of(project),
        (Query::Versions { project, view, .. }, Key::Version { project: p, view: v, .. }) => project == p && view == v,
        (Query::Metadata { project }, Key::Metadata { .. }) => is_of(project),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::plan::UNIVERSE;

    #[test]
    fn the_number_of_a_value_is_found_under_every_key() {
        for key in UNIVERSE.iter() {
            for number in [0, 7, 1203, 99_999] {
                assert_eq!(number_of(key, &record(key, number).value), Some(number), "{key}");
            }
            assert_eq!(number_of(key, b"something else 7"), None, "{key}");
        }
        assert_ne!(identity_of(1), identity_of(2));
    }
}
