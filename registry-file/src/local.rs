//! A file on a disk.
//!
//! A writer holds a lock file, writes a temporary file beside the real one, syncs it, renames it over the real one and
//! syncs the folder. So a reader sees the old file or the new one, and a writer that is killed leaves the old one.
//!
//! Feast's Python takes no lock, and truncates the file before it writes. What that leaves:
//! - a file that Feast has changed since it was read is not replaced, but read again. Between that look and the rename
//!   there are some microseconds in which a write of Feast's goes unseen and is lost;
//! - a file that Feast wrote in this moment is only believed once it has been left alone for [`SETTLED`];
//! - what Feast overwrites without having read it is lost, as it is among Feast's own processes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use feast_registry_core::{Deadline, Error, ErrorKind, Result, wire};

use crate::store::{Failure, Loaded, Removal, Store, Swapped, Tag, WriteLock, tag_of};

/// File systems keep times in steps of up to 10 ms: what was changed so recently may change again without showing it.
const SETTLED: Duration = Duration::from_millis(20);

/// How long a file may be half written by Feast before it counts as broken.
const HALF_WRITTEN: Duration = Duration::from_secs(1);

/// How long a writer waits for those of other processes.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// How a file of this library begins: the key and length of a `version_id` of 36 characters, which then follows.
const HEAD: [u8; 2] = [0x22, 36];
const HEAD_BYTES: usize = 38;

/// The most symbolic links that are followed, as for Linux.
const MAX_LINKS: usize = 40;

/// A registry file.
#[derive(Debug)]
pub(crate) struct LocalFile {
    path: PathBuf,
}

/// A state of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    file: Identity,
    /// The first bytes of a file that this library wrote: no two are the same.
    head: Option<[u8; HEAD_BYTES]>,
    /// Whether the file was changed so shortly before it was looked at that its times may hide another change.
    is_fresh: bool,
}

/// What the file system knows a state of a file by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    file: (u64, u64),
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Identity {
    fn of(metadata: &fs::Metadata) -> Self {
        #[cfg(unix)]
        let file = {
            use std::os::unix::fs::MetadataExt as _;
            (metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let file = (0, 0);
        Self { file, bytes: metadata.len(), modified: metadata.modified().ok() }
    }

    /// How long ago the file was changed. One from the future counts as just changed.
    fn age(&self) -> Duration {
        self.modified.and_then(|modified| modified.elapsed().ok()).unwrap_or_default()
    }

    fn is_fresh(&self) -> bool {
        self.age() < SETTLED
    }
}

fn head_of(bytes: &[u8]) -> Option<[u8; HEAD_BYTES]> {
    let head: [u8; HEAD_BYTES] = bytes.get(..HEAD_BYTES)?.try_into().ok()?;
    head.starts_with(&HEAD).then_some(head)
}

impl LocalFile {
    /// The file at a path, whether it is there or not.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
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
                (ErrorKind::ReadOnly, "; the file and its folder must be writable")
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

    /// `None` when there is no file.
    fn metadata(&self) -> Result<Option<fs::Metadata>> {
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(self, error)),
        };
        if metadata.is_dir() {
            return Err(Error::config(format!("the registry file {} is a folder", self.path.display())));
        }
        if !metadata.is_file() {
            // To open a pipe would wait for somebody to write to it.
            return Err(Error::config(format!("the registry file {} is not a regular file", self.path.display())));
        }
        Ok(Some(metadata))
    }

    /// Whether the file is in a state, without reading all of it.
    fn is_in(&self, state: &State) -> Result<bool> {
        let Some(metadata) = self.metadata()? else { return Ok(false) };
        if Identity::of(&metadata) != state.file {
            return Ok(false);
        }
        if !state.is_fresh {
            return Ok(true);
        }
        let Some(known) = state.head else { return Ok(false) };
        let mut head = [0; HEAD_BYTES];
        let read = File::open(&self.path).and_then(|mut file| file.read_exact(&mut head));
        Ok(read.is_ok() && head == known)
    }

    fn load_now(&self, known: Option<&State>) -> Result<Loaded> {
        if let Some(state) = known
            && self.is_in(state)?
        {
            return Ok(Loaded::Unchanged);
        }
        let began = Instant::now();
        loop {
            if self.metadata()?.is_none() {
                return Ok(Loaded::Absent(None));
            }
            let (bytes, before, after) = match self.read() {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Absent(None)),
                Err(error) => return Err(unreadable(self, error)),
            };
            let head = head_of(&bytes);
            let is_torn = before != after || (head.is_none() && (after.is_fresh() || !is_whole(&bytes)));
            if !is_torn || began.elapsed() > HALF_WRITTEN {
                let state = State { head, is_fresh: after.is_fresh(), file: after };
                return Ok(Loaded::Changed(bytes.into(), Arc::new(state)));
            }
            // Feast is at it.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn read(&self) -> io::Result<(Vec<u8>, Identity, Identity)> {
        let mut file = File::open(&self.path)?;
        let before = file.metadata()?;
        let mut bytes = Vec::with_capacity(usize::try_from(before.len()).unwrap_or_default());
        file.read_to_end(&mut bytes)?;
        Ok((bytes, Identity::of(&before), Identity::of(&file.metadata()?)))
    }

    fn lock_file(&self) -> Result<File> {
        let path = beside(&self.target()?, ".lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        // A lock file that another user made can be locked, if it can at least be read.
        let opened = opened.or_else(|error| File::open(&path).map_err(|_| error));
        opened.map_err(|error| self.error(&format!("locked ({})", path.display()), error))
    }

    fn swap_now(&self, expected: Option<&State>, bytes: &[u8]) -> Result<Swapped, Failure> {
        let certain = |error| Failure { error, is_in_doubt: false };
        let target = self.target().map_err(certain)?;
        let temporary = beside(&target, ".tmp");
        let written = self.write_temporary(&target, &temporary, bytes);
        let swapped = written.map_err(certain).and_then(|file| {
            // The last look, as late as can be: Feast takes no lock.
            let is_as_expected = match expected {
                Some(state) => self.is_in(state),
                None => self.metadata().map(|metadata| metadata.is_none()),
            };
            if !is_as_expected.map_err(certain)? {
                return Ok(Swapped::Changed);
            }
            fs::rename(&temporary, &target).map_err(|error| certain(self.error("replaced", error)))?;
            // From here on the file is the new one; a crash of the machine may still bring back the old one.
            let identity = sync_folder(&target)
                .and_then(|()| file.metadata())
                .map_err(|error| Failure { error: self.error("synced to the disk", error), is_in_doubt: true })?;
            let file = Identity::of(&identity);
            let state = State { is_fresh: file.is_fresh(), file, head: head_of(bytes) };
            Ok(Swapped::Done(Arc::new(state)))
        });
        if !matches!(swapped, Ok(Swapped::Done(_))) {
            // If this fails too, the next writer removes it.
            let _ = fs::remove_file(&temporary);
        }
        swapped
    }

    /// The temporary file has one name, and only who holds the lock writes it: one that is there was left by a writer
    /// that was killed.
    fn write_temporary(&self, target: &Path, temporary: &Path, bytes: &[u8]) -> Result<File> {
        let write = || {
            match fs::remove_file(temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).open(temporary)?;
            if let Ok(old) = fs::metadata(target) {
                // Who could read the old file can read the new one.
                file.set_permissions(old.permissions())?;
            }
            file.write_all(bytes)?;
            file.sync_all()?;
            Ok(file)
        };
        write().map_err(|error| self.error("written", error))
    }

    fn remove_now(&self, expected: &State) -> Result<Removal> {
        if !self.is_in(expected)? {
            return Ok(Removal::Changed);
        }
        let target = self.target()?;
        let removed = fs::remove_file(&target).and_then(|()| sync_folder(&target));
        removed.map(|()| Removal::Done).map_err(|error| self.error("removed", error))
    }

    /// Makes the file's folder, though not those above it, as Feast does.
    fn make_folder(&self) -> Result<()> {
        let target = self.target()?;
        match target.parent().filter(|folder| !folder.as_os_str().is_empty()).map(fs::create_dir) {
            Some(Err(error)) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(self.error("made, nor its folder", error))
            }
            _ => Ok(()),
        }
    }

    /// Runs what waits for the disk where that holds up nobody.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> Result<T> {
        let this = Self { path: self.path.clone() };
        let task = tokio::task::spawn_blocking(move || work(&this));
        task.await.map_err(|error| Error::internal("access to the registry file was aborted").with_source(error))
    }
}

