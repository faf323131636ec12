//! One error for the whole registry: what went wrong, with which object, and whether trying again can help.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::backend::Key;
use crate::journal::Revision;
use crate::kind::Kind;

/// What every fallible call of the registry returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong. The server maps these to gRPC codes and to the classes of Feast's `feast.errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such object of this kind.
    #[doc(alias(
        "FeastObjectNotFoundException",
        "EntityNotFoundException",
        "FeatureServiceNotFoundException",
        "DataSourceObjectNotFoundException",
        "SavedDatasetNotFound",
        "ValidationReferenceNotFound",
        "PermissionObjectNotFoundException",
        "ProjectObjectNotFoundException"
    ))]
    NotFound(Kind),
    /// There is no view of this name, of any of the four kinds.
    #[doc(alias("FeatureViewNotFoundException"))]
    ViewNotFound,
    /// The view has no such version in its history.
    #[doc(alias("FeatureViewVersionNotFound"))]
    VersionNotFound,
    /// Something else that was asked for does not exist, as a feature of a view.
    FeatureNotFound,
    /// A view of another kind has the name already.
    ConflictingFeatureViewNames,
    /// A version was pinned and the definition changed in the same apply.
    FeatureViewPinConflict,
    /// The caller may not do that, or not with this object; whether it is there is not told.
    #[doc(alias("FeastPermissionError"))]
    PermissionDenied,
    /// The project is protected against being deleted.
    Protected,
    /// The caller's input cannot be accepted as it is.
    InvalidArgument,
    /// The configuration cannot be understood, or asks for what this build does not have.
    InvalidConfig,
    /// Other writers changed the same objects, again and again, until the time for retries was over.
    Conflict,
    /// An object is no longer as the caller has seen it, or as a condition asks for. Nothing was done; read it again and decide anew.
    Changed,
    /// The storage cannot be reached, or does not do what it was asked for now. Nothing was done.
    Unavailable,
    /// So many calls are waiting already that this one was not let in. Nothing was done.
    Overloaded,
    /// The caller's deadline was over, or the caller was gone, before anything was done. Nothing was, and nothing will be.
    DeadlineExceeded,
    /// The storage did not say what became of a write: it may have been done, or may yet be.
    UnknownOutcome,
    /// The journal no longer has what came after a revision.
    Compacted,
    /// Tables of the registry are missing and may not be created (`schema_mode`).
    SchemaMissing,
    /// The storage refuses to be written to.
    #[doc(alias("ReadOnlyRegistryException"))]
    ReadOnly,
    /// What is stored cannot be decoded.
    Corrupt,
    /// This registry does not do what was asked.
    Unsupported,
    /// A defect in this library or in a backend.
    Internal,
}

/// An error of the registry.
///
/// `Display` says what happened in one sentence that names the object and, where there is one, the remedy; the chain of
/// causes is behind [`source`](StdError::source). A clone shares its causes, so that all who wait for one thing can be told
/// the same.
///
/// What a caller decides by is the [`kind`](Self::kind), and what it says of another attempt:
///
/// ```
/// use feast_registry_core::{ErrorKind, Freshness, Kind, MemoryBackend, Registry, RegistryOptions};
/// # use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> feast_registry_core::Result<()> {
/// # let registry = Registry::open(Arc::new(MemoryBackend::new()), RegistryOptions::default()).await?;
/// let error = registry.get(Kind::Entity, "rides", "driver", Freshness::Stored).await.unwrap_err();
/// match error.kind() {
///     ErrorKind::NotFound(Kind::Entity) => println!("{error}"),
///     // Of a write: it may have been done, so look before it is done again.
///     ErrorKind::UnknownOutcome => println!("read what is stored"),
///     // Certainly not done, and worth another attempt: the storage is away, or others write the same objects.
///     _ if error.is_retryable() => println!("try again later"),
///     _ => return Err(error),
/// }
/// assert_eq!(error.to_string(), "there is no entity `driver` in project `rides`");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of a kind, in words.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// No object `name` of this kind in `project`.
    pub fn not_found(kind: Kind, project: &str, name: &str) -> Self {
        let message = match kind {
            Kind::Project => format!("there is no project `{name}` in this registry"),
            _ => format!("there is no {} `{name}` in project `{project}`", kind.label()),
        };
        Self::new(ErrorKind::NotFound(kind), message)
    }

    /// No view `name`, of any kind, in `project`.
    pub fn view_not_found(project: &str, name: &str) -> Self {
        Self::new(
            ErrorKind::ViewNotFound,
            format!("there is no feature view of any kind named `{name}` in project `{project}`"),
        )
    }

    /// Something is no longer as the caller has seen it, or wants it to be.
    pub(crate) fn changed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Changed, message)
    }

    /// What is stored under a key is not what the caller had seen of it.
    pub(crate) fn changed_since_seen(key: &Key) -> Self {
        let text = format!("{key} was changed, or deleted and made anew, since it was looked at; it is as it was");
        Self::changed(text)
    }

    /// The journal of the registry at `location` does not have the revision `after`, from which a reader wanted to go on.
    pub fn compacted(location: &str, after: Revision) -> Self {
        let text = format!("{location}: the journal does not have revision {after}; read everything anew");
        Self::new(ErrorKind::Compacted, text)
    }

    /// A write to the registry at `location` may have been done, or may yet be: the answer was lost, and so was that to the
    /// question what became of it.
    pub fn unknown_outcome(location: &str) -> Self {
        let text = format!(
            "{location}: it is not known whether the write was stored, or yet may be; read what is stored before you try again"
        );
        Self::new(ErrorKind::UnknownOutcome, text)
    }

    /// The caller's input is at fault.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// The configuration is at fault.
    pub fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidConfig, message)
    }

    /// This library or a backend is at fault.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The same error with more words before its own.
    #[must_use]
    pub(crate) fn with_context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message).into();
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anything else being changed, and was certainly not done now.
    pub fn is_retryable(&self) -> bool {
        use ErrorKind::{Conflict, DeadlineExceeded, Overloaded, Unavailable};
        matches!(self.kind, Conflict | Unavailable | Overloaded | DeadlineExceeded)
    }

    /// Whether a write that failed with this may have been done all the same, or may yet be.
    pub fn is_outcome_unknown(&self) -> bool {
        self.kind == ErrorKind::UnknownOutcome
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
