//! The lock that orders writers, in this process and in others: that of a hidden file beside the registry, which stays.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use feast_registry_core::{Deadline, Error, Result};

use super::access::{self, Access};
use super::look::Identity;
use super::{LocalFile, beside, locked};
use crate::store::WriteLock;

/// The pauses between two tries for the lock: at first as short as a write, then longer.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// How often a file that comes and goes is opened.
const OPENINGS: usize = 10;

/// What a try for the lock came to.
enum LockAttempt {
    Locked(Arc<File>),
    /// Another one has it.
    Held,
    /// Somebody has waited for longer, and tries again within this time.
    Awaited(Duration),
}

impl LocalFile {
    /// Waits for the lock until the deadline; it is tried for at least once. Whoever stops waiting leaves nothing behind: the
    /// lock is tried for again and again instead of waited for in a thread, which nothing could end. Proved by
    /// `who_waits_for_the_lock_in_vain_leaves_nothing_behind`.
    ///
    /// Between two tries, one who writes all the time would be faster. So who waits says so: the length of the lock file
    /// is the number of milliseconds between its tries, and whoever comes later makes room for that long, once. Proved by
    /// `who_waits_for_the_lock_comes_before_who_has_just_had_it`.
    pub(super) async fn lock_until(&self, deadline: &Deadline) -> Result<WriteLock> {
        let mut pause = FIRST_PAUSE;
        let mut is_first = true;
        let what = format!("the lock of the registry file {}, which another process holds", self.path.display());
        loop {
            let makes_room = is_first && !deadline.is_over();
            let wait = match self.blocking(move |this| this.try_lock(makes_room, pause)).await?? {
                LockAttempt::Locked(lock) => return Ok(Some(Box::new(lock))),
                LockAttempt::Held => pause,
                LockAttempt::Awaited(wait) => wait,
            };
            deadline.check(&what)?;
            // What is over ends the pause; then the lock is tried for once more.
            let _ = deadline.wait_for(&what, tokio::time::sleep(wait)).await;
            if !is_first {
                pause = (pause + pause / 8).min(LONGEST_PAUSE);
            }
            is_first = false;
        }
    }

    fn try_lock(&self, makes_room: bool, pause: Duration) -> Result<LockAttempt> {
        self.make_folder()?;
        let target = self.target()?;
        let path = beside(&target, ".lock");
        let (lock, metadata) = self.open_lock(&path, &target)?;
        let is_plain = is_plain(&metadata);
        if makes_room && is_plain && metadata.len() > 0 {
            return Ok(LockAttempt::Awaited(2 * Duration::from_millis(metadata.len())));
        }
        // Where the file cannot be written, to wait without saying so is all there is.
        let say = |milliseconds| {
            if is_plain && metadata.len() != milliseconds {
                let _ = lock.set_len(milliseconds);
            }
        };
        match lock.try_lock() {
            Ok(()) => say(0),
            Err(TryLockError::WouldBlock) => {
                say(pause.as_millis() as u64);
                return Ok(LockAttempt::Held);
            }
            Err(TryLockError::Error(error)) => return Err(self.error("locked", error)),
        }
        if !has_name(&lock, &path) {
            // Somebody has removed it: the next one would lock another file.
            return Ok(LockAttempt::Held);
        }
        self.make_durable(&target)?;
        let lock = Arc::new(lock);
        *locked(&self.shared.lock) = Arc::downgrade(&lock);
        Ok(LockAttempt::Locked(lock))
    }

    fn open_lock(&self, path: &Path, target: &Path) -> Result<(File, fs::Metadata)> {
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
        if is_plain(&metadata)
            && let Ok(registry) = fs::metadata(target)
        {
            // The lock file of another user is for him to change.
            let given = Access::of_lock(&registry).give_to(&lock);
            if let (true, Err(error)) = (is_new, given) {
                return Err(failed(error));
            }
        }
        Ok((lock, metadata))
    }
}

/// Whether a lock file is no more than that. One that has another name too, or holds something, may be somebody's own, put
/// here to be changed.
fn is_plain(lock: &fs::Metadata) -> bool {
    access::has_one_name(lock) && u128::from(lock.len()) <= LONGEST_PAUSE.as_millis()
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
