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

/// Fault: where times are kept in seconds, a second commit within one left them as they were, and half of it was read.
#[test]
fn times_in_whole_seconds_are_believed_when_they_have_rested() {
    let at = |seconds: u64, nanos: u32| SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    let now = at(1_700_000_000, 7);
    let settle_after =
        |modified: SystemTime, changed: (i64, i64)| Times { modified: Some(modified), changed }.settle_after(now);
    for seconds in [1_700_000_000, 1_699_999_000, 1_700_000_001, 1_800_000_000] {
        let same = i64::try_from(seconds).expect("a time");
        assert_eq!(settle_after(at(seconds, 0), (same, 0)), SETTLED_IN_SECONDS_AFTER, "{seconds}");
        // One that has more than seconds is of a file system that keeps more, if somebody set the other.
        assert_eq!(settle_after(at(seconds, 0), (same, 1)), SETTLED_AFTER, "{seconds}");
        assert_eq!(settle_after(at(seconds, 1), (same, 0)), SETTLED_AFTER, "{seconds}");
    }
    // Of an image that was made long ago; but not if only one of its times is so old.
    assert_eq!(settle_after(at(0, 0), (0, 0)), SETTLED_AFTER);
    assert_eq!(settle_after(at(0, 0), (1_700_000_000, 0)), SETTLED_IN_SECONDS_AFTER);
    assert_eq!(settle_after(at(1_700_000_000, 0), (0, 0)), SETTLED_IN_SECONDS_AFTER);
    assert_eq!(Times { modified: None, changed: (0, 0) }.settle_after(now), SETTLED_IN_SECONDS_AFTER);
}

/// Fault: the file that was opened was taken for the one that had been looked at; to open it again and to close this one
/// took SQLite's locks on it along.
#[test]
#[cfg(unix)]
fn a_file_that_is_replaced_after_the_look_is_known_for_what_it_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, other) = (folder.path().join("registry.db"), folder.path().join("other.db"));
    make(&path, "DELETE");
    make(&other, "DELETE");
    let reader = untouched(&path);
    let before = reader.state().expect("the file is there");
    std::fs::rename(&other, &path).expect("another in its place");
    let opened = reader.header(&before).expect("it is opened");
    let now = reader.state().expect("the file is there");
    assert_ne!(before.identity, now.identity);
    assert_eq!(opened.of(), now.identity);
    assert!(Arc::ptr_eq(&opened, &reader.header(&now).expect("it is open")), "it is not opened again");
}

/// SQLite leaves it so where the journal was kept (`PERSIST`) until the file was put into WAL mode.
#[test]
fn what_is_left_of_a_journal_beside_a_file_in_wal_mode_is_passed_over_and_no_wal_is_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("registry.db");
    make(&path, "WAL");
    let journal = beside(&path, "-journal");
    std::fs::write(&journal, [0; 512]).expect("a journal");
    let read = || untouched(&path).read(|| true, |connection| numbers(connection));
    assert_eq!(read().expect("the file is read"), (ROWS, 0, 0));
    std::fs::write(&journal, [7; 512]).expect("a journal");
    let text = feast_registry_core::Error::from(read().expect_err("it would have to be undone")).to_string();
    assert!(text.contains("interrupted"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 2, "nothing was made");
}

/// Users that need not exist: the one whose the file is, and one who may read it.
#[cfg(unix)]
const WRITER: u32 = 64001;
#[cfg(unix)]
const READER: u32 = 65534;

/// Starts one of the tests below as another user.
#[cfg(unix)]
fn start_as(user: u32, program: &Path, test: &str, path: &Path) -> Child {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(program);
    command.args(["--exact", &format!("untouched::tests::{test}")]).env(OF_ANOTHER_USER, path);
    command.uid(user).gid(user).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a process")
}

/// Where a process of another user finds the file.
const OF_ANOTHER_USER: &str = "UNTOUCHED_OF_ANOTHER_USER";

