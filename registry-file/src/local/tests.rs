//! What cannot be brought about from outside: disks that fail, clocks that are wrong, waiting that is cut short.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use feast_registry_core::wire;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn patience() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// A registry as Feast serializes it: what it holds first, then the version of the format, then the `version_id`.
fn feasts(version: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::put(&mut bytes, 1, b"");
    wire::put(&mut bytes, 3, b"1");
    wire::put(&mut bytes, 4, format!("00000000-0000-4000-8000-{version:012}").as_bytes());
    bytes
}

fn ours(version: u32) -> Bytes {
    let mut bytes = Vec::new();
    wire::put(&mut bytes, 4, format!("00000000-0000-4000-8000-{version:012}").as_bytes());
    wire::put(&mut bytes, 3, b"1");
    bytes.into()
}

/// Writes in place, and gives the file a time.
fn write_at(path: &Path, bytes: &[u8], time: SystemTime) {
    fs::write(path, bytes).expect("a write in place");
    let file = File::options().write(true).open(path).expect("the file");
    file.set_modified(time).expect("its time can be set");
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).max_blocking_threads(2).enable_all().build().expect("a runtime").block_on(test)
}

async fn changed(file: &LocalFile) -> (Bytes, Tag) {
    match file.load(None, &patience()).await.expect("a registry that can be read") {
        Loaded::Changed(bytes, tag) => (bytes, tag),
        other => panic!("{other:?}"),
    }
}

fn clocks() -> [(&'static str, SystemTime); 4] {
    let now = SystemTime::now();
    [("past", SystemTime::UNIX_EPOCH), ("skewed back", now - HOUR), ("now", now), ("future", now + HOUR)]
}

#[test]
fn feasts_file_is_believed_once_it_is_left_alone_whatever_its_time_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("registry.db");
    for (when, time) in clocks() {
        write_at(&path, &feasts(1), time);
        let file = LocalFile::new(path.clone());
        let (opened, identity) = file.open().expect("a look").expect("a file");
        let soon = file.read(opened, &identity, Duration::from_millis(19)).expect("a read");
        assert_eq!(soon, None, "{when}: it may be half written");
        run(async {
            let began = Instant::now();
            let (bytes, tag) = changed(&file).await;
            assert!(began.elapsed() >= Duration::from_millis(20), "{when}: believed at once");
            assert!(began.elapsed() < Duration::from_millis(700), "{when}: {:?}", began.elapsed());
            assert_eq!(bytes, feasts(1));
            assert!(matches!(file.load(Some(&tag), &patience()).await, Ok(Loaded::Unchanged)), "{when}: read twice");
            let turn = file.lock(&patience()).await.expect("the lock");
            let swapped = file.swap(Some(&tag), ours(2), &patience()).await;
            assert!(matches!(swapped, Ok(Swapped::Done(_))), "{when}: {swapped:?}");
            drop(turn);
        });
        fs::remove_file(&path).expect("the file");
    }
}

#[test]
fn a_change_is_seen_where_the_time_and_the_size_stay_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("registry.db");
    let file = LocalFile::new(path.clone());
    for (when, time) in clocks() {
        write_at(&path, &feasts(1), time);
        let (_, tag) = run(changed(&file));
        write_at(&path, &feasts(2), time);
        assert!(matches!(run(file.load(Some(&tag), &patience())), Ok(Loaded::Changed(..))), "{when}: not seen");
        // And what was read from the one is not written over the other.
        let swapped = run(async {
            let _turn = file.lock(&patience()).await.expect("the lock");
            file.swap(Some(&tag), ours(3), &patience()).await
        });
        assert!(matches!(swapped, Ok(Swapped::Changed)), "{when}: {swapped:?}");
        // As a file system would have it that keeps no finer times than the second.
        let (_, same) = file.open().expect("a look").expect("a file");
        assert!(file.is_in(&State::new(same.clone(), &feasts(2))).expect("a look"), "{when}");
        assert!(!file.is_in(&State::new(same, &feasts(1))).expect("a look"), "{when}: not told apart");
    }
}

