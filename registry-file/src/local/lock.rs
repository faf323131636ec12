//! The lock that orders writers, in this process and in others: that of a hidden file beside the registry, which stays.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feast_registry_core::{Error, ErrorKind, Result};

use super::access::{self, Access};
use super::look::Identity;
use super::{LocalFile, beside, locked};
use crate::store::Turn;

/// How long a writer waits for those of other processes.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The pauses between two tries for the lock: at first as short as a write, then longer.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// How often a file that comes and goes is opened.
const OPENINGS: usize = 10;

impl LocalFile {
    /// Waits for the lock, until this moment at the latest. Whoever stops waiting leaves nothing behind: the lock is tried
    /// for again and again instead of waited for in a thread, which nothing could end.
    pub(super) async fn turn_until(&self, until: Instant) -> Result<Turn> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(lock) = self.blocking(Self::try_lock).await?? {
                return Ok(Some(Box::new(lock)));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (path, seconds) = (self.path.display(), began.elapsed().as_secs_f32());
                let text = format!("another process has held the lock of the registry file {path} for {seconds:.0} s");
                return Err(Error::new(ErrorKind::Unavailable, format!("{text}; nothing is written; try again")));
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause + pause / 8).min(LONGEST_PAUSE);
        }
    }

    /// `None` while another one has it.
    fn try_lock(&self) -> Result<Option<Arc<File>>> {
        self.make_folder()?;
        let target = self.target()?;
        let path = beside(&target, ".lock");
        let lock = self.open_lock(&path, &target)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(self.error("locked", error)),
        }
        if !has_name(&lock, &path) {
            // Somebody has removed it: the next one would lock another file.
            return Ok(None);
        }
        self.make_durable(&target)?;
        let lock = Arc::new(lock);
        *locked(&self.shared.lock) = Arc::downgrade(&lock);
        Ok(Some(lock))
    }

    fn open_lock(&self, path: &Path, target: &Path) -> Result<File> {
        let failed = |error| {
            let (lock, registry) = (path.display(), self.path.display());
            match fs::symlink_metadata(path) {
                Ok(found) if !found.is_file() => Error::config(format!(
                    "{lock}, the lock file of the registry {registry}, is a link, a folder or the like; remove it"
                )),
                _ => self.error(&format!("locked ({lock})"), error),
            }
        };
        let (lock, is_new) = open_or_make(path).map_err(failed)?;
        let metadata = lock.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::other("not a file")));
        }
        // A file that has another name too, or holds anything, may be somebody's own, put here to be changed.
        if access::has_one_name(&metadata)
            && metadata.len() == 0
            && let Ok(registry) = fs::metadata(target)
        {
            // The lock file of another user is for him to change.
            let given = Access::of_lock(&registry).give_to(&lock);
            if let (true, Err(error)) = (is_new, given) {
                return Err(failed(error));
            }
        }
        Ok(lock)
    }
}

/// Opens the lock file, and says whether it was made.
fn open_or_make(path: &Path) -> io::Result<(File, bool)> {
    let mut last = None;
    for _ in 0..OPENINGS {
        match access::follow_nothing(OpenOptions::new().read(true).write(true)).open(path) {
            Ok(lock) => return Ok((lock, false)),
            // One that another user made, as earlier versions did, can be locked if it can at least be read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let lock = access::follow_nothing(OpenOptions::new().read(true)).open(path);
                return lock.map(|lock| (lock, false)).map_err(|_| error);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        match access::make_private(access::follow_nothing(OpenOptions::new().read(true).write(true))).open(path) {
            Ok(lock) => return Ok((lock, true)),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// Whether an open file is the one of this name.
fn has_name(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(named)) => Identity::of(&file).is_same_file(&Identity::of(&named)),
        _ => false,
    }
}
