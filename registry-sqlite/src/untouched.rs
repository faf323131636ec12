//! Reading a file that this process may not write.
//!
//! SQLite reads a file in WAL mode with the help of two files beside it, which it makes if they are not there; so it cannot
//! read one in a folder that it may not write, though all of it is in the one file. And where it may write the folder but not
//! the file, what it makes belongs to the wrong user, and keeps the writers out from then on.
//!
//! So nothing is made here. A file in WAL mode that nobody uses is read without locks: SQLite is told that it never changes
//! (`immutable`), for a single read, and whether that was so is seen to here. While there is nothing in a `-wal` or a `-journal`,
//! the file has all that was committed; and whoever writes into it changes its times. A read during which it changed is done
//! again. (`what_others_write_is_read_whole_or_not_at_all`)
//!
//! If there is something in a `-wal`, SQLite reads in its usual way, with what others have made; and so it does a file with a
//! rollback journal, for which a lock is enough. SQLite is only let at the file while it is locked here and that has been looked
//! at under the lock: the last of the others to close the file removes its `-wal`, and SQLite, in want of it, would make one, also
//! for who only reads. Once SQLite has read something, it has such a lock of its own for as long as the file is open.
//! (`a_reader_who_may_write_the_folder_makes_no_wal_that_keeps_the_writers_out`)
//!
//! That much is certain on 64-bit Linux, as long as the `-wal` is removed by SQLite and not by somebody else. Where the system
//! has no such locks ([`Header::hold`]), what is in a `-wal` is not read; a file with a rollback journal is, and
//! a `-wal` may be left beside it if it is put into WAL mode and closed between a look and the next moment. On systems other
//! than Linux nothing of this is promised.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use feast_registry_core::ErrorKind;
use rusqlite::{Connection, ErrorCode, ffi};

use crate::connection::{self, Location};
use crate::error::Problem;
use crate::files::beside;
use crate::header::{Header, Held, Identity, identity};

/// A file is believed not to have changed when its times have not, once they have been known for so long: the clock of a file
/// system goes on in steps, of up to 10 ms.
const SETTLED_AFTER: Duration = Duration::from_millis(25);

/// The same where times are kept in seconds, or in two of them: ext4 with small inodes, ext3, HFS+, FAT.
const SETTLED_IN_SECONDS_AFTER: Duration = Duration::from_millis(2025);

/// No clock of a file server is believed to be so wrong.
const LONG_AGO: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a read goes on that finds the other files in a state which lasts for a moment.
const MOMENTS: Duration = Duration::from_secs(5);

/// How long the remains of a write have to be there unchanged until they are not those of a write that is under way.
const REMAINS: Duration = Duration::from_millis(500);

/// A file that is only read.
#[derive(Debug)]
pub(crate) struct Untouched {
    location: Location,
    path: PathBuf,
    /// The file as it was last seen, and since when it is so.
    seen: Mutex<Option<(State, Instant)>>,
    /// The file, open for its header; it is only closed when another file has taken its place, and nobody reads this one any
    /// more.
    header: Mutex<Option<Arc<Header>>>,
    turns: Turns,
}

/// A file at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    resolved: PathBuf,
    length: u64,
    identity: Identity,
    times: Times,
}

/// When a file was written, and when it was last changed in any way, in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

impl Times {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let changed = {
            use std::os::unix::fs::MetadataExt as _;
            (metadata.ctime(), metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let changed = (0, 0);
        Self { modified: metadata.modified().ok(), changed }
    }

    /// For how long a file has to have been seen with these times until any change gives it others. If both are whole seconds,
    /// that is taken for all that the file system keeps.
    ///
    /// It is not the times that are compared with the clock of this machine, but how long ago they were seen first: the file
    /// may have its times from another machine's clock, or from somebody who set them. Only what is very old needs no rest.
    fn settle_after(self, now: SystemTime) -> Duration {
        let changed = u64::try_from(self.changed.0).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(changed));
        let is_fine = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since_epoch| since_epoch.subsec_nanos() != 0)
        };
        let is_old = |time: SystemTime| now.duration_since(time).is_ok_and(|age| age > LONG_AGO);
        let is_settled = self.changed.1 != 0
            || self.modified.is_some_and(is_fine)
            || [self.modified, changed].iter().all(|time| time.is_some_and(is_old));
        if is_settled { SETTLED_AFTER } else { SETTLED_IN_SECONDS_AFTER }
    }
}

impl State {
    fn of(path: &Path) -> io::Result<Self> {
        let resolved = path.canonicalize()?;
        let metadata = resolved.metadata()?;
        let (identity, times) = (identity(&metadata), Times::of(&metadata));
        Ok(Self { resolved, length: metadata.len(), identity, times })
    }

    /// Whether something of the database may be in another file than this one.
    fn has_more(&self) -> bool {
        self.has_wal() || self.has_journal()
    }

    fn has_wal(&self) -> bool {
        has_content(&beside(&self.resolved, "-wal"))
    }

