//! What the file keeps of the commits that were made: the journal, identities that are older than it, and who wrote last.
//!
//! Three lists, each bounded, so that a write of the file takes little longer for them:
//! - the newest entries of the journal;
//! - the identities of commits whose entries had to go, so that such a commit is not done again;
//! - for each process that writes, the number of its last write. A process has one write under way at a time, so that
//!   number says for certain whether it was done, however much others have written since.
//!
//! They stand in the file as fields that Feast passes on ([`crate::extra`]).

mod record;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use feast_registry_core::config::History;
use feast_registry_core::{
    Change, Commit, CommitId, Error, ErrorKind, JournalEntry, JournalQuery, JournalRange, Result, Retention, Revision,
};
use prost::Message;
use prost_types::Timestamp;

use self::record::JournalRecord;
use crate::extra::{Extra, Table};

/// The room for entries in bytes, or as a part of the file if that is more.
const ENTRY_BYTES: usize = 256 << 10;
const ENTRY_PART: usize = 16;
/// The same where they have the bytes before and after each change: as much as all else in the file.
const FULL_ENTRY_BYTES: usize = 4 << 20;
const FULL_ENTRY_PART: usize = 2;

/// The room for the identities of commits whose entries had to go: so many, or as a part of the file if that is more.
pub(crate) const IDENTITIES: usize = 4096;
const IDENTITY_PART: usize = 32;

/// What an identity takes: 16 bytes, and a revision.
const IDENTITY_BYTES: usize = 24;

/// What is kept for a time is kept this much longer, since the clocks of processes differ.
const MARGIN_SECONDS: i64 = 3600;

/// So many of the processes that wrote last are known however long ago that was, and so many at the most. A process asks
/// for its own number within the time of one call: for that to be gone, as many others would have to write meanwhile.
const WRITERS_KEPT: usize = 64;
const MAX_WRITERS: usize = 4096;

/// A process that writes, or rather a backend in it: random.
pub(crate) type WriterId = [u8; 16];

/// How much of the journal is kept.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Keeps {
    pub(crate) retention: Retention,
    pub(crate) history: History,
}

/// What the file keeps of commits. The newest entry is always there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal {
    /// Random, and given with the first write: a file that has another one, or none, does not go on from this one.
    birth: Vec<u8>,
    /// Oldest first.
    entries: VecDeque<StoredEntry>,
    entry_bytes: usize,
    /// Of commits whose entries are no longer kept, oldest first.
    identities: VecDeque<(CommitId, u64)>,
    /// Where each commit is whose entry or identity is kept.
    revisions: HashMap<CommitId, u64>,
    /// Who wrote last is last.
    writers: Vec<LastWrite>,
}

/// An entry as it stands in the file.
#[derive(Debug, Clone)]
struct StoredEntry {
    revision: u64,
    id: CommitId,
    /// A serialized [`JournalRecord`].
    bytes: Bytes,
}

impl StoredEntry {
    /// What it takes in the file, with the lengths and keys of the fields around it.
    fn size(&self) -> usize {
        self.bytes.len() + 10
    }
}

/// The last write of a process.
#[derive(Clone, PartialEq, prost::Message)]
struct LastWrite {
    #[prost(bytes = "vec", tag = "1")]
    writer: Vec<u8>,
    #[prost(uint64, tag = "2")]
    number: u64,
    /// Seconds since 1970 (UTC).
    #[prost(int64, tag = "3")]
    second: i64,
}

/// What stands in the file besides the entries.
#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    #[prost(bytes = "vec", tag = "1")]
    birth: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    writers: Vec<LastWrite>,
    /// For each commit whose entry is no longer kept its identity and, big-endian, its revision.
    #[prost(bytes = "bytes", tag = "3")]
    identities: Bytes,
}

/// What the file tells about a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteStatus {
    Done,
    NotDone,
    /// It does not go on from the file that the write was made from.
    Nothing,
}

impl Journal {
    /// Where a commit of this identity is, if it has taken place and is not forgotten.
    pub(crate) fn revision_of(&self, id: &CommitId) -> Option<Revision> {
        self.revisions.get(id).copied().map(Revision::new)
    }

