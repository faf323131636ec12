//! The contract between the registry and what stores it. Whoever writes a backend implements [`Backend`], and proves it
//! with the crate `feast-registry-conformance`; [`crate::MemoryBackend`] is the one to read first.
//!
//! A backend keeps [`Record`]s under [`Key`]s and commits [`Commit`]s: all of it or nothing, only if every expectation
//! holds at that moment, and never twice. It knows nothing of Feast's rules; those have been applied when a commit
//! reaches it. That is etcd's compare-then-write, and what Apache Iceberg's catalogs call requirements and updates.
//!
//! The structs here are `#[non_exhaustive]`, so that a field can be added. The enums that a backend has to act on ([`Key`],
//! [`Query`], [`Expected`], [`Write`]) are not: a backend that passed over a variant it does not know would lose data
//! without a word, so a new variant is to be a compiler error.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use prost_types::Timestamp;

use crate::deadline::Deadline;
use crate::environment::{Environment as _, System};
use crate::error::{Error, ErrorKind, Result};
#[cfg(doc)]
use crate::journal::JournalRange;
use crate::journal::{Change, CommitId, JOURNAL_POLL, JournalEntry, JournalQuery, Retention, Revision};
use crate::kind::Kind;

/// The name under which a project's infrastructure is stored (Feast: `SqlRegistry.update_infra`).
pub const INFRA_NAME: &str = "infra_obj";

/// Where something is stored. Two keys are the same only if every byte of their names is: `driver`, `Driver` and
/// `dríver` are three names, on every backend.
///
/// A [`Registry`](crate::Registry) never asks to store anything under a name or a project that is empty, holds a NUL
/// character, or is longer than [`Limits::name_chars`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An object. A project is stored under its own name twice; an infra under [`INFRA_NAME`].
    Object {
        /// The kind of object.
        kind: Kind,
        /// The project that the object is of.
        project: String,
        /// The object's name.
        name: String,
    },
    /// One version in the history of a view.
    Version {
        /// The project that the view is of.
        project: String,
        /// The view's name.
        view: String,
        /// The version, counted from 0.
        number: i32,
    },
    /// Bytes that a user attached to a view (Feast: `apply_user_metadata`).
    UserMetadata {
        /// The kind of view.
        kind: Kind,
        /// The project that the view is of.
        project: String,
        /// The view's name.
        view: String,
    },
    /// A fact about a project (Feast's table `feast_metadata`).
    #[doc(alias("feast_metadata"))]
    Metadata {
        /// The project.
        project: String,
        /// Which fact, as [`Key::PROJECT_UUID`] or [`Key::LAST_UPDATED`].
        name: String,
    },
}

impl Key {
    /// The fact that is a project's identity: a UUID as 36 characters.
    pub const PROJECT_UUID: &'static str = "project_uuid";
    /// The fact that says when anything in a project was last changed: whole seconds since 1970 (UTC), in decimal.
    pub const LAST_UPDATED: &'static str = "last_updated_timestamp";
    /// The fact that says who made a project, by name, where callers are known ([`access`](crate::access)). Feast does not know it.
    pub const CREATOR: &'static str = "creator";

    /// The fact that says after which revision of the journal a project was made, in decimal, where callers are known: what is older was in
    /// an earlier project of its name. Feast does not know it.
    pub const MADE_AFTER: &'static str = "made_after_revision";

    /// The key of an object.
    pub fn object(kind: Kind, project: impl Into<String>, name: impl Into<String>) -> Self {
        Key::Object { kind, project: project.into(), name: name.into() }
    }

    /// The key of a project.
    pub fn project_object(name: &str) -> Self {
        Self::object(Kind::Project, name, name)
    }

    /// The key of a fact about a project.
    pub fn metadata(project: impl Into<String>, name: impl Into<String>) -> Self {
        Key::Metadata { project: project.into(), name: name.into() }
    }

