//! Reading a file that this process may not write.
//!
//! SQLite reads a file in WAL mode with the help of two files beside it, which it makes if they are not there; so it cannot
//! read one in a folder that it may not write, though all of it is in the one file. And where it may write the folder but not
//! the file, what it makes belongs to the wrong user, and keeps the writers out from then on.
//!
//! So nothing is made here. A file with a rollback journal is read with a lock, as SQLite does, for which it need not be written.
//! One in WAL mode that nobody uses is read without: SQLite is told that the file never changes (`immutable`), for a single read,
//! and whether that was so is seen to here. While there is nothing in a `-wal` or a `-journal`, the file has all that was
//! committed; and whoever writes into it changes its times. A read during which it changed is done again. If there is something
//! in a `-wal`, SQLite reads in its usual way, with what others have made.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use feast_registry_core::ErrorKind;
use rusqlite::{Connection, ErrorCode, ffi};

use crate::connection::{self, Location};
use crate::error::Problem;
use crate::files::beside;

/// A file is believed not to have changed when its times have not, once they have been known for so long: the clock of a file
/// system goes on in steps, of up to 10 ms.
const SETTLED_AFTER: Duration = Duration::from_millis(25);

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
    /// The file, open for its header: to close it takes all locks along that this process has on it, so that is only done
    /// when another file has taken its place, and nobody reads this one any more.
    header: Mutex<Option<Arc<Header>>>,
    turns: Turns,
}

/// A file that is open for its header.
#[derive(Debug)]
struct Header {
    /// Device and inode.
    of: (u64, u64),
    file: Mutex<File>,
}

