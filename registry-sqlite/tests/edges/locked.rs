//! Another process has the write lock.

use std::sync::Arc;
use std::time::Instant;

use feast_registry_core::{Bytes, ErrorKind};
use feast_registry_sqlite::SqliteOptions;

use super::*;

/// So long would the waits of a few commits take one after the other, with the 30 s that SQLite was once told to wait.
const TOO_LONG: Duration = Duration::from_secs(25);

/// Lets tasks that were spawned get into the queue.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn lock(connection: &Connection) {
    connection.execute_batch("BEGIN IMMEDIATE").expect("the lock is free");
}

#[tokio::test]
async fn a_lock_is_waited_for_once_and_no_longer_than_the_callers_do() {
    let folder = Folder::new();
    let backend = Arc::new(folder.open().await);
    let stranger = folder.stranger();
    lock(&stranger);
    let began = Instant::now();
    let commits = (0..5).map(|number| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move {
            backend.commit(adds(&format!("e{number}")), &Deadline::after(Duration::from_millis(300))).await
        })
    });
    for commit in commits.collect::<Vec<_>>() {
        let error = error(commit.await.expect("no panic"));
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    }
    assert!(began.elapsed() < TOO_LONG, "{:?}", began.elapsed());

    // What was answered «not done» is not done later, and the lock is taken as soon as it is free.
    stranger.execute_batch("ROLLBACK").expect("the lock is given back");
    added(add(&backend, "patient").await);
    assert_eq!(names(&backend).await, ["patient"]);
}

#[tokio::test]
async fn a_timeout_of_the_url_ends_the_wait_for_the_lock() {
    let folder = Folder::new();
    drop(folder.open().await);
    let url = format!("sqlite:///{}?timeout=0.2", folder.file().display());
    let options = SqliteOptions::of_url(&url.parse().expect("a URL")).expect("options");
    let backend = SqliteBackend::open_with(folder.file(), SchemaMode::Auto, &options).expect("a registry");
    let stranger = folder.stranger();
    lock(&stranger);
    let error = error(backend.commit(adds("late"), &Deadline::after(TOO_LONG)).await);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    stranger.execute_batch("ROLLBACK").expect("the lock is given back");
    added(backend.commit(adds("in time"), &Deadline::after(TOO_LONG)).await);
}