    /// The project that the key is of.
    pub fn project(&self) -> &str {
        match self {
            Key::Object { project, .. }
            | Key::Version { project, .. }
            | Key::UserMetadata { project, .. }
            | Key::Metadata { project, .. } => project,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Object { kind: Kind::Project, name, .. } => write!(f, "project `{name}`"),
            Key::Object { kind, project, name } => write!(f, "{kind} `{name}` of project `{project}`"),
            Key::Version { project, view, number } => {
                write!(f, "version v{number} of view `{view}` of project `{project}`")
            }
            Key::UserMetadata { kind, project, view } => {
                write!(f, "user metadata of {kind} `{view}` of project `{project}`")
            }
            Key::Metadata { project, name } => write!(f, "metadata `{name}` of project `{project}`"),
        }
    }
}

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Where it is stored.
    pub key: Key,
    /// An object: its serialized message. A version: a serialized `feast.core.FeatureViewVersionRecord`. User metadata:
    /// the user's bytes. A fact: its text in UTF-8.
    pub value: Bytes,
    /// When it was last written: whole seconds since 1970 (UTC).
    pub updated: i64,
}

impl Record {
    /// A record.
    pub fn new(key: Key, value: impl Into<Bytes>, updated: i64) -> Self {
        Self { key, value: value.into(), updated }
    }
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// What is stored under exactly these keys, in their order; for a key that is not there, nothing.
    Keys(Vec<Key>),
    /// The objects of a kind in a project: in the order that [`Limits::keeps_order`] says, or with a `page` by project and
    /// name, compared as bytes.
    Objects {
        /// The kind of object.
        kind: Kind,
        /// The project; `None` for all of them.
        project: Option<String>,
        /// Only what was written in this second (since 1970, UTC) or later.
        updated_since: Option<i64>,
        /// Only a part of the list; `None` for all of it.
        page: Option<Page>,
    },
    /// The history of a view, oldest version first.
    Versions {
        /// The project that the view is of.
        project: String,
        /// The view's name.
        view: String,
        /// Only the version with the highest number.
        latest_only: bool,
    },
    /// The facts about one project, or about all.
    Metadata {
        /// The project; `None` for all of them.
        project: Option<String>,
    },
}

impl Query {
    /// All objects of a kind in a project; `None` for all of them.
    pub fn objects(kind: Kind, project: Option<&str>) -> Self {
        Query::Objects { kind, project: project.map(str::to_owned), updated_since: None, page: None }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// Only what comes after the object of this project and name, whether that is still there or not.
    pub after: Option<(String, String)>,
    /// At most so many objects.
    pub limit: usize,
}

impl Page {
    /// The first objects of a list, at most so many.
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit }
    }

    /// The objects that come after the one of this project and name, at most so many.
    pub fn after(project: impl Into<String>, name: impl Into<String>, limit: usize) -> Self {
        Self { after: Some((project.into(), name.into())), limit }
    }
}

/// What must be true at the moment of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Nothing is stored under the key.
    Absent,
    /// Something is.
    Present,
    /// Exactly these bytes are.
    Value(Bytes),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Stores a record, in place of what is stored under its key. User metadata is only put where its view is.
    Put(Record),
    /// Removes what is stored under a key, if anything is. With a view goes its user metadata.
    Delete(Key),
    /// Removes the whole history of a view.
    DeleteVersions {
        /// The project that the view is of.
        project: String,
        /// The view's name.
        view: String,
    },
    /// Removes everything that has this project: objects, history and metadata.
    DeleteProject {
        /// The project.
        project: String,
    },
}

/// Changes, and what they rest on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Commit {
    /// Its identity: a backend never does a commit of an identity again.
    pub id: CommitId,
    /// When it was made (UTC), in whole microseconds: for the journal.
    pub at: Timestamp,
    /// Who makes it, if that is known: for the journal.
    pub author: Option<String>,
    /// Why, if that was said: for the journal.
    pub reason: Option<String>,
    /// What must be true. Each key occurs once.
    pub expectations: Vec<(Key, Expected)>,
    /// What is then changed, in this order.
    pub writes: Vec<Write>,
    /// Changes that are journaled after those of `writes` though nothing is written for them: others have made them, without a
    /// journal (Feast's own registries keep none). Each is of a single key with its bytes or their absence, or a removal.
    pub observed: Vec<Change>,
}

impl Commit {
    /// A commit of a new identity, made now.
    pub fn new(expectations: Vec<(Key, Expected)>, writes: Vec<Write>) -> Self {
        Self {
            id: CommitId::random(),
            at: System.now(),
            author: None,
            reason: None,
            expectations,
            writes,
            observed: Vec::new(),
        }
    }

    /// The same with another identity.
    #[must_use]
    pub fn with_id(mut self, id: CommitId) -> Self {
        self.id = id;
        self
    }

