//! The contract between the registry and what stores it. Whoever writes a backend implements [`Backend`], and proves it
//! with the crate `conformance-tests`; [`crate::MemoryBackend`] is the one to read first.
//!
//! A backend keeps [`Record`]s under [`Key`]s and commits [`Commit`]s: all of it or nothing, and only if every
//! expectation holds at that moment. It knows nothing of Feast's rules; those have been applied when a commit reaches
//! it. That is etcd's compare-then-write, and what Apache Iceberg's catalogs call requirements and updates.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::config::SchemaMode;
use crate::error::Result;
use crate::kind::Kind;

/// The name under which a project's infrastructure is stored (Feast: `SqlRegistry.update_infra`).
pub const INFRA_NAME: &str = "infra_obj";

/// Where something is stored. Two keys are the same only if every byte of their names is: `driver`, `Driver` and
/// `dríver` are three names, on every backend.
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
pub struct Record {
    /// Where it is stored.
    pub key: Key,
    /// An object: its serialized message. A version: a serialized `feast.core.FeatureViewVersionRecord`. User metadata:
    /// the user's bytes. A fact: its text in UTF-8.
    pub value: Bytes,
    /// When it was last written: whole seconds since 1970 (UTC).
    pub updated: i64,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// What is stored under exactly these keys, in their order; for a key that is not there, nothing.
    Keys(Vec<Key>),
    /// The objects of a kind in a project, in the order that [`Limits::keeps_order`] says.
    Objects {
        /// The kind of object.
        kind: Kind,
        /// The project; `None` for all of them.
        project: Option<String>,
        /// Only what was written in this second (since 1970, UTC) or later.
        updated_since: Option<i64>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// What must be true. Each key occurs once.
    pub expectations: Vec<(Key, Expected)>,
    /// What is then changed, in this order.
    pub writes: Vec<Write>,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All expectations held and all is written.
    Committed,
    /// An expectation did not hold; nothing is written.
    Conflict(Key),
}

/// What a backend can hold, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest name of a project or of an object, in characters; `None` where there is no limit.
    pub name_chars: Option<usize>,
    /// The longest serialized object, in bytes.
    pub value_bytes: usize,
    /// The order of lists. `true`: that in which the objects were first stored. `false`, where the storage does not keep
    /// that: by project and name, compared as bytes.
    pub keeps_order: bool,
}

/// A store for a registry.
///
/// All methods may be called from many tasks at once. Errors have the kind [`crate::ErrorKind::Unavailable`] when the
/// same call may succeed later, and say what the storage said.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Where the data is, for people to read: a URL or a path, without secrets.
    fn location(&self) -> String;

    /// What can be stored.
    fn limits(&self) -> Limits;

    /// Makes the storage ready: creates what is missing, verifies that nothing is, or does neither. Several processes
    /// may do this at once.
    ///
    /// # Errors
    /// [`crate::ErrorKind::SchemaMissing`] from [`SchemaMode::Verify`] when something is missing.
    async fn prepare(&self, mode: SchemaMode) -> Result<()>;

    /// Answers queries, all from one state of the storage: one answer for each, in their order. Sees every commit that
    /// was acknowledged before, by this process or another. Does not wait for writers.
    async fn read(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>>;

    /// Commits atomically and serializably: the expectations hold at one moment, for keys that are absent too, and at
    /// that moment everything is written. When this returns [`Outcome::Committed`], the writes are durable.
    async fn commit(&self, commit: Commit) -> Result<Outcome>;

    /// Removes the storage itself (tables, a file) if no project is left in it and [`SchemaMode::Auto`] prepared it;
    /// returns whether it did. The backend stays usable: reads then find nothing, and the next commit prepares the storage
    /// again.
    async fn remove_if_empty(&self) -> Result<bool>;
}