fn unreadable(file: &LocalFile, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Error::new(
            ErrorKind::InvalidConfig,
            format!("the registry file {} cannot be read: {error}", file.path.display()),
        )
        .with_source(error),
        _ => file.error("read", error),
    }
}

/// A file of the same folder: hidden, and named after this one.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    path.with_file_name(name)
}

/// Whether bytes are whole fields, and any.
fn is_whole(bytes: &[u8]) -> bool {
    !bytes.is_empty() && wire::fields(bytes).all(|field| field.is_ok())
}

/// Makes the name that a file has in its folder durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Windows cannot open a folder, and need not.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
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

    async fn lock(&self, _: &Deadline) -> Result<WriteLock> {
        let lock = self.blocking(|this| this.make_folder().and_then(|()| this.lock_file())).await??;
        let lock = match lock.try_lock() {
            Ok(()) => lock,
            Err(TryLockError::Error(error)) => return Err(self.error("locked", error)),
            Err(TryLockError::WouldBlock) => {
                // A thread of its own: if nobody lets go of the lock, it must not hold up the end of this process.
                let (sender, receiver) = tokio::sync::oneshot::channel();
                std::thread::spawn(move || drop(sender.send(lock.lock().map(|()| lock))));
                match tokio::time::timeout(LOCK_TIMEOUT, receiver).await {
                    Ok(Ok(locked)) => locked.map_err(|error| self.error("locked", error))?,
                    _ => {
                        return Err(Error::new(
                            ErrorKind::Unavailable,
                            format!(
                                "another process has held the lock of the registry file {} for {} s; try again",
                                self.path.display(),
                                LOCK_TIMEOUT.as_secs()
                            ),
                        ));
                    }
                }
            }
        };
        Ok(Some(Box::new(lock)))
    }

    async fn load(&self, known: Option<&Tag>, _: &Deadline) -> Result<Loaded> {
        let known = known.and_then(tag_of::<State>).cloned();
        // One look, which takes some microseconds, is less than to have it done elsewhere.
        if let Some(state) = &known
            && self.is_in(state)?
        {
            return Ok(Loaded::Unchanged);
        }
        self.blocking(move |this| this.load_now(known.as_ref())).await?
    }

    async fn swap(&self, expected: Option<&Tag>, bytes: Bytes, _: &Deadline) -> Result<Swapped, Failure> {
        let expected = expected.and_then(tag_of::<State>).cloned();
        let swapped = self.blocking(move |this| this.swap_now(expected.as_ref(), &bytes)).await;
        swapped.map_err(|error| Failure { error, is_in_doubt: true })?
    }

    async fn remove(&self, expected: &Tag, _: Bytes) -> Result<Removal> {
        let Some(expected) = tag_of::<State>(expected).cloned() else { return Ok(Removal::Changed) };
        self.blocking(move |this| this.remove_now(&expected)).await?
    }
}
