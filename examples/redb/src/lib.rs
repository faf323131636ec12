//! A registry in a [redb] file: a whole backend of the feature registry, to read and to copy from.
//!
//! redb is an embedded store with ordered tables, snapshots for readers and one writer at a time. One process owns a file.
//! This is how its parts go together; `docs/writing-a-backend.md` says why:
//!
//! | file | what it is |
//! |---|---|
//! | `lib.rs` | the [`Backend`]: where calls wait, on which threads they work, what their errors mean |
//! | `store.rs` | the storage: tables, reads, commits. It blocks, and knows nothing of tasks and deadlines |
//! | `journal.rs` | the entries of the journal as bytes |
//! | `scheme.rs` | `redb:///path`, for feature_store.yaml and the command line |
//! | `main.rs` | a program with all commands of `feast-registry` that opens such URLs too |
//! | `tests/conformance.rs` | the proof |
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> feast_registry_core::Result<()> {
//! # let folder = std::env::temp_dir().join(format!("redb-example-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).unwrap();
//! # let path = folder.join("registry.redb");
//! use feast_registry::{RegistryConfig, Schemes};
//! use feast_registry_redb::RedbScheme;
//!
//! let config = RegistryConfig::new(format!("redb://{}", path.display()).parse()?);
//! let registry = Schemes::default().with(RedbScheme).open(&config).await?;
//! # drop(registry);
//! # std::fs::remove_dir_all(&folder).ok();
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod journal;
mod scheme;
mod store;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use feast_registry_core::config::SchemaMode;
use feast_registry_core::{
    Backend, Commit, Deadline, Error, ErrorKind, JournalEntry, JournalQuery, Limits, Outcome, Query, Record, Result,
    Retention, async_trait,
};
use tokio::sync::{Mutex, OwnedRwLockReadGuard, RwLock};
use tokio::task::JoinError;

pub use crate::scheme::RedbScheme;
use crate::store::Store;

/// redb holds values of up to 3 GiB; an entry of the journal has an object as it was and as it is.
const VALUE_BYTES: usize = 1 << 30;

/// An open file. The handles of a process share it, since a redb file is open only once.
pub struct RedbFile {
    store: Store,
    /// redb has one writer at a time and lets the others wait where no deadline reaches them. So they queue here.
    turn: Arc<Mutex<()>>,
}

impl RedbFile {
    /// Opens a file, or makes an empty one.
    ///
    /// # Errors
    /// `Unavailable` when it is open already, in this process or another. `Corrupt` when it is no redb file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { store: Store::open(path.as_ref(), false)?, turn: Arc::default() })
    }

    /// Opens a file to read it: nothing is made or changed, and several processes may do so.
    ///
    /// # Errors
    /// As [`open`](Self::open), also when the file is not there or a killed process has left it to be repaired.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { store: Store::open(path.as_ref(), true)?, turn: Arc::default() })
    }
}

/// A registry in a redb file.
pub struct RedbBackend {
    location: String,
    /// `None` since it was closed.
    file: std::sync::Mutex<Option<Arc<RedbFile>>>,
    /// Calls share it as long as a thread works for them, whether anybody waits for that or not; who closes has it alone.
    in_use: Arc<RwLock<()>>,
    mode: SchemaMode,
    retention: Retention,
}

impl RedbBackend {
    /// Opens a file, or makes an empty one. Its tables are made by [`Backend::prepare`], if `mode` says so.
    ///
    /// # Errors
    /// As [`RedbFile::open`].
    pub fn open(path: impl AsRef<Path>, mode: SchemaMode) -> Result<Self> {
        Ok(Self::on(Arc::new(RedbFile::open(path)?), mode))
    }

    /// A registry in a file that is open.
    pub fn on(file: Arc<RedbFile>, mode: SchemaMode) -> Self {
        Self {
            location: file.store.location().to_owned(),
            file: Some(file).into(),
            in_use: Arc::default(),
            mode,
            retention: Retention::default(),
        }
    }