    /// Adds an entry for a commit that is done now.
    ///
    /// A revision is the moment in microseconds since 1970, or the one after the newest if that is later. So revisions grow
    /// even when the file is deleted, or an older one put in its place: a reader of the journal whose revision is gone is
    /// told so, and cannot come upon it again with another commit.
    pub(crate) fn add(&mut self, commit: &Commit, changes: Vec<Change>, history: History, now: &Timestamp) -> Revision {
        let moment = now.seconds.saturating_mul(1_000_000).saturating_add(i64::from(now.nanos / 1000));
        let newest = self.entries.back().map_or(0, |entry| entry.revision);
        let revision = newest.saturating_add(1).max(u64::try_from(moment).unwrap_or_default());
        let bytes = JournalRecord::new(revision, commit, changes, history).encode_to_vec().into();
        self.push(StoredEntry { revision, id: commit.id, bytes });
        Revision::new(revision)
    }

    fn push(&mut self, entry: StoredEntry) {
        self.entry_bytes += entry.size();
        self.revisions.insert(entry.id, entry.revision);
        self.entries.push_back(entry);
    }

    /// Says that a process does its write of this number.
    pub(crate) fn sign(&mut self, writer: &WriterId, number: u64, now: &Timestamp) {
        if self.birth.is_empty() {
            self.birth = uuid::Uuid::new_v4().as_bytes().to_vec();
        }
        self.writers.retain(|last| last.writer != writer);
        self.writers.push(LastWrite { writer: writer.to_vec(), number, second: now.seconds });
    }

    /// Whether a write of a process was done, which was made from a file with the journal `base`. What was found there must
    /// be another state than that: in the same one, the write may still arrive.
    pub(crate) fn tells_of(&self, writer: &WriterId, number: u64, base: &Journal) -> WriteStatus {
        match self.writers.iter().find(|last| last.writer == writer) {
            Some(last) if last.number == number => WriteStatus::Done,
            None if !base.birth.is_empty() && base.birth != self.birth => WriteStatus::Nothing,
            _ => WriteStatus::NotDone,
        }
    }

    /// Forgets what need not or cannot be kept in a file of so many bytes.
    pub(crate) fn prune(&mut self, Keeps { retention, history }: &Keeps, file_bytes: usize, now: &Timestamp) {
        let (_, old_enough) = retention.bounds(now);
        let room = match history {
            History::Keys => ENTRY_BYTES.max(file_bytes / ENTRY_PART),
            History::Full => FULL_ENTRY_BYTES.max(file_bytes / FULL_ENTRY_PART),
        };
        self.prune_entries(retention, room, now);
        let room = IDENTITIES.max(file_bytes / IDENTITY_PART / IDENTITY_BYTES);
        while let Some((id, revision)) = self.identities.front()
            && (self.identities.len() > room || *revision < micros(old_enough - MARGIN_SECONDS))
        {
            self.revisions.remove(id);
            self.identities.pop_front();
        }
        let beyond = self.writers.len().saturating_sub(WRITERS_KEPT);
        let is_old = |last: &&LastWrite| last.second < old_enough - MARGIN_SECONDS;
        let old = self.writers.iter().take(beyond).take_while(is_old).count();
        self.writers.drain(..old.max(self.writers.len().saturating_sub(MAX_WRITERS)));
    }

    /// Forgets the entries that need not be kept, or for which so many bytes are no room; returns how many. Their identities are
    /// kept on, and the newest entry is in any case.
    pub(crate) fn prune_entries(&mut self, retention: &Retention, room: usize, now: &Timestamp) -> u64 {
        let mut removed = 0;
        while (self.has_more_than(retention, now) || (self.entry_bytes > room && self.entries.len() > 1))
            && let Some(oldest) = self.entries.pop_front()
        {
            self.entry_bytes -= oldest.size();
            self.identities.push_back((oldest.id, oldest.revision));
            removed += 1;
        }
        removed
    }