#[test]
fn what_is_not_whole_is_broken_only_when_it_stays_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("registry.db");
    for torn in [feasts(1).len() - 1, ours(1).len() - 1, 0] {
        let whole = if torn == ours(1).len() - 1 { ours(1).to_vec() } else { feasts(1) };
        write_at(&path, &whole[..torn], SystemTime::UNIX_EPOCH);
        let file = LocalFile::new(path.clone());
        let look = |left_alone| {
            let (opened, identity) = file.open().expect("a look").expect("a file");
            file.read(opened, &identity, left_alone).expect("a read")
        };
        assert_eq!(look(Duration::from_millis(999)), None, "{torn} bytes");
        assert_eq!(look(Duration::from_secs(1)).as_deref(), Some(&whole[..torn]), "{torn} bytes");
    }
}

/// A disk whose folder cannot be synced as long as it is broken.
fn on_a_broken_disk(path: PathBuf) -> (LocalFile, Arc<AtomicBool>) {
    let is_broken = Arc::new(AtomicBool::new(false));
    let broken = Arc::clone(&is_broken);
    let sync = move |_: &File| if broken.load(Ordering::SeqCst) { Err(io::Error::other("EIO")) } else { Ok(()) };
    (LocalFile::with(path, sync), is_broken)
}

#[test]
fn nothing_is_acknowledged_until_the_folder_is_synced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("registry.db");
    let (file, is_broken) = on_a_broken_disk(path.clone());
    run(async {
        let turn = file.lock(&patience()).await.expect("the lock");
        is_broken.store(true, Ordering::SeqCst);
        let failure = file.swap(None, ours(1), &patience()).await.expect_err("the folder is not synced");
        assert!(failure.is_in_doubt);
        let text = failure.error.to_string();
        assert!(text.contains("registry.db") && text.contains("in place, but may not survive a crash"), "{text}");
        assert_eq!(fs::read(&path).expect("the file"), ours(1), "it is in place");
        drop(turn);
        // Whoever decides anything from it waits for the disk: here, and in another process.
        assert_eq!(file.lock(&patience()).await.expect_err("a broken disk").kind(), ErrorKind::Unavailable);
        let (elsewhere, is_broken_there) = on_a_broken_disk(path.clone());
        is_broken_there.store(true, Ordering::SeqCst);
        assert_eq!(elsewhere.lock(&patience()).await.expect_err("a broken disk").kind(), ErrorKind::Unavailable);

        is_broken.store(false, Ordering::SeqCst);
        let turn = file.lock(&patience()).await.expect("the disk is well");
        let (_, tag) = changed(&file).await;
        is_broken.store(true, Ordering::SeqCst);
        let error = file.remove(&tag, Bytes::new()).await.expect_err("the folder is not synced");
        assert!(error.to_string().contains("may not survive a crash"), "{error}");
        drop(turn);
        file.lock(&patience()).await.expect_err("that it is removed is not synced either");
        is_broken.store(false, Ordering::SeqCst);
        file.lock(&patience()).await.expect("the disk is well");
    });
}

#[test]
fn a_sync_that_fails_for_a_moment_is_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let sync = move |_: &File| match counted.fetch_add(1, Ordering::SeqCst) {
        1..=3 => Err(io::Error::other("EIO")),
        _ => Ok(()),
    };
    let file = LocalFile::with(folder.path().join("registry.db"), sync);
    let swapped = run(async {
        let _turn = file.lock(&patience()).await.expect("the lock");
        file.swap(None, ours(1), &patience()).await
    });
    assert!(matches!(swapped, Ok(Swapped::Done(_))), "{swapped:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 5);
}