    /// The same with a journal of another size.
    #[must_use]
    pub fn with_retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// Reads, on a thread that may block. Who drops this leaves a read behind that nobody waits for, and nothing else.
    async fn reading<T: Send + 'static>(
        &self,
        deadline: &Deadline,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        deadline.check("a thread to read on")?;
        let (in_use, file) = self.file(deadline).await?;
        let work = tokio::task::spawn_blocking(move || {
            let done = work(&file.store);
            drop(file);
            drop(in_use);
            done
        });
        // What has no effect ends with its deadline.
        deadline.wait_for("the disk", work).await?.unwrap_or_else(|error| Err(broken(&error)))
    }

    /// Writes, when it is this caller's turn, on a thread that may block. What waits for its turn ends with its deadline, or
    /// when it is dropped, and was not done; what has begun is seen through, and holds the turn until then.
    async fn writing<T: Send + 'static>(
        &self,
        deadline: &Deadline,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<Result<T>, JoinError> {
        const WAITS_FOR: &str = "its turn to write";
        let turn = async {
            let (in_use, file) = self.file(deadline).await?;
            let turn = deadline.wait_for(WAITS_FOR, Arc::clone(&file.turn).lock_owned()).await?;
            deadline.check(WAITS_FOR)?;
            Ok((in_use, file, turn))
        };
        let (in_use, file, turn) = match turn.await {
            Ok(turn) => turn,
            Err(error) => return Ok(Err(error)),
        };
        tokio::task::spawn_blocking(move || {
            let done = work(&file.store);
            drop(turn);
            drop(file);
            drop(in_use);
            done
        })
        .await
    }

    /// That the file is in use, and the file: whoever leaves drops them in the reverse order.
    async fn file(&self, deadline: &Deadline) -> Result<(OwnedRwLockReadGuard<()>, Arc<RedbFile>)> {
        let in_use = deadline.wait_for("the registry to be closed", Arc::clone(&self.in_use).read_owned()).await?;
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match file {
            Some(file) => Ok((in_use, file)),
            None => Err(Error::new(ErrorKind::Unavailable, format!("{}: the registry is closed", self.location))),
        }
    }

    fn missing(&self) -> Error {
        let text = format!("{}: there is no registry in this file; `schema_mode: auto` makes one", self.location());
        Error::new(ErrorKind::SchemaMissing, text)
    }
}

/// A thread that panicked, or a runtime that ends.
fn broken(error: &JoinError) -> Error {
    Error::internal(format!("the thread that worked on the registry ended: {error}"))
}

impl fmt::Debug for RedbBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbBackend").field("location", &self.location()).field("mode", &self.mode).finish()
    }
}

#[async_trait]
impl Backend for RedbBackend {
    fn location(&self) -> String {
        self.location.clone()
    }

    /// Lists come by project and name, which is how the tables are sorted.
    fn limits(&self) -> Limits {
        Limits::new(VALUE_BYTES).without_order()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        match self.mode {
            SchemaMode::Auto => {
                let made = self.writing(deadline, Store::make).await;
                made.unwrap_or_else(|error| Err(broken(&error)))
            }
            SchemaMode::Verify => match self.reading(deadline, Store::is_made).await? {
                true => Ok(()),
                false => Err(self.missing()),
            },
            SchemaMode::Skip => Ok(()),
        }
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        let queries = queries.to_vec();
        let nothing = vec![Vec::new(); queries.len()];
        match self.reading(deadline, move |store| store.read(&queries)).await? {
            Some(answers) => Ok(answers),
            // The next commit makes it.
            None if self.mode == SchemaMode::Auto => Ok(nothing),
            None => Err(self.missing()),
        }
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        let (makes, retention) = (self.mode == SchemaMode::Auto, self.retention);
        match self.writing(deadline, move |store| store.commit(commit, makes, &retention)).await {
            Ok(Ok(Some(outcome))) => Ok(outcome),
            Ok(Ok(None)) => Err(self.missing()),
            Ok(Err(error)) => Err(error),
            // It may have ended before the commit or after it.
            Err(_) => Err(Error::unknown_outcome(&self.location())),
        }
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        let query = query.clone();
        self.reading(deadline, move |store| store.journal(&query)).await
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        let retention = *retention;
        let pruned = self.writing(deadline, move |store| store.prune_journal(&retention)).await;
        pruned.unwrap_or_else(|error| Err(broken(&error)))
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        if self.mode != SchemaMode::Auto {
            return Ok(false);
        }
        self.writing(deadline, Store::remove_if_empty).await.unwrap_or_else(|error| Err(broken(&error)))
    }

    /// Waits for what is under way, reads that nobody waits for among it, and lets go of the file. It can be opened anew when
    /// every handle on it is closed or dropped.
    async fn close(&self) {
        let _alone = self.in_use.write().await;
        drop(self.file.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// The Rust of the page for authors is compiled here, with the template as `my_store`.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/writing-a-backend.md")]
struct Page;
