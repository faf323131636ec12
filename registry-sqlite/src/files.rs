//! Whether the files of an open database are still the ones at their paths.
//!
//! SQLite writes into the files that it has open, whatever becomes of their names: into a file that was removed, or over
//! which another was moved, it goes on writing what nobody will find again. So their devices and inodes are compared when a
//! transaction has begun and before it is acknowledged. `registry-sqlite/tests/edges/replaced.rs` has the proof.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use feast_registry_core::ErrorKind;
use rusqlite::{Connection, FileControl};

use crate::connection::Location;
use crate::error::Problem;

/// For how long a reader relies on what another has seen.
const READERS_TRUST_FOR: Duration = Duration::from_millis(10);

/// The files of an open database.
#[derive(Debug)]
pub(crate) struct Files {
    location: String,
    /// Where the database is, as it was configured, and with symbolic links resolved as SQLite resolves them.
    database: Vec<File>,
    /// The `-wal` and the `-shm`, once the database is open in WAL mode.
    wal: OnceLock<[File; 2]>,
    opened: Instant,
    /// How long after that a reader last found all of them in place, in microseconds.
    found_by_reader: AtomicU64,
}

/// A file that is open.
#[derive(Debug)]
struct File {
    path: PathBuf,
    identity: Identity,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Removed,
    Replaced,
}

/// Device and inode.
#[cfg(unix)]
type Identity = (u64, u64);
/// Elsewhere than on Unix a file that is open cannot be replaced.
#[cfg(not(unix))]
type Identity = ();

/// Only the inode is asked for. Linux (from 6.13 on) notes when somebody asks for the time of a file's last change, and gives
/// the next change a time of its own then, so that each `fsync` had the inode to write as well: it took twice as long.
#[cfg(target_os = "linux")]
fn identity(path: &Path) -> Option<Identity> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
        Ok(found) => Some((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino)),
        // A kernel or a sandbox may not have this call.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => portable_identity(path),
        Err(_) => None,
    }
}

#[cfg(not(target_os = "linux"))]
use portable_identity as identity;

#[cfg(unix)]
fn portable_identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn portable_identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(drop)
}

impl File {
    fn at(path: PathBuf) -> Option<Self> {
        identity(&path).map(|identity| Self { path, identity })
    }

    fn change(&self) -> Option<Change> {
        match identity(&self.path) {
            Some(identity) if identity == self.identity => None,
            Some(_) => Some(Change::Replaced),
            None => Some(Change::Removed),
        }
    }
}

impl Files {
    /// The file that a connection has just opened; `None` for a database in memory.
    ///
    /// # Errors
    /// `Unavailable` when it has been removed or replaced meanwhile.
    pub(crate) fn of(connection: &Connection, location: &Location) -> Result<Option<Self>, Problem> {
        let Location::File(configured) = location else { return Ok(None) };
        let resolved = connection.path().map_or_else(|| configured.clone(), PathBuf::from);
        let paths = if resolved == *configured { vec![resolved] } else { vec![resolved, configured.clone()] };
        let database: Option<Vec<File>> = paths.into_iter().map(File::at).collect();
        match database {
            Some(database) if !has_moved(connection) => Ok(Some(Self {
                location: location.to_string(),
                database,
                wal: OnceLock::new(),
                opened: Instant::now(),
                found_by_reader: AtomicU64::new(0),
            })),
            _ => Err(Problem::new(
                ErrorKind::Unavailable,
                format!("{location}: the file was removed or replaced while it was being opened; try again"),
            )),
        }
    }

    /// Notes the files of the WAL, which a connection now has open.
    pub(crate) fn note_wal(&self) {
        if self.wal.get().is_none()
            && let [Some(wal), Some(shm)] = ["-wal", "-shm"].map(|suffix| File::at(self.beside(suffix)))
        {
            // Two threads would note the same.
            let _ = self.wal.set([wal, shm]);
        }
    }

    /// Whether all are the files that were opened.
    ///
    /// # Errors
    /// `Unavailable` when one was removed or replaced.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let files = self.database.iter().chain(self.wal.get().into_iter().flatten());
        match files.into_iter().find_map(|file| Some((file, file.change()?))) {
            None => Ok(()),
            Some((file, change)) => Err(self.problem(file, change)),
        }
    }

    /// [`check`](Self::check) for a reader, who need not look if another one just did: what is read rests on nothing, and a
    /// write that follows from it is checked itself.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn check_for_reader(&self) -> Result<(), Problem> {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let now = micros(self.opened.elapsed());
        if now.saturating_sub(self.found_by_reader.load(Ordering::Relaxed)) >= micros(READERS_TRUST_FOR) {
            self.check()?;
            self.found_by_reader.store(now, Ordering::Relaxed);
        }
        Ok(())
    }

    /// [`check`](Self::check) for a connection that was opened just now.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn check_new(&self, connection: &Connection) -> Result<(), Problem> {
        self.check()?;
        // It may have been opened while another file was there for a moment.
        match self.database.first() {
            Some(file) if has_moved(connection) => Err(self.problem(file, Change::Replaced)),
            _ => Ok(()),
        }
    }

    /// Whether what is in the WAL can be put where it belongs without harm to what is now at the paths: the WAL is at its
    /// path, and would be taken for one of the file that replaced the database; or the database is at its path, and there is no
    /// WAL of others.
    pub(crate) fn is_wal_stranded(&self) -> bool {
        let Some([wal, _]) = self.wal.get() else { return false };
        let is_in_place = self.database.iter().all(|file| file.change().is_none());
        match wal.change() {
            None => !is_in_place,
            Some(Change::Removed) => is_in_place,
            Some(Change::Replaced) => false,
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.database.first().map_or_else(PathBuf::new, |file| beside(&file.path, suffix))
    }

    fn problem(&self, file: &File, change: Change) -> Problem {
        let what = match change {
            Change::Removed => "removed",
            Change::Replaced => "replaced by another",
        };
        Problem::new(
            ErrorKind::Unavailable,
            format!(
                "{}: the file `{}` was {what} while this process had it open; nothing is read from it or written to it any \
                 more, since that would be lost. Stop all processes that use this registry, see to it that the right file is \
                 there and that no `-wal` or `-shm` of another file is beside it, and start them again",
                self.location,
                file.path.display(),
            ),
        )
    }
}

/// Another file of a database.
pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Whether the path that a connection opened no longer leads to the file that it has open.
fn has_moved(connection: &Connection) -> bool {
    #[cfg(unix)]
    {
        let mut moved = 0;
        let asked = connection.file_control(None::<&str>, FileControl::HasMoved(&mut moved));
        asked.is_ok() && moved != 0
    }
    #[cfg(not(unix))]
    {
        let _ = connection;
        false
    }
}