/// Fault: a commit that readers kept out was tried for 5 s, however soon its caller had to know, and then perhaps stored.
#[tokio::test]
async fn a_commit_that_readers_keep_out_ends_with_its_deadline_and_is_not_done() {
    let folder = Folder::new();
    let url = format!("sqlite:///{}?journal_mode=keep", folder.file().display());
    let options = SqliteOptions::of_url(&url.parse().expect("a URL")).expect("options");
    let backend = SqliteBackend::open_with(folder.file(), SchemaMode::Auto, &options).expect("a registry");
    backend.prepare(&patient()).await.expect("the tables are made");
    let stranger = folder.stranger();
    stranger.execute_batch("BEGIN; SELECT count(*) FROM entities").expect("a read");
    let began = Instant::now();
    let error = error(backend.commit(adds("late"), &Deadline::after(Duration::from_millis(300))).await);
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert!(error.to_string().contains("nothing was done"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    stranger.execute_batch("COMMIT").expect("the read ends");
    added(add(&backend, "patient").await);
    assert_eq!(names(&backend).await, ["patient"]);
}

/// Fault: one patient caller kept the commits of all going on, and the others did not learn what had become of theirs.
#[tokio::test]
async fn readers_who_keep_commits_out_cost_each_caller_its_own_time() {
    let folder = Folder::new();
    let url = format!("sqlite:///{}?journal_mode=keep&timeout=60", folder.file().display());
    let options = SqliteOptions::of_url(&url.parse().expect("a URL")).expect("options");
    let backend = SqliteBackend::open_with(folder.file(), SchemaMode::Auto, &options).expect("a registry");
    backend.prepare(&patient()).await.expect("the tables are made");
    let backend = Arc::new(backend);
    let (writer, reader) = (folder.stranger(), folder.stranger());
    reader.execute_batch("BEGIN; SELECT count(*) FROM entities").expect("a read");
    // While the lock is held, all of them come together.
    lock(&writer);
    let began = Instant::now();
    let spawn = |name: &'static str, patience: Duration| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move { backend.commit(adds(name), &Deadline::after(patience)).await })
    };
    let late = ["late", "later"].map(|name| spawn(name, Duration::from_millis(40 * name.len() as u64 + 400)));
    let stays = spawn("stays", Duration::from_secs(60));
    settle().await;
    writer.execute_batch("ROLLBACK").expect("the lock is given back");
    for late in late {
        let error = error(late.await.expect("no panic"));
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        assert!(error.to_string().contains("nothing was done"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    reader.execute_batch("COMMIT").expect("the read ends");
    added(stays.await.expect("no panic"));
    assert_eq!(names(&backend).await, ["stays"]);
}

#[tokio::test]
async fn a_commit_whose_caller_left_is_not_done_later() {
    let folder = Folder::new();
    let backend = Arc::new(folder.open().await);
    let stranger = folder.stranger();
    lock(&stranger);
    let of_task = Arc::clone(&backend);
    let left = tokio::spawn(async move { add(&of_task, "left").await });
    let of_task = Arc::clone(&backend);
    let stays = tokio::spawn(async move { add(&of_task, "stays").await });
    settle().await;
    left.abort();
    assert!(left.await.expect_err("it was aborted").is_cancelled());
    stranger.execute_batch("ROLLBACK").expect("the lock is given back");
    added(stays.await.expect("no panic"));
    assert_eq!(names(&backend).await, ["stays"]);
}

#[tokio::test]
async fn a_registry_that_is_dropped_does_not_wait_for_the_lock() {
    let folder = Folder::new();
    let backend = Arc::new(folder.open().await);
    let stranger = folder.stranger();
    lock(&stranger);
    let of_task = Arc::clone(&backend);
    let left = tokio::spawn(async move { add(&of_task, "left").await });
    settle().await;
    left.abort();
    drop(left.await);
    let began = Instant::now();
    drop(backend);
    assert!(began.elapsed() < TOO_LONG, "{:?}", began.elapsed());
}

#[tokio::test]
async fn close_does_what_is_in_line_and_lets_nothing_in() {
    let folder = Folder::new();
    let backend = Arc::new(folder.open().await);
    let stranger = folder.stranger();
    lock(&stranger);
    let of_task = Arc::clone(&backend);
    let in_line = tokio::spawn(async move { add(&of_task, "in line").await });
    settle().await;
    let of_task = Arc::clone(&backend);
    let closing = tokio::spawn(async move { of_task.close().await });
    settle().await;
    let error = error(add(&backend, "too late").await);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!closing.is_finished());
    stranger.execute_batch("ROLLBACK").expect("the lock is given back");
    drop(stranger);
    added(in_line.await.expect("no panic"));
    closing.await.expect("it ends");
    // The last connection writes the WAL into the file and removes it.
    assert!(!folder.path("registry.db-wal").exists());
    backend.read(&[], &patient()).await.expect_err("it is closed");
    assert_eq!(names(&folder.open().await).await, ["in line"]);
}

#[tokio::test]
async fn one_commit_that_cannot_be_does_not_fail_the_others_of_its_transaction() {
    let folder = Folder::new();
    let backend = Arc::new(folder.open().await);
    let stranger = folder.stranger();
    // While the lock is held, all of them come together.
    lock(&stranger);
    let spawn = |commit: Commit| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move { backend.commit(commit, &patient()).await })
    };
    // It is found out after the first of its writes was done.
    let no_version = Key::Version { project: "p".to_owned(), view: "v".to_owned(), number: 0 };
    let mut bad = adds("bad");
    bad.writes.push(Write::Put(Record::new(no_version, Bytes::from_static(b"\xff"), 7)));
    let large = Commit::new(vec![], vec![Write::Put(Record::new(entity("large"), vec![0; 1_000_000_001], 7))]);
    let before = spawn(adds("before"));
    let (bad, large) = (spawn(bad), spawn(large));
    let after = spawn(adds("after"));
    settle().await;
    stranger.execute_batch("ROLLBACK").expect("the lock is given back");
    added(before.await.expect("no panic"));
    assert_eq!(error(bad.await.expect("no panic")).kind(), ErrorKind::Corrupt);
    assert_eq!(error(large.await.expect("no panic")).kind(), ErrorKind::InvalidArgument);
    added(after.await.expect("no panic"));
    assert_eq!(names(&backend).await, ["before", "after"]);
}