    /// The same, made at another moment (UTC).
    #[must_use]
    pub fn with_time(mut self, at: Timestamp) -> Self {
        self.at = at;
        self
    }

    /// The same with what the journal is to say of who made it and why.
    #[must_use]
    pub fn with_origin(mut self, author: Option<String>, reason: Option<String>) -> Self {
        self.author = author;
        self.reason = reason;
        self
    }

    /// The same with changes that others have made, for the journal.
    #[must_use]
    pub fn with_observed(mut self, observed: Vec<Change>) -> Self {
        self.observed = observed;
        self
    }
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All expectations held and all is written, by this call or by an earlier one with the same commit.
    Committed {
        /// Where the journal has it; `None` where the storage has no journal ([`Limits::unkept`] then says so).
        revision: Option<Revision>,
    },
    /// An expectation did not hold; nothing is written.
    Conflict(Key),
}

impl Outcome {
    /// Whether all is written.
    pub fn is_committed(&self) -> bool {
        matches!(self, Outcome::Committed { .. })
    }
}

/// What a backend can hold, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest name of a project or of an object, in characters; `None` where there is no limit.
    pub name_chars: Option<usize>,
    /// The longest serialized object, in bytes.
    pub value_bytes: usize,
    /// The order of lists. `true`: that in which the objects were first stored. `false`, where the storage does not keep
    /// that: by project and name, compared as bytes.
    pub keeps_order: bool,
    /// Which promises of the contract this storage cannot keep, each in a sentence with the reason and the remedy.
    pub unkept: Vec<String>,
}

impl Limits {
    /// A storage that holds objects of so many bytes under names of any length, keeps the order in which they were first
    /// stored, and keeps every promise.
    pub const fn new(value_bytes: usize) -> Self {
        Self { name_chars: None, value_bytes, keeps_order: true, unkept: Vec::new() }
    }

    /// The same with names of at most so many characters.
    #[must_use]
    pub const fn with_name_chars(mut self, chars: usize) -> Self {
        self.name_chars = Some(chars);
        self
    }

    /// The same with lists by project and name.
    #[must_use]
    pub const fn without_order(mut self) -> Self {
        self.keeps_order = false;
        self
    }

    /// The same with promises that cannot be kept.
    #[must_use]
    pub fn with_unkept(mut self, promises: Vec<String>) -> Self {
        self.unkept = promises;
        self
    }
}