    /// Whether there is an entry that need not be kept.
    pub(crate) fn has_more_than(&self, retention: &Retention, now: &Timestamp) -> bool {
        let (too_old, old_enough) = retention.bounds(now);
        let Some(oldest) = self.entries.front().filter(|_| self.entries.len() > 1) else { return false };
        oldest.revision < micros(too_old)
            || (oldest.revision < micros(old_enough) && self.entries.len() as u64 > retention.commits)
    }

    /// The entries that a query asks for, of the registry at `location`.
    ///
    /// # Errors
    /// `Compacted` when the revision that they are to come after is not there.
    pub(crate) fn read(&self, query: &JournalQuery, location: &str) -> Result<Vec<JournalEntry>> {
        let place = |revision: Revision| self.entries.partition_point(|entry| entry.revision < revision.number());
        let entry = |entry: &StoredEntry| JournalRecord::entry(&entry.bytes, query.images);
        match query.range {
            JournalRange::After(None) => self.entries.iter().take(query.limit).map(entry).collect(),
            JournalRange::After(Some(after)) => {
                let start = place(after);
                if self.entries.get(start).is_none_or(|entry| entry.revision != after.number()) {
                    return Err(Error::compacted(location, after));
                }
                self.entries.iter().skip(start + 1).take(query.limit).map(entry).collect()
            }
            JournalRange::Before(before) => {
                let end = before.map_or(self.entries.len(), place);
                self.entries.range(..end).rev().take(query.limit).map(entry).collect()
            }
        }
    }

    /// What stands in the file for it.
    pub(crate) fn extras(&self) -> impl Iterator<Item = Extra> {
        let identity =
            |(id, revision): &(CommitId, u64)| id.as_bytes().iter().copied().chain(revision.to_be_bytes()).collect();
        let identities: Vec<Vec<u8>> = self.identities.iter().map(identity).collect();
        let identities = identities.concat().into();
        let head = Head { birth: self.birth.clone(), writers: self.writers.clone(), identities };
        let head = Extra { value: head.encode_to_vec().into(), ..Extra::of_table(Table::Journal) };
        let entry = |entry: &StoredEntry| Extra { value: entry.bytes.clone(), ..Extra::of_table(Table::Entry) };
        [head].into_iter().chain(self.entries.iter().map(entry))
    }

    /// The journal that stands in a file: the value of the extra [`Table::Journal`], and those of [`Table::Entry`].
    ///
    /// What cannot be read is left out, and logged: it is no reason not to open a registry.
    pub(crate) fn parse(head: Option<Bytes>, entries: Vec<Bytes>) -> Self {
        let head = head.map(Head::decode).transpose().inspect_err(|error| tracing::warn!(%error, "{UNREADABLE}"));
        let Head { birth, writers, identities } = head.ok().flatten().unwrap_or_default();
        let mut journal = Self { birth, writers, ..Self::default() };
        for identity in identities.chunks_exact(IDENTITY_BYTES) {
            if let Some((id, revision)) = identity.split_first_chunk()
                && let Ok(revision) = revision.try_into().map(u64::from_be_bytes)
            {
                journal.identities.push_back((CommitId::from_bytes(*id), revision));
                journal.revisions.insert(CommitId::from_bytes(*id), revision);
            }
        }
        let mut stored = Vec::with_capacity(entries.len());
        for bytes in entries {
            match record::place(&bytes) {
                Ok((revision, id)) => stored.push(StoredEntry { revision, id, bytes }),
                Err(error) => tracing::warn!(%error, "{UNREADABLE}"),
            }
        }
        // Whoever passes unknown fields on need not keep them in order.
        stored.sort_by_key(|entry| entry.revision);
        stored.dedup_by_key(|entry| entry.revision);
        stored.into_iter().for_each(|entry| journal.push(entry));
        journal
    }
}

/// Seconds since 1970 as what revisions begin from.
fn micros(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or_default().saturating_mul(1_000_000)
}

const UNREADABLE: &str = "a part of the journal of a registry file cannot be read, and is left out";

fn corrupt(error: prost::DecodeError) -> Error {
    Error::new(ErrorKind::Corrupt, format!("its journal cannot be decoded: {error}")).with_source(error)
}
