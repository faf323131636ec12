//! The file of a database, open beside SQLite: what its header says, and a lock on it as SQLite's own readers have one.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file that is open for its header.
///
/// To close it takes all locks along that SQLite has on the same file in this process.
#[derive(Debug)]
pub(crate) struct Header {
    of: Identity,
    file: Mutex<File>,
}

/// Device and inode.
pub(crate) type Identity = (u64, u64);

#[cfg(unix)]
pub(crate) fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
pub(crate) fn identity(_: &Metadata) -> Identity {
    (0, 0)
}

impl Header {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { of: identity(&file.metadata()?), file: Mutex::new(file) })
    }

    /// Of the file that is open, whatever is at its path by now.
    pub(crate) fn of(&self) -> Identity {
        self.of
    }

    pub(crate) fn says_wal(&self) -> io::Result<bool> {
        says_wal(&self.file())
    }

    /// Locks the file as SQLite's readers do (`SHARED`), until what is returned is dropped. Meanwhile nobody puts the file into
    /// another journal mode, and the last of those who have it open leaves its `-wal` where it is: for both they need the
    /// file for themselves. The lock belongs to what is open here, and not to the process: SQLite's own locks neither end with
    /// it, nor it with theirs.
    ///
    /// `None` while somebody has the file to himself, or waits for that.
    ///
    /// # Errors
    /// When there are no such locks: before Linux 3.15, and in some sandboxes and file systems.
    pub(crate) fn hold(&self) -> io::Result<Option<Held<'_>>> {
        let file = self.file();
        // It belongs to who waits for readers to end; so that he need not wait for ever, none begins meanwhile.
        if !range::lock(&file, range::PENDING)? {
            return Ok(None);
        }
        let locked = range::lock(&file, range::SHARED);
        range::unlock(&file, range::PENDING)?;
        Ok(locked?.then_some(Held { file }))
    }

    fn file(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock that is held.
pub(crate) struct Held<'a> {
    /// Nobody else may take it: it is one for all that this process does with what is open here.
    file: MutexGuard<'a, File>,
}

impl Held<'_> {
    pub(crate) fn says_wal(&self) -> io::Result<bool> {
        says_wal(&self.file)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(error) = range::unlock(&self.file, range::SHARED) {
            tracing::warn!(%error, "the file of a SQLite registry could not be unlocked");
        }
    }
}

/// Whether SQLite keeps a file in WAL mode: its format for writing and for reading. An empty file is in no mode yet.
fn says_wal(mut file: &File) -> io::Result<bool> {
    file.seek(io::SeekFrom::Start(18))?;
    let mut formats = [0; 2];
    match file.read_exact(&mut formats) {
        Ok(()) => Ok(formats.contains(&2)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Locks on a part of a file that belong to what is open (`F_OFD_SETLK`).
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod range {
    use std::fs::File;
    use std::io;

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    /// Where SQLite locks, by its file format: `PENDING_BYTE`, and `SHARED_FIRST` with `SHARED_SIZE`.
    pub(super) const PENDING: (i64, i64) = (0x4000_0000, 1);
    pub(super) const SHARED: (i64, i64) = (0x4000_0002, 510);

    /// Whether nobody has a lock that keeps out readers.
    pub(super) fn lock(file: &File, part: (i64, i64)) -> io::Result<bool> {
        match set(file, libc::F_RDLCK, part) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn unlock(file: &File, part: (i64, i64)) -> io::Result<()> {
        Ok(set(file, libc::F_UNLCK, part)?)
    }

    fn set(file: &File, kind: libc::c_int, (start, length): (i64, i64)) -> nix::Result<()> {
        let lock = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start,
            l_len: length,
            l_pid: 0,
        };
        fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
    }
}

/// Elsewhere there are none, and what they are for is not promised.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
mod range {
    use std::fs::File;
    use std::io;

    pub(super) const PENDING: () = ();
    pub(super) const SHARED: () = ();

    pub(super) fn lock(_: &File, (): ()) -> io::Result<bool> {
        Ok(true)
    }

    pub(super) fn unlock(_: &File, (): ()) -> io::Result<()> {
        Ok(())
    }
}