impl Header {
    /// Whether SQLite keeps the file in WAL mode: its format for writing and for reading. An empty file is in no mode yet.
    fn says_wal(&self) -> io::Result<bool> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(io::SeekFrom::Start(18))?;
        let mut formats = [0; 2];
        match file.read_exact(&mut formats) {
            Ok(()) => Ok(formats.contains(&2)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A file at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    resolved: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
    /// Device and inode, and when it was last changed in any way.
    identity: (u64, u64, i64, i64),
}

impl State {
    fn of(path: &Path) -> io::Result<Self> {
        let resolved = path.canonicalize()?;
        let metadata = resolved.metadata()?;
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt;
            (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let identity = (0, 0, 0, 0);
        Ok(Self { resolved, length: metadata.len(), modified: metadata.modified().ok(), identity })
    }

    /// Whether something of the database may be in another file than this one.
    fn has_more(&self) -> bool {
        self.has_wal() || has_content(&beside(&self.resolved, "-journal"))
    }

    fn has_wal(&self) -> bool {
        has_content(&beside(&self.resolved, "-wal"))
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
            // A lock is kept while this is.
            let (state, is_alone, _header) = self.settled(&is_awaited)?;
            let read = {
                let turn = self.turns.take(is_alone, &is_awaited);
                let _turn = turn.ok_or_else(|| self.abandoned())?;
                self.open(&state, is_alone).and_then(|mut connection| work(&mut connection))
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
            match SETTLED_AFTER.checked_sub(since.elapsed()) {
                Some(_) if !is_awaited() => return Err(self.abandoned()),
                Some(rest) if !rest.is_zero() => thread::sleep(rest),
                _ => return Ok((state, true, header)),
            }
        }
    }

    fn header(&self, state: &State) -> io::Result<Arc<Header>> {
        let of = (state.identity.0, state.identity.1);
        let mut open = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        match &*open {
            Some(header) if header.of == of => Ok(Arc::clone(header)),
            _ => {
                let file = Mutex::new(File::open(&state.resolved)?);
                Ok(Arc::clone(open.insert(Arc::new(Header { of, file }))))
            }
        }
    }

    fn state(&self) -> Result<State, Problem> {
        State::of(&self.path).map_err(|error| self.unseen(&error))
    }

    fn unseen(&self, error: &io::Error) -> Problem {
        let text = format!("{}: the file cannot be looked at ({error}); is it still there?", self.location);
        Problem::new(ErrorKind::Unavailable, text)
    }

    fn open(&self, state: &State, is_alone: bool) -> rusqlite::Result<Connection> {
        // The one that is made for `-shm` would be this user's own.
        connection::open_untouched(&state.resolved, if is_alone { "immutable=1" } else { "readonly_shm=1" })
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
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Where a process of its own finds the file that it writes, and in which journal mode.
    const WRITES: &str = "UNTOUCHED_WRITES";

    const ROWS: i64 = 60;

    fn untouched(path: &Path) -> Untouched {
        Untouched::new(Location::file(path), path.to_owned())
    }

    /// Rows on pages of their own that all have the same number, which grows by one with each commit.
    fn make(path: &Path, mode: &str) {
        let made = Connection::open(path).expect("a file");
        made.pragma_update_and_check(None, "journal_mode", mode, |_| Ok(())).expect("a mode");
        let rows = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {ROWS})");
        made.execute_batch(&format!(
            "CREATE TABLE t (v INTEGER, filler BLOB); INSERT INTO t {rows} SELECT 0, zeroblob(3000) FROM n"
        ))
        .expect("rows");
    }

    fn numbers(connection: &Connection) -> rusqlite::Result<(i64, i64, i64)> {
        connection
            .query_row("SELECT count(*), min(v), max(v) FROM t", (), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
    }

    /// The same, in two halves, between which others may write.
    fn numbers_slowly(connection: &Connection) -> rusqlite::Result<(i64, i64, i64)> {
        let half = |of: &str| {
            let query = format!("SELECT count(*), min(v), max(v) FROM t WHERE rowid {of} 30");
            connection.query_row(&query, (), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        };
        connection.execute_batch("BEGIN")?;
        let one: (i64, i64, i64) = half("<=")?;
        thread::sleep(Duration::from_millis(30));
        let other: (i64, i64, i64) = half(">")?;
        connection.execute_batch("COMMIT")?;
        Ok((one.0 + other.0, one.1.min(other.1), one.2.max(other.2)))
    }

    /// Another process: one that closes a file takes all locks along that its process has on it.
    fn start_writer(path: &Path, mode: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "untouched::tests::writer"]).env(WRITES, format!("{mode} {}", path.display()));
        command.stdout(Stdio::null()).spawn().expect("a process")
    }

    /// What that process does; nothing in an ordinary run.
    #[test]
    fn writer() {
        let Ok(task) = std::env::var(WRITES) else { return };
        let path = task.split_once(' ').expect("a mode and a path").1;
        loop {
            let connection = Connection::open(path).expect("the file");
            connection.busy_timeout(Duration::from_secs(10)).expect("a timeout");
            for _ in 0..4 {
                connection.execute("UPDATE t SET v = v + 1", ()).expect("a commit");
                thread::sleep(Duration::from_millis(2));
            }
            drop(connection);
            thread::sleep(Duration::from_millis(80));
        }
    }

    /// The writer makes the file of the WAL and removes it, writes the WAL into the database, and rests.
    #[test]
    fn what_others_write_is_read_whole_or_not_at_all() {
        for mode in ["WAL", "DELETE", "TRUNCATE"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("registry.db");
            make(&path, mode);
            let reader = untouched(&path);
            let mut writer = start_writer(&path, mode);
            let (alone, reads) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let last = Mutex::new(0);
            let until = Instant::now() + Duration::from_secs(3);
            thread::scope(|scope| {
                for pause in [25, 40] {
                    let (reader, last, reads, alone) = (&reader, &last, &reads, &alone);
                    scope.spawn(move || {
                        while Instant::now() < until {
                            let before = *last.lock().expect("no panic");
                            let read = reader.read(
                                || true,
                                |connection| {
                                    connection.busy_timeout(Duration::from_secs(10))?;
                                    numbers_slowly(connection)
                                },
                            );
                            let (count, least, most) = read.expect("the file is read");
                            assert_eq!((count, least), (ROWS, most), "{mode}: half of a commit");
                            assert!(least >= before, "{mode}: {least} after {before}");
                            let mut last = last.lock().expect("no panic");
                            *last = most.max(*last);
                            reads.fetch_add(1, Ordering::Relaxed);
                            let state = reader.state().expect("the file is there");
                            alone.fetch_add(usize::from(!state.has_more()), Ordering::Relaxed);
                            // A writer cannot remove its WAL while somebody reads from it.
                            thread::sleep(Duration::from_millis(pause));
                        }
                    });
                }
            });
            writer.kill().and_then(|()| writer.wait()).expect("the writer ran until now");
            let (alone, reads) = (alone.into_inner(), reads.into_inner());
            // With a journal all are locked, whether it is there just now or not.
            let is_mixed = alone > 0 && (alone < reads || mode != "WAL");
            assert!(is_mixed, "{mode}: {alone} of {reads} reads were of the file alone");
            assert!(last.into_inner().expect("no panic") > 20, "{mode}: the writer wrote");
        }
    }

    /// Fault: half of what was being written was read.
    #[test]
    fn what_is_written_without_a_journal_is_waited_for() {
        for mode in ["MEMORY", "OFF"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("registry.db");
            make(&path, "DELETE");
            let reader = untouched(&path);
            let read = |patience: Duration| {
                let until = Instant::now() + patience;
                let is_awaited = || Instant::now() < until;
                reader.read(is_awaited, |connection| {
                    connection.busy_timeout(patience)?;
                    numbers(connection)
                })
            };
            assert_eq!(read(Duration::from_secs(10)).expect("the file is read"), (ROWS, 0, 0));
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.args(["--exact", "untouched::tests::writer_in_the_middle"]);
            let mut writer = command
                .env(IN_THE_MIDDLE, format!("{mode} {}", path.display()))
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("a process");
            let marker = folder.path().join("written");
            while !marker.exists() {
                thread::sleep(Duration::from_millis(5));
            }
            read(Duration::from_millis(100)).expect_err("it is being written");
            drop(writer.stdin.take());
            assert!(writer.wait().expect("it ends").success());
            assert_eq!(read(Duration::from_secs(10)).expect("the file is read"), (ROWS, 1, 1), "{mode}");
        }
    }

    /// Where another process finds the file that it is to write a part of, and in which journal mode.
    const IN_THE_MIDDLE: &str = "UNTOUCHED_IN_THE_MIDDLE";

    /// What that process does; nothing in an ordinary run.
    #[test]
    fn writer_in_the_middle() {
        let Ok(task) = std::env::var(IN_THE_MIDDLE) else { return };
        let (mode, path) = task.split_once(' ').expect("a mode and a path");
        let connection = Connection::open(path).expect("the file");
        connection.pragma_update_and_check(None, "journal_mode", mode, |_| Ok(())).expect("a mode");
        // What does not fit into its memory is written into the file.
        connection.execute_batch("PRAGMA cache_size = 10; BEGIN; UPDATE t SET v = v + 1").expect("a write");
        std::fs::write(Path::new(path).with_file_name("written"), "").expect("a file");
        io::stdin().read_to_end(&mut Vec::new()).expect("the end");
        connection.execute_batch("COMMIT").expect("a commit");
    }

    /// Fault: a file that never rested was looked at for ever, also when nobody waited any more.
    #[test]
    fn a_read_that_nobody_waits_for_ends_though_the_file_changes_all_the_time() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("registry.db");
        make(&path, "WAL");
        let (reader, is_over) = (untouched(&path), std::sync::atomic::AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                let file = File::options().append(true).open(&path).expect("the file");
                while !is_over.load(Ordering::Relaxed) {
                    file.set_modified(SystemTime::now()).expect("another time");
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let until = Instant::now() + Duration::from_millis(200);
            let read = reader.read(|| Instant::now() < until, |connection| numbers(connection));
            is_over.store(true, Ordering::Relaxed);
            let error = feast_registry_core::Error::from(read.expect_err("it never rests"));
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
            assert!(until.elapsed() < Duration::from_secs(5));
        });
    }

    /// Fault: SQLite says so for a moment while others begin or end, and it was taken for the last word.
    #[test]
    fn that_something_would_have_to_be_written_passes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("registry.db");
        make(&path, "DELETE");
        let tries = AtomicUsize::new(0);
        for code in [ffi::SQLITE_READONLY, ffi::SQLITE_READONLY_ROLLBACK, ffi::SQLITE_READONLY_DBMOVED] {
            let read = untouched(&path).read(
                || true,
                |connection| match tries.fetch_add(1, Ordering::Relaxed) % 2 {
                    0 => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
                    _ => numbers(connection),
                },
            );
            assert_eq!(read.expect("it is read"), (ROWS, 0, 0), "{code}");
        }
    }

    /// Fault: SQLite makes them for a reader too, and they belong to him: the writers are kept out from then on.
    #[test]
    fn a_read_leaves_nothing_beside_the_file() {
        for mode in ["WAL", "DELETE"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("registry.db");
            make(&path, mode);
            let before = std::fs::read(&path).expect("the file");
            for _ in 0..2 {
                let read = untouched(&path).read(|| true, |connection| numbers(connection));
                assert_eq!(read.expect("the file is read"), (ROWS, 0, 0), "{mode}");
            }
            assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1, "{mode}");
            assert_eq!(std::fs::read(&path).expect("the file"), before, "{mode}");
        }
    }

