//! A file on a disk.
//!
//! A writer holds the lock of a lock file ([`lock`]), writes a temporary file beside the real one, syncs it, renames it over
//! the real one and syncs the folder ([`replace`]). So a reader sees the old file or the new one, and a writer that is killed
//! leaves the old one. Who may read and write the registry stays as it was ([`access`]).
//!
//! What is to be left of a registry that is removed is in another hidden file, until there is a registry again.
//!
//! Feast's Python takes no lock, and truncates the file before it writes ([`look`]). What that leaves:
//! - a file that Feast has changed since it was read is not replaced, but read again. Between that look and the rename
//!   there are some microseconds in which a write of Feast's goes unseen and is lost;
//! - a file that Feast wrote is only believed once this process has seen it left alone for some milliseconds;
//! - what Feast overwrites without having read it is lost, as it is among Feast's own processes.

mod access;
mod lock;
mod look;
mod replace;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use feast_registry_core::{Deadline, Error, ErrorKind, Result};

use crate::store::{Failure, Loaded, Removal, Store, Swapped, Tag, WriteLock, tag_of};
use look::{Identity, State, Watched};

/// The most symbolic links that are followed, as for Linux.
const MAX_LINKS: usize = 40;

/// A registry file.
#[derive(Clone)]
pub(crate) struct LocalFile {
    path: PathBuf,
    shared: Arc<Shared>,
}

/// What all that is done with a file has in common.
struct Shared {
    /// The file as it was last looked at.
    watched: Mutex<Option<Watched>>,
    /// The lock, while this process holds it.
    lock: Mutex<Weak<File>>,
    /// What this process knows to survive a crash of the machine: the file with this identity, or that there is none.
    durable: Mutex<Option<Option<Identity>>>,
    sync_folder: SyncFolder,
}

/// Makes what has happened to the names of an open folder durable. Tests have one that fails.
type SyncFolder = Box<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LocalFile {
    /// The file at a path, whether it is there or not.
    pub(crate) fn new(path: PathBuf) -> Self {
        // Windows cannot sync a folder, and need not.
        Self::with(path, |folder| if cfg!(unix) { folder.sync_all() } else { Ok(()) })
    }

    fn with(path: PathBuf, sync_folder: impl Fn(&File) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let shared = Shared {
            watched: Mutex::default(),
            lock: Mutex::default(),
            durable: Mutex::default(),
            sync_folder: Box::new(sync_folder),
        };
        Self { path, shared: Arc::new(shared) }
    }

    /// The path of the file itself: where a symbolic link leads to, the file that is there is replaced, not the link.
    fn target(&self) -> Result<PathBuf> {
        let mut path = self.path.clone();
        for _ in 0..MAX_LINKS {
            match fs::read_link(&path) {
                Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
                Err(_) => return Ok(path),
            }
        }
        Err(Error::config(format!("the registry file {} is a symbolic link that leads nowhere", self.path.display())))
    }

    fn error(&self, doing: &str, error: io::Error) -> Error {
        let path = self.path.display();
        let (kind, advice) = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                (ErrorKind::ReadOnly, "; the file, its lock file and its folder must be writable")
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                (ErrorKind::Unavailable, "; make room and try again")
            }
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                (ErrorKind::InvalidConfig, "; its folder must be there")
            }
            _ => (ErrorKind::Unavailable, ""),
        };
        Error::new(kind, format!("the registry file {path} cannot be {doing}: {error}{advice}")).with_source(error)
    }

    /// Makes the file's folder, though not those above it, as Feast does.
    fn make_folder(&self) -> Result<()> {
        match fs::create_dir(folder_of(&self.target()?)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(self.error("made, nor its folder", error))
            }
            _ => Ok(()),
        }
    }

    /// The lock, which must be held: whoever has this handle holds it too. So it lasts for what was begun under it, even
    /// if whoever began it is gone.
    fn held_lock(&self) -> Result<Arc<File>> {
        let lock = locked(&self.shared.lock).upgrade();
        lock.ok_or_else(|| Error::internal("the registry file was to be written without its lock"))
    }

    /// Runs what waits for the disk where that holds up nobody.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> Result<T> {
        let this = self.clone();
        let task = tokio::task::spawn_blocking(move || work(&this));
        task.await.map_err(|error| Error::internal("access to the registry file was aborted").with_source(error))
    }
}

/// A file of the same folder: hidden, and named after this one.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    path.with_file_name(name)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[async_trait]
impl Store for LocalFile {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    /// Every file system can do what is needed here.
    async fn check(&self, _: &Deadline) -> Result<()> {
        Ok(())
    }

    fn keeps_others_out(&self) -> bool {
        true
    }

    async fn lock(&self, deadline: &Deadline) -> Result<WriteLock> {
        self.lock_until(deadline).await
    }

    /// A look that is given up goes on to its end on its thread.
    async fn load(&self, known: Option<&Tag>, deadline: &Deadline) -> Result<Loaded> {
        let known = known.and_then(tag_of::<State>).cloned();
        let look = self.blocking(move |this| this.load_now(known.as_ref()));
        deadline.wait_for(&format!("the registry file {}", self.path.display()), look).await??
    }

    /// Never given up: what is begun is done in a moment, or the disk does not answer.
    async fn swap(&self, expected: Option<&Tag>, bytes: Bytes, _: &Deadline) -> Result<Swapped, Failure> {
        let lock = self.held_lock().map_err(Failure::certain)?;
        let expected = expected.and_then(tag_of::<State>).cloned();
        let swap = move |this: &Self| {
            let swapped = this.swap_now(expected.as_ref(), &bytes);
            drop(lock);
            swapped
        };
        self.blocking(swap).await.map_err(|error| Failure { error, is_in_doubt: true })?
    }

    async fn remove(&self, expected: &Tag, left: Bytes) -> Result<Removal> {
        let lock = self.held_lock()?;
        let Some(expected) = tag_of::<State>(expected).cloned() else { return Ok(Removal::Changed) };
        let remove = move |this: &Self| {
            let removed = this.remove_now(&expected, &left);
            drop(lock);
            removed
        };
        self.blocking(remove).await?
    }
}