    /// Whether something is to be undone, or may be; what is left of a journal that is done with begins with a zero.
    fn has_journal(&self) -> bool {
        let journal = beside(&self.resolved, "-journal");
        let mut first = [0];
        match File::open(&journal).and_then(|mut journal| journal.read_exact(&mut first)) {
            Ok(()) => first != [0],
            Err(_) => has_content(&journal),
        }
    }

    /// Whether its path still leads to the file that is open.
    fn is_of(&self, header: &Header) -> bool {
        self.resolved.metadata().is_ok_and(|metadata| identity(&metadata) == header.of())
    }
}

fn has_content(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.len() > 0)
}

impl Untouched {
    pub(crate) fn new(location: Location, path: PathBuf) -> Self {
        Self { location, path, seen: Mutex::default(), header: Mutex::default(), turns: Turns::default() }
    }

    /// Reads one state of the file. `work` is done again if the file has changed meanwhile, as long as somebody waits.
    ///
    /// # Errors
    /// What `work` fails with on a file that has not changed; `Unavailable` when the file is gone, or cannot be read without
    /// writing something.
    pub(crate) fn read<T>(
        &self,
        is_awaited: impl Fn() -> bool,
        work: impl Fn(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Problem> {
        let mut failing = None;
        loop {
            // SQLite's locks last no longer than this does.
            let (state, is_alone, header) = self.settled(&is_awaited)?;
            let read = {
                let turn = self.turns.take(is_alone, &is_awaited);
                let _turn = turn.ok_or_else(|| self.abandoned())?;
                let opened = if is_alone { open_alone(&state) } else { self.open_among_others(&state, &header)? };
                match opened {
                    Opened::Ready(mut connection) => work(&mut connection),
                    Opened::Failed(error) => Err(error),
                    Opened::Changed if is_awaited() => continue,
                    Opened::Changed => return Err(self.abandoned()),
                    Opened::Busy(_) if is_awaited() => {
                        thread::sleep(Duration::from_millis(5));
                        continue;
                    }
                    Opened::Busy(error) => return Err(self.problem(error, &state)),
                }
            };
            if is_alone && (self.state()? != state || state.has_more()) {
                if is_awaited() {
                    continue;
                }
                return Err(self.abandoned());
            }
            match read {
                Ok(read) => return Ok(read),
                // Another process is just beginning or ending to use the file, or to write.
                Err(error)
                    if !is_alone
                        && passes_within(&error, &state)
                            .is_some_and(|time| failing.get_or_insert_with(Instant::now).elapsed() < time)
                        && is_awaited() =>
                {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(self.problem(error, &state)),
            }
        }
    }

    fn abandoned(&self) -> Problem {
        let text = format!("{}: the file changed while it was read, and nobody waits any more", self.location);
        Problem::new(ErrorKind::DeadlineExceeded, text)
    }

    /// The file, and whether it is read without locks: then it has all of the database, and has been left alone for long enough
    /// that a change would be seen.
    fn settled(&self, is_awaited: impl Fn() -> bool) -> Result<(State, bool, Arc<Header>), Problem> {
        loop {
            let state = self.state()?;
            let header = self.header(&state).map_err(|error| self.unseen(&error))?;
            if header.of() != state.identity {
                // Another file has taken its place just now.
                if is_awaited() {
                    continue;
                }
                return Err(self.abandoned());
            }
            if state.has_more() || !header.says_wal().map_err(|error| self.unseen(&error))? {
                return Ok((state, false, header));
            }
            let since = {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                match &*seen {
                    Some((known, since)) if *known == state => *since,
                    _ => seen.insert((state.clone(), Instant::now())).1,
                }
            };
            match state.times.settle_after(SystemTime::now()).checked_sub(since.elapsed()) {
                Some(_) if !is_awaited() => return Err(self.abandoned()),
                Some(rest) if !rest.is_zero() => thread::sleep(rest),
                _ => return Ok((state, true, header)),
            }
        }
    }

    /// The file that is at the path now, which may be another one than was looked at.
    fn header(&self, state: &State) -> io::Result<Arc<Header>> {
        let mut open = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        match &*open {
            Some(header) if header.of() == state.identity => Ok(Arc::clone(header)),
            _ => Ok(Arc::clone(open.insert(Arc::new(Header::open(&state.resolved)?)))),
        }
    }

    fn state(&self) -> Result<State, Problem> {
        State::of(&self.path).map_err(|error| self.unseen(&error))
    }

    fn unseen(&self, error: &io::Error) -> Problem {
        let text = format!("{}: the file cannot be looked at ({error}); is it still there?", self.location);
        Problem::new(ErrorKind::Unavailable, text)
    }

    /// Opens a file that others may be using, so that SQLite finds what it needs, and locks it.
    fn open_among_others(&self, state: &State, header: &Header) -> Result<Opened, Problem> {
        let unseen = |error| self.unseen(&error);
        let held = match header.hold() {
            Ok(Some(held)) => Some(held),
            Ok(None) => return Ok(Opened::Busy(failure(ffi::SQLITE_BUSY))),
            Err(_) if !header.says_wal().map_err(unseen)? => None,
            Err(error) => {
                return Err(Problem::new(
                    ErrorKind::Unavailable,
                    format!(
                        "{}: commits are in its `-wal`, and the file cannot be locked for them to be read ({error}); serve it \
                         where its file system and its kernel have locks (F_OFD_SETLK), or where it can be written",
                        self.location
                    ),
                ));
            }
        };
        let says_wal = held.as_ref().map_or_else(|| header.says_wal(), Held::says_wal).map_err(unseen)?;
        if says_wal && !state.has_wal() {
            // SQLite would make it. What is left of a write is not its business then either.
            let is_unfinished = state.has_journal();
            return Ok(if is_unfinished {
                Opened::Failed(failure(ffi::SQLITE_READONLY_ROLLBACK))
            } else {
                Opened::Changed
            });
        }
        // The one that is made for `-shm` would be this user's own.
        let opened = connection::open_untouched(&state.resolved, "readonly_shm=1").and_then(|connection| {
            if !state.is_of(header) {
                return Ok(None);
            }
            if !says_wal {
                // Else SQLite gives the lock back between two transactions.
                connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            }
            // From here on SQLite has its own lock.
            connection.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))?;
            Ok(Some(connection))
        });
        drop(held);
        Ok(match opened {
            Ok(Some(connection)) => Opened::Ready(connection),
            Ok(None) => Opened::Changed,
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Opened::Busy(error),
            Err(error) => Opened::Failed(error),
        })
    }

    fn problem(&self, error: rusqlite::Error, state: &State) -> Problem {
        let file = state.resolved.display();
        let code = error.sqlite_error().map(|error| (error.code, error.extended_code));
        let remedy = format!(
            "open it once with a user who may write the file and its folder, as with `sqlite3 {file} 'PRAGMA \
             wal_checkpoint(TRUNCATE)'`, or copy it with `.backup` of sqlite3 instead of cp"
        );
        match code {
            Some((ErrorCode::CannotOpen, _)) if state.has_wal() => Problem::new(
                ErrorKind::Unavailable,
                format!(
                    "{}: commits are in `{file}-wal`, which cannot be read without `{file}-shm`, and that is not there or \
                     cannot be read; {remedy} ({error})",
                    self.location
                ),
            ),
            Some((_, ffi::SQLITE_READONLY_ROLLBACK)) => Problem::new(
                ErrorKind::Unavailable,
                format!(
                    "{}: a write was interrupted, and what is left of it has to be undone; {remedy} ({error})",
                    self.location
                ),
            ),
            Some((ErrorCode::ReadOnly, _)) => Problem::new(
                ErrorKind::Unavailable,
                format!(
                    "{}: it cannot be read just now without writing something; try again, and if that does not help, {remedy} \
                     ({error})",
                    self.location
                ),
            ),
            _ => Problem::of(error, &self.location),
        }
    }
}

/// What became of an attempt to open a file.
enum Opened {
    Ready(Connection),
    Failed(rusqlite::Error),
    /// It is no longer as it was when it was looked at.
    Changed,
    /// Somebody has it to himself.
    Busy(rusqlite::Error),
}

/// Opens a file that is taken to stay as it is.
fn open_alone(state: &State) -> Opened {
    connection::open_untouched(&state.resolved, "immutable=1").map_or_else(Opened::Failed, Opened::Ready)
}

fn failure(code: i32) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

/// How long an error may go on that tells of a moment in which another process opens or closes the file, or writes into it.
fn passes_within(error: &rusqlite::Error, state: &State) -> Option<Duration> {
    match error.sqlite_error().map(|error| (error.code, error.extended_code)) {
        // A journal that is just being written may look as one that was left behind.
        Some((_, ffi::SQLITE_READONLY_ROLLBACK)) => Some(REMAINS),
        // Nothing is written here, but SQLite may find that it would have to.
        Some((ErrorCode::ReadOnly, _)) => Some(MOMENTS),
        Some((ErrorCode::CannotOpen, _)) if !state.has_wal() => Some(MOMENTS),
        _ => None,
    }
}

/// Keeps apart those who read with locks and those who read without: a file that is closed takes all locks of its process
/// along, also those that another connection has, unless SQLite knows of both, and of the latter it does not.
#[derive(Debug, Default)]
struct Turns {
    /// How many read without locks, or, below 0, with.
    reading: Mutex<isize>,
    changed: Condvar,
}

impl Turns {
    /// Waits while `is_awaited` says so.
    fn take(&self, is_alone: bool, is_awaited: impl Fn() -> bool) -> Option<Turn<'_>> {
        const BETWEEN_LOOKS: Duration = Duration::from_millis(25);
        let step = if is_alone { 1 } else { -1 };
        let mut reading = self.reading();
        while *reading * step < 0 {
            if !is_awaited() {
                return None;
            }
            let waited = self.changed.wait_timeout(reading, BETWEEN_LOOKS);
            reading = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *reading += step;
        Some(Turn { turns: self, step })
    }

    fn reading(&self) -> MutexGuard<'_, isize> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to read in one of the two ways.
struct Turn<'a> {
    turns: &'a Turns,
    step: isize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.turns.reading() -= self.step;
        self.turns.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