/// Whether the standard input of this process has ended, with which it was started to be told that it is enough.
fn until_told() -> Arc<std::sync::atomic::AtomicBool> {
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = Arc::clone(&is_over);
    thread::spawn(move || {
        // Whatever comes of it, it is over.
        let _ended = io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    is_over
}

/// What the writer does whom the file belongs to; nothing in an ordinary run.
#[test]
fn writer_who_opens_and_closes() {
    let Some(path) = std::env::var_os(OF_ANOTHER_USER) else { return };
    let is_over = until_told();
    while !is_over.load(Ordering::Relaxed) {
        let connection = Connection::open(&path).expect("the file");
        connection.busy_timeout(Duration::from_secs(10)).expect("a timeout");
        connection.execute_batch("PRAGMA synchronous = OFF; UPDATE t SET v = v + 1").expect("a commit");
        drop(connection);
        thread::sleep(Duration::from_millis(10));
    }
}

/// What the reader does who may not write the file; nothing in an ordinary run.
#[test]
fn reader_who_may_not_write() {
    let Some(path) = std::env::var_os(OF_ANOTHER_USER).map(PathBuf::from) else { return };
    let (reader, is_over) = (untouched(&path), until_told());
    let reads = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let until = Instant::now() + Duration::from_secs(20);
                    let read = reader.read(
                        || Instant::now() < until,
                        |connection| {
                            connection.busy_timeout(Duration::from_secs(10))?;
                            numbers(connection)
                        },
                    );
                    let (count, least, most) = read.expect("the file is read");
                    assert_eq!((count, least), (ROWS, most), "half of a commit");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    // How often, says how busy the machine is.
    assert!(reads.into_inner() > 0, "it was read");
}

/// Fault: when the last writer closed the file between the look at its `-wal` and the opening, SQLite made a `-wal` that
/// belonged to the reader, and the writers could not write any more.
#[test]
#[cfg(unix)]
fn a_reader_who_may_write_the_folder_makes_no_wal_that_keeps_the_writers_out() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    use std::os::unix::process::CommandExt as _;
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
    };
    let is_root = Command::new("true").uid(READER).gid(READER).status().is_ok_and(|status| status.success());
    if !is_root {
        assert!(std::env::var_os("CI").is_none(), "NOT CHECKED: what another user's reads leave; run this as root");
        eprintln!("NOT CHECKED: what another user's reads leave; run this test as root");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    set_mode(folder.path(), 0o755);
    // Where others can run it, whoever may look into the folder that it was built in.
    let program = folder.path().join("program");
    std::fs::copy(std::env::current_exe().expect("this program"), &program).expect("a copy");
    set_mode(&program, 0o755);
    let shared = folder.path().join("shared");
    std::fs::create_dir(&shared).expect("a folder");
    set_mode(&shared, 0o777);
    let path = shared.join("registry.db");
    make(&path, "WAL");
    set_mode(&path, 0o644);
    chown(&path, Some(WRITER), Some(WRITER)).expect("another owner");
    let mut reader = start_as(READER, &program, "reader_who_may_not_write", &path);
    let mut writer = start_as(WRITER, &program, "writer_who_opens_and_closes", &path);
    let until = Instant::now() + Duration::from_secs(4);
    let mut left = Vec::new();
    while Instant::now() < until && left.is_empty() {
        let files = std::fs::read_dir(&shared).expect("the folder").flatten();
        left.extend(files.filter(|file| file.metadata().is_ok_and(|file| file.uid() == READER)));
        thread::sleep(Duration::from_millis(1));
    }
    for process in [&mut writer, &mut reader] {
        drop(process.stdin.take());
    }
    let ended = [writer, reader].map(|mut process| process.wait().expect("it ends").success());
    assert!(left.is_empty(), "{left:?} belong to the reader");
    assert_eq!(ended, [true, true], "whether the writer could write, and the reader read");
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
