//! The journal in the file.

use feast_registry_core::{Environment, ErrorKind, JournalQuery, Retention, System};
use prost_types::Timestamp;

use super::*;

#[tokio::test]
async fn a_commit_that_is_sent_again_is_answered_as_it_was() {
    let folder = Folder::new();
    let (ours, theirs) = (folder.open().await, folder.open().await);
    added(add(&ours, "e").await);
    let deletion = Commit::new(vec![(entity("e"), Expected::Present)], vec![Write::Delete(entity("e"))]);
    let first = ours.commit(deletion.clone(), &patient()).await.expect("it is deleted");
    added(add(&theirs, "e").await);
    for backend in [&ours, &theirs] {
        assert_eq!(backend.commit(deletion.clone(), &patient()).await.expect("an answer"), first);
        assert_eq!(names(backend).await, ["e"]);
    }
    // What it expects no longer holds either.
    let removal = Commit::new(vec![], vec![Write::Delete(entity("e"))]);
    added(theirs.commit(removal, &patient()).await);
    assert_eq!(ours.commit(deletion, &patient()).await.expect("an answer"), first);
    assert_eq!(ours.journal(&JournalQuery::after(None, 100), &patient()).await.expect("the journal").len(), 4);
}

#[tokio::test]
async fn a_file_without_a_journal_is_written_without_one() {
    let folder = Folder::new();
    drop(folder.open().await);
    folder.stranger().execute_batch("DROP TABLE feast_registry_journal").expect("it is there");
    for mode in [SchemaMode::Verify, SchemaMode::Skip] {
        let backend = SqliteBackend::open(folder.file(), mode).expect("the file opens");
        backend.prepare(&patient()).await.expect("Feast's tables are there");
        let outcome = add(&backend, &format!("{mode:?}")).await.expect("it is written");
        assert!(matches!(outcome, Outcome::Committed { revision: None, .. }), "{outcome:?}");
        let [unkept] = backend.limits().unkept.try_into().expect("one promise that is not kept");
        assert!(unkept.contains("CREATE TABLE IF NOT EXISTS feast_registry_journal"), "{unkept}");
        let error = backend.journal(&JournalQuery::after(None, 1), &patient()).await.expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    let backend = folder.open().await;
    added(add(&backend, "Auto").await);
    assert!(backend.limits().unkept.is_empty());
}

#[tokio::test]
async fn what_need_not_be_kept_is_removed_while_nobody_writes() {
    let folder = Folder::new();
    let month = Duration::from_secs(30 * 24 * 3600);
    let backend = SqliteBackend::open(folder.file(), SchemaMode::Auto).expect("the file opens");
    let backend = backend.with_retention(Retention::new(month, 10));
    backend.prepare(&patient()).await.expect("the tables are made");
    // They are made by one whose clock is slow: that alone must not make them go. It is pruned after every 256 commits.
    let slow = Timestamp { seconds: System.now().seconds - 365 * 24 * 3600, nanos: 0 };
    let commits: Vec<Commit> = (0..300).map(|number| adds(&format!("e{number}")).with_time(slow)).collect();
    for commit in &commits {
        added(backend.commit(commit.clone(), &patient()).await);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(backend.journal(&JournalQuery::after(None, 1000), &patient()).await.expect("the journal").len(), 300);
    added(backend.commit(commits[0].clone(), &patient()).await);

    folder.stranger().execute_batch("UPDATE feast_registry_journal SET stored_at = stored_at - 172800").expect("days");
    let young = adds("young");
    let first = backend.commit(young.clone(), &patient()).await.expect("it is written");
    for _ in 0..250 {
        added(backend.commit(Commit::new(vec![], vec![]), &patient()).await);
    }
    is_pruned(&backend).await;
    assert_eq!(backend.commit(young, &patient()).await.expect("an answer"), first);
}

#[tokio::test]
async fn what_is_old_is_pruned_when_somebody_wants_it_a_part_at_a_time() {
    let folder = Folder::new();
    let backend = folder.open().await;
    for _ in 0..900 {
        added(backend.commit(Commit::new(vec![], vec![]), &patient()).await);
    }
    let retention = Retention::new(Duration::ZERO, 1);
    assert_eq!(backend.prune_journal(&retention, &patient()).await.expect("it is pruned"), 0, "all of it is young");
    folder.stranger().execute_batch("UPDATE feast_registry_journal SET stored_at = stored_at - 172800").expect("days");
    let (mut removed, mut parts) = (0, 0);
    loop {
        match backend.prune_journal(&retention, &patient()).await.expect("it is pruned") {
            0 => break,
            more => removed += more,
        }
        parts += 1;
    }
    let kept = backend.journal(&JournalQuery::after(None, 2000), &patient()).await.expect("the journal").len() as u64;
    assert!(parts > 1 && kept == 256 && removed == 900 - kept, "{removed} removed in {parts} parts, {kept} kept");
}

/// Waits until all is removed but what was committed since, and the newest 256 commits at that time, which always stay.
async fn is_pruned(backend: &SqliteBackend) {
    let deadline = patient();
    loop {
        let kept = backend.journal(&JournalQuery::after(None, 2000), &patient()).await.expect("the journal").len();
        assert!(kept >= 256, "{kept} are kept");
        if kept < 512 {
            return;
        }
        assert!(!deadline.is_over(), "{kept} are kept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_clock_that_was_wrong_makes_neither_the_newest_go_nor_the_oldest_stay() {
    let folder = Folder::new();
    let backend = SqliteBackend::open(folder.file(), SchemaMode::Auto).expect("the file opens");
    backend.prepare(&patient()).await.expect("the tables are made");
    let nothing = || Commit::new(vec![], vec![]);
    // In 1970, as a machine without a clock begins; and thirty years from now.
    for moment in ["60", "unixepoch() + 946080000"] {
        let mut newest = nothing();
        for _ in 0..400 {
            newest = nothing();
            added(backend.commit(newest.clone(), &patient()).await);
        }
        folder
            .stranger()
            .execute_batch(&format!("UPDATE feast_registry_journal SET stored_at = {moment}"))
            .expect("another time");
        // The clock is put right, and in the course of 256 commits it is pruned.
        let first = backend.commit(newest.clone(), &patient()).await.expect("an answer");
        for _ in 0..255 {
            added(backend.commit(nothing(), &patient()).await);
        }
        is_pruned(&backend).await;
        assert_eq!(backend.commit(newest, &patient()).await.expect("an answer"), first, "{moment}");
    }
}
