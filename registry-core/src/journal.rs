//! The journal: what each commit did, in commit order.
//!
//! A backend writes a commit and its journal entry in one transaction. The entry's identity is what makes a commit happen
//! once: a backend that does not know what became of a commit looks for it there.

mod filter;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost_types::Timestamp;

use crate::backend::Key;
use crate::environment::{Environment as _, System};
use crate::error::{Error, Result};

pub use self::filter::JournalFilter;

/// How long the identity of a commit is kept at the least, however much is committed in the meantime.
pub const IDENTITY_KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// How long it takes at the most, by default, until a reader who waits for the journal to grow looks again.
pub const JOURNAL_POLL: Duration = Duration::from_millis(500);

/// The author of changes that were made without this journal, by Feast's own registries, and that were seen afterwards.
pub const OUTSIDE: &str = "outside";

/// A place in the journal. Revisions grow in commit order, but need not be consecutive: a reader who has seen a revision
/// never later finds a new one below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// The revision of a number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of a commit: no two commits have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId([u8; 16]);

impl CommitId {
    /// A new identity, made now.
    pub fn random() -> Self {
        Self::new(&System.now(), System.random())
    }

    /// A new identity: a UUID (version 7) of 74 random bits after the moment (UTC). No promise rests on the moment: it puts
    /// the identities of commits near each other into order, so that an index of them grows at its end instead of
    /// everywhere.
    pub fn new(at: &Timestamp, random: u128) -> Self {
        let millis = at.seconds.saturating_mul(1000).saturating_add(i64::from(at.nanos / 1_000_000));
        let [_, _, _, _, _, _, random @ ..] = random.to_be_bytes();
        let millis = u64::try_from(millis).unwrap_or_default();
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().into_bytes())
    }

    /// The identity of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes: what a storage keeps.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// As a UUID.
impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

impl FromStr for CommitId {
    type Err = Error;

    /// Reads a UUID.
    ///
    /// # Errors
    /// `InvalidArgument` when the text is none.
    fn from_str(text: &str) -> Result<Self> {
        let id = uuid::Uuid::from_str(text)
            .map_err(|error| Error::invalid(format!("`{text}` is no identity of a commit")).with_source(error))?;
        Ok(Self(id.into_bytes()))
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What to read of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalQuery {
    /// Which part of it.
    pub range: JournalRange,
    /// At most so many entries.
    pub limit: usize,
    /// With the bytes before and after each change. Without them, [`Image::NotKept`] stands for [`Image::Value`]
    /// ([`Image::Absent`] stays), and the storage need not read them.
    pub images: bool,
}

/// A part of the journal, and the direction to read it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalRange {
    /// What comes after a revision, or from the oldest entry on: oldest first.
    After(Option<Revision>),
    /// What comes before a revision, or from the newest entry back: newest first.
    Before(Option<Revision>),
}

impl JournalQuery {
    /// The entries that come after a revision, or from the oldest on; at most so many, oldest first, with images.
    pub fn after(revision: impl Into<Option<Revision>>, limit: usize) -> Self {
        Self { range: JournalRange::After(revision.into()), limit, images: true }
    }

    /// The entries that come before a revision, or from the newest back; at most so many, newest first, with images.
    pub fn before(revision: impl Into<Option<Revision>>, limit: usize) -> Self {
        Self { range: JournalRange::Before(revision.into()), limit, images: true }
    }

    /// The newest entry up to a revision, with images: that of the revision itself, if the journal has it.
    pub(crate) fn of(revision: Revision) -> Self {
        Self::before(revision.0.checked_add(1).map(Revision), 1)
    }

    /// The revision that the journal has to have for an answer.
    pub fn cursor(&self) -> Option<Revision> {
        match self.range {
            JournalRange::After(revision) => revision,
            JournalRange::Before(_) => None,
        }
    }

    /// The same without images.
    #[must_use]
    pub fn without_images(mut self) -> Self {
        self.images = false;
        self
    }
}

/// What one commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalEntry {
    /// Its place in the journal.
    pub revision: Revision,
    /// The identity of the commit.
    pub id: CommitId,
    /// When it was made (UTC), by the clock of the process that made it, in whole microseconds.
    pub at: Timestamp,
    /// Who made it, if that is known.
    pub author: Option<String>,
    /// Why, if that was said.
    pub reason: Option<String>,
    /// What it changed, in the order in which it did.
    pub changes: Vec<Change>,
}