/// A store for a registry. [Writing a storage backend](https://docs.rs/feast-registry-conformance/latest/feast_registry_conformance/writing_a_backend/)
/// leads through an implementation.
///
/// All methods may be called from many tasks at once, and at any time: before [`prepare`](Self::prepare), and after
/// [`close`](Self::close), where they may fail with [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable). None may
/// block the thread that polls it for longer than a look at memory takes; what waits for a disk or a lock does so on a
/// thread of its own, and gives back what it holds (a connection, a permit) when *that* is done, not when the caller leaves.
///
/// # Deadlines
/// Each call that may wait is given a [`Deadline`]. Once it is over, what has no effect yet ends with
/// [`ErrorKind::DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded), wherever it waits: in a queue, for a connection, for
/// a lock, for an answer to a read. A commit that has been sent is seen through: the backend goes on to learn what became
/// of it, for a moment beyond the deadline if need be, and says [`ErrorKind::UnknownOutcome`](crate::ErrorKind::UnknownOutcome)
/// if it cannot.
///
/// # Errors
/// [`ErrorKind::UnknownOutcome`](crate::ErrorKind::UnknownOutcome), which only [`commit`](Self::commit) has, means that the
/// commit may have taken place or may yet. With any other error nothing was done, for certain, and nothing will be.
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) and [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded) say
/// that the same call may succeed later. An error says what the storage said.
///
/// # Cancellation
/// Any future may be dropped at any await. A read that is dropped has no effect. A commit that is dropped was done
/// completely, is still done, or is not done at all; which of them, its caller does not learn, and the identity tells.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Where the data is, for people to read: a URL or a path, without secrets. Does not wait.
    fn location(&self) -> String;

    /// What can be stored, as far as is known: after [`prepare`](Self::prepare) it is final. Does not wait.
    fn limits(&self) -> Limits;

    /// Makes the storage ready: creates what is missing, verifies that nothing is, or does neither, as the
    /// [`SchemaMode`](crate::config::SchemaMode) says that the backend was made with. Several processes may do this at
    /// once, and it may be done again.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaMissing`](crate::ErrorKind::SchemaMissing) from
    /// [`SchemaMode::Verify`](crate::config::SchemaMode::Verify) when something is missing.
    async fn prepare(&self, deadline: &Deadline) -> Result<()>;

    /// Answers queries, all from one state of the storage: one answer for each, in their order. Sees every commit that
    /// was acknowledged before, by this process or another. Does not wait for writers.
    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>>;

    /// Commits atomically and serializably: the expectations hold at one moment, for keys that are absent too, and at
    /// that moment everything is written, with an entry of the journal. When this returns [`Outcome::Committed`], the writes
    /// are durable.
    ///
    /// A commit happens once. Whoever is not answered by the storage may give it the same commit again, and so may the
    /// caller of this: a commit that has taken place is answered as it was the first time, whatever others have written
    /// since, for as long as the journal keeps its identity ([`IDENTITY_KEPT_FOR`](crate::IDENTITY_KEPT_FOR) at the least).
    /// That the expectations hold *again* proves nothing.
    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome>;

    /// Entries of the journal: oldest first, those that come after a revision or from the oldest that is kept; or newest first,
    /// those that come before a revision or from the newest. An empty answer to [`JournalRange::After`] says that there is nothing
    /// yet, and one to [`JournalRange::Before`] that there is nothing earlier.
    ///
    /// Their order is one in which the commits take place: what each expects holds after those before it. What has been
    /// answered once never changes, and nothing new comes before it. The journal outlives
    /// [`remove_if_empty`](Self::remove_if_empty) where the storage has a place for it.
    ///
    /// # Errors
    /// [`ErrorKind::Compacted`](crate::ErrorKind::Compacted) when the journal no longer has, or never had, the revision of
    /// [`JournalRange::After`]: what came after it cannot be told, and the reader has to read everything anew.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the storage has no journal.
    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>>;

    /// The highest revision of the commits that were acknowledged before this call, or can be seen by a [`read`](Self::read)
    /// that has ended before it; `None` if there is none. By default the newest that [`journal`](Self::journal) shows; where
    /// that holds back an entry until nothing can come before it, this does not.
    ///
    /// # Errors
    /// As [`journal`](Self::journal).
    async fn newest_revision(&self, deadline: &Deadline) -> Result<Option<Revision>> {
        let newest = self.journal(&JournalQuery::before(None, 1).without_images(), deadline).await?;
        Ok(newest.first().map(|entry| entry.revision))
    }

    /// Waits until the journal may have something after a revision (or at all, for `None`), but for no longer than the deadline
    /// says. It may return earlier for no reason, and need not notice a commit at once, but does so within seconds: the caller
    /// looks into the journal. By default it waits for [`JOURNAL_POLL`](crate::JOURNAL_POLL); a storage that tells its readers of
    /// a commit does better.
    async fn wait_for_commit(&self, _after: Option<Revision>, deadline: &Deadline) {
        tokio::time::sleep(JOURNAL_POLL.min(deadline.remaining())).await;
    }

    /// Removes a part of what a journal of this size need not keep, the oldest entries first; returns how many it removed, and 0
    /// when nothing is left that may go. It is called again until then. Whatever the retention says, the newest entry stays, and
    /// so does what is younger than [`IDENTITY_KEPT_FOR`](crate::IDENTITY_KEPT_FOR); a storage may keep more. Writers do not wait
    /// for it longer than for another writer.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), which is the default, where the storage cannot be told to.
    async fn prune_journal(&self, _retention: &Retention, _deadline: &Deadline) -> Result<u64> {
        let text = format!("the journal of {} cannot be pruned when somebody wants it", self.location());
        Err(Error::new(ErrorKind::Unsupported, text))
    }

    /// Removes the storage itself (tables, a file) if no project is left in it and the backend was made with
    /// [`SchemaMode::Auto`](crate::config::SchemaMode::Auto); returns whether it did. The backend stays usable: reads then
    /// find nothing, and the next commit prepares the storage again.
    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool>;

    /// Ends what the backend keeps open, after what has been sent is done. What a backend would do when it is dropped
    /// anyway need not be done here, which is the default; but a storage that can be open only once can be opened anew when this
    /// returns, though callers have left reads behind and handles on the closed backend are still there.
    async fn close(&self) {}
}