    /// To pass over it would be to answer with what was before.
    #[test]
    fn a_wal_that_cannot_be_read_is_an_error_with_a_remedy() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("registry.db");
        make(&path, "WAL");
        let writer = Connection::open(&path).expect("the file");
        writer.execute("UPDATE t SET v = 7", ()).expect("a commit");
        // As after a crash, or copied by somebody who did not know better.
        let copy = folder.path().join("copy.db");
        std::fs::copy(&path, &copy).expect("a copy");
        std::fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).expect("a copy");
        let problem = untouched(&copy).read(|| true, |connection| numbers(connection)).expect_err("it cannot be read");
        let text = feast_registry_core::Error::from(problem).to_string();
        assert!(text.contains("copy.db-shm`") && text.contains("wal_checkpoint"), "{text}");
        assert!(!beside(&copy, "-shm").exists(), "nothing was made");
        // With it, it can.
        std::fs::copy(beside(&path, "-shm"), beside(&copy, "-shm")).expect("a copy");
        let read = untouched(&copy).read(|| true, |connection| numbers(connection));
        assert_eq!(read.expect("the file is read"), (ROWS, 7, 7));
    }

    #[test]
    fn a_file_that_is_gone_is_told_and_one_in_its_place_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("registry.db");
        make(&path, "DELETE");
        let reader = untouched(&path);
        std::fs::rename(&path, folder.path().join("other.db")).expect("a name");
        let problem = reader.read(|| true, |connection| numbers(connection)).expect_err("it is gone");
        let text = feast_registry_core::Error::from(problem).to_string();
        assert!(text.contains("registry.db") && text.contains("still there"), "{text}");
        // Another one in its place is read as it is: nothing is kept of the first.
        make(&path, "WAL");
        assert_eq!(reader.read(|| true, |connection| numbers(connection)).expect("another file"), (ROWS, 0, 0));
    }
}