#[test]
fn a_commit_is_acknowledged_after_a_sync_that_succeeds() {
    let folder = tempfile::tempdir().expect("a folder");
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    // The first sync is that of the folder as it is found; the write's own fail, and so do those of the next look.
    let sync = move |_: &File| match counted.fetch_add(1, Ordering::SeqCst) {
        1..=9 => Err(io::Error::other("EIO")),
        _ => Ok(()),
    };
    let file = LocalFile::with(folder.path().join("registry.db"), sync);
    let backend = crate::FileBackend::on(file, crate::SchemaMode::Auto);
    let prepared = run(async { feast_registry_core::Backend::prepare(&backend, &patience()).await });
    prepared.expect("a registry, in the end");
    assert_eq!(calls.load(Ordering::SeqCst), 11, "it is acknowledged after the sync that succeeds, and no later");
}

#[cfg(target_os = "linux")]
#[test]
fn who_waits_for_the_lock_in_vain_leaves_nothing_behind() {
    let threads = || fs::read_dir("/proc/self/task").expect("this process's threads").count();
    let folder = tempfile::tempdir().expect("a folder");
    let file = LocalFile::new(folder.path().join("registry.db"));
    run(async {
        // Another process, as far as the lock can tell.
        let other = LocalFile::new(folder.path().join("registry.db")).lock(&patience()).await.expect("the lock");
        let before = threads();
        for _ in 0..40 {
            let error = file.lock(&Deadline::after(Duration::from_millis(5))).await.expect_err("the lock is held");
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
            // One who leaves before that.
            let waiter = tokio::time::timeout(Duration::from_millis(1), file.lock(&patience())).await;
            waiter.map(drop).expect_err("the lock is held");
        }
        assert!(threads() < before + 20, "{before} threads have become {}", threads());
        drop(other);
        // A try of one who left may be under way.
        file.lock(&Deadline::after(HOUR)).await.expect("nobody holds the lock now");
        assert!(threads() < before + 20);
    });
}

#[test]
fn who_waits_for_the_lock_comes_before_who_has_just_had_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = || LocalFile::new(folder.path().join("registry.db"));
    let (busy, patient) = (file(), file());
    run(async {
        let mut came_first = 0;
        for _ in 0..20 {
            let turn = busy.lock(&patience()).await.expect("the lock");
            let has_had_it = Arc::new(AtomicBool::new(false));
            let (waiter, says) = (patient.clone(), Arc::clone(&has_had_it));
            let waiting = tokio::spawn(async move {
                let turn = waiter.lock(&patience()).await.expect("the lock, in time");
                says.store(true, Ordering::SeqCst);
                drop(turn);
            });
            while fs::metadata(folder.path().join(".registry.db.lock")).expect("the lock file").len() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Timers of one runtime go off together: so that the waiter is not at it in this very moment.
            std::thread::sleep(Duration::from_micros(400));
            drop(turn);
            drop(busy.lock(&patience()).await.expect("the lock"));
            came_first += usize::from(has_had_it.load(Ordering::SeqCst));
            waiting.await.expect("the waiter");
        }
        assert!(came_first >= 10, "who waited came first only {came_first} times of 20");
        // One who gave up is waited for once, and no longer.
        let turn = busy.lock(&patience()).await.expect("the lock");
        patient.lock(&Deadline::after(Duration::from_millis(3))).await.expect_err("the lock is held");
        drop(turn);
        drop(busy.lock(&patience()).await.expect("the lock"));
        assert_eq!(fs::metadata(folder.path().join(".registry.db.lock")).expect("the lock file").len(), 0);
    });
}