impl JournalEntry {
    /// An entry of a commit without an author, a reason or changes.
    pub fn new(revision: Revision, id: CommitId, at: Timestamp) -> Self {
        Self { revision, id, at, author: None, reason: None, changes: Vec::new() }
    }

    /// The same with those of its changes alone that are to be kept; itself if all are.
    pub(crate) fn narrowed(entry: Arc<Self>, is_kept: impl Fn(&Change) -> bool) -> Arc<Self> {
        if entry.changes.iter().all(&is_kept) {
            return entry;
        }
        let mut narrowed = Self::new(entry.revision, entry.id, entry.at);
        (narrowed.author, narrowed.reason) = (entry.author.clone(), entry.reason.clone());
        narrowed.changes = entry.changes.iter().filter(|change| is_kept(change)).cloned().collect();
        Arc::new(narrowed)
    }

    /// The same with [`Image::NotKept`] for [`Image::Value`]: what [`JournalQuery::without_images`] asks for.
    #[must_use]
    pub fn without_images(mut self) -> Self {
        for change in &mut self.changes {
            for image in [&mut change.before, &mut change.after] {
                if let Image::Value(_) = image {
                    *image = Image::NotKept;
                }
            }
        }
        self
    }
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// What was changed.
    pub target: Target,
    /// What was stored before; of more than a single key, always [`Image::NotKept`].
    pub before: Image,
    /// What is stored since; of more than a single key, always [`Image::Absent`].
    pub after: Image,
}

impl Change {
    /// A change of what is stored under one key.
    pub fn of_key(key: Key, before: Image, after: Image) -> Self {
        Self { target: Target::Key(key), before, after }
    }

    /// The removal of a history or a project. Where the storage keeps what was there before, a change of each key that was
    /// removed follows.
    pub fn removal(target: Target) -> Self {
        Self { target, before: Image::NotKept, after: Image::Absent }
    }
}

/// What a change is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A single key.
    Key(Key),
    /// The whole history of a view.
    Versions {
        /// The project that the view is of.
        project: String,
        /// The view's name.
        view: String,
    },
    /// All that has this project.
    Project {
        /// The project.
        project: String,
    },
}

impl Target {
    /// The project that it is of.
    pub fn project(&self) -> &str {
        match self {
            Target::Key(key) => key.project(),
            Target::Versions { project, .. } | Target::Project { project } => project,
        }
    }
}

/// What is stored under a key at one side of a change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Image {
    /// Nothing.
    Absent,
    /// These bytes.
    Value(Bytes),
    /// The storage does not keep what.
    NotKept,
}

impl From<Option<Bytes>> for Image {
    fn from(value: Option<Bytes>) -> Self {
        value.map_or(Image::Absent, Image::Value)
    }
}

/// How much of a journal is kept. What is beyond is removed now and then, without a writer waiting for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// Entries that are older are removed. At least [`IDENTITY_KEPT_FOR`] counts.
    pub age: Duration,
    /// So many entries are kept at the most, and all that are younger than [`IDENTITY_KEPT_FOR`].
    pub commits: u64,
}

impl Default for Retention {
    /// 30 days and 100,000 commits.
    fn default() -> Self {
        Self { age: Duration::from_secs(30 * 24 * 3600), commits: 100_000 }
    }
}

impl Retention {
    /// What is kept at the most, by age and by number of commits.
    pub fn new(age: Duration, commits: u64) -> Self {
        Self { age: age.max(IDENTITY_KEPT_FOR), commits }
    }

    /// Before which second (since 1970, UTC) entries are removed, and before which those that are beyond the number of
    /// [`commits`](Self::commits), as seen at `now`.
    pub fn bounds(&self, now: &Timestamp) -> (i64, i64) {
        let before = |age: Duration| now.seconds.saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        (before(self.age.max(IDENTITY_KEPT_FOR)), before(IDENTITY_KEPT_FOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_in_the_order_of_their_moments_and_differ_within_one() {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        let id = |at: Timestamp, random| CommitId::new(&at, random);
        assert!(id(at(1_700_000_000, 0), u128::MAX) < id(at(1_700_000_000, 1_000_000), 0));
        assert_ne!(id(at(7, 0), 1), id(at(7, 0), 2));
        // Clocks that are wrong are no reason to fail.
        assert_ne!(id(at(-1, 0), 1), id(at(i64::MAX, 0), 1));
        let parsed = id(at(1_700_000_000, 0), 9).to_string().parse::<CommitId>();
        assert_eq!(parsed.expect("it is a UUID"), id(at(1_700_000_000, 0), 9));
    }
}