#[test]
fn what_was_begun_under_the_lock_holds_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = LocalFile::new(folder.path().join("registry.db"));
    run(async {
        let turn = file.lock(&patience()).await.expect("the lock");
        let begun = file.held_lock().expect("the lock is held");
        drop(turn);
        let other = LocalFile::new(folder.path().join("registry.db"));
        other.lock(&Deadline::after(Duration::ZERO)).await.expect_err("a write is under way");
        drop(begun);
        other.lock(&Deadline::after(Duration::ZERO)).await.expect("the lock");
        let failure = file.swap(None, ours(1), &patience()).await.expect_err("the lock is no longer held");
        assert!(!failure.is_in_doubt && !folder.path().join("registry.db").exists());
    });
}

#[cfg(unix)]
#[test]
fn a_new_owner_or_group_widens_nothing() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let give = |mode: u32| {
        fs::write(&old, "").expect("a file");
        fs::set_permissions(&old, fs::Permissions::from_mode(mode)).expect("permissions");
        let access = access::Access::of(&fs::metadata(&old).expect("a file"));
        let mut options = File::options();
        let file = access::make_private(options.write(true)).open(&new).expect("a new file");
        assert_eq!(file.metadata().expect("a file").mode() & 0o777, 0o600, "nobody else can open it before");
        access.give_to(&file).expect("access");
        fs::remove_file(&new).expect("the file");
        file.metadata().expect("a file")
    };
    for mode in [0o600, 0o640, 0o660, 0o644, 0o666, 0o604] {
        assert_eq!(give(mode).mode() & 0o777, mode);
    }
    // Only an administrator can make a file of somebody else, and then gives the new one to him too.
    if chown(&old, Some(4711), Some(4712)).is_ok() {
        let given = give(0o640);
        assert_eq!((given.uid(), given.gid(), given.mode() & 0o777), (4711, 4712, 0o640));
    }
}

#[test]
fn the_journal_outlives_the_file() {
    use feast_registry_core::{Backend as _, Commit, ErrorKind, JournalQuery};
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("registry.db");
    let left = folder.path().join(".registry.db.removed");
    let open = || crate::FileBackend::local(&path, crate::SchemaMode::Auto);
    run(async {
        let (first, second) = (Commit::new(Vec::new(), Vec::new()), Commit::new(Vec::new(), Vec::new()));
        let backend = open();
        let outcome = backend.commit(first.clone(), &patience()).await.expect("a commit");
        assert!(backend.remove_if_empty(&patience()).await.expect("a removal"));
        assert!(!path.exists() && left.exists());
        for backend in [backend, open()] {
            let journal = backend.journal(&JournalQuery::after(None, 10), &patience()).await.expect("a journal");
            assert_eq!(journal.iter().map(|entry| entry.id).collect::<Vec<_>>(), [first.id]);
            assert_eq!(backend.commit(first.clone(), &patience()).await.expect("the same commit"), outcome);
            assert!(!path.exists(), "it was done, and makes no registry");
        }
        // A new registry goes on from it, and has it from then on.
        open().commit(second.clone(), &patience()).await.expect("a commit");
        assert!(path.exists() && !left.exists());
        let journal = open().journal(&JournalQuery::after(None, 10), &patience()).await.expect("a journal");
        assert_eq!(journal.iter().map(|entry| entry.id).collect::<Vec<_>>(), [first.id, second.id]);
        // `feast teardown` removes the file alone, and whoever reads the journal is told that it is gone.
        fs::remove_file(&path).expect("the file");
        let gone = open()
            .journal(&JournalQuery::after(Some(journal[1].revision), 10), &patience())
            .await
            .expect_err("it is gone");
        assert_eq!(gone.kind(), ErrorKind::Compacted);
        // What is torn, or somebody else's, counts for nothing.
        for bytes in [&b""[..], b"\x22\xff", b"text", &ours(1)] {
            fs::write(&left, bytes).expect("a file");
            assert_eq!(open().journal(&JournalQuery::after(None, 10), &patience()).await.expect("a journal"), []);
        }
        let anew = open().commit(first.clone(), &patience()).await.expect("a commit");
        assert!(anew.is_committed() && anew != outcome && !left.exists());
    });
}
