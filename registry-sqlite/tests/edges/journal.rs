//! The journal in the file.

use feast_registry_core::{Environment, ErrorKind, Retention, System};
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
    assert_eq!(ours.journal(None, 100, &patient()).await.expect("the journal").len(), 4);
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
        let error = backend.journal(None, 1, &patient()).await.expect_err("there is none");
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
    assert_eq!(backend.journal(None, 1000, &patient()).await.expect("the journal").len(), 300);
    added(backend.commit(commits[0].clone(), &patient()).await);

    folder.stranger().execute_batch("UPDATE feast_registry_journal SET stored_at = stored_at - 172800").expect("days");
    let young = adds("young");
    let first = backend.commit(young.clone(), &patient()).await.expect("it is written");
    for _ in 0..250 {
        added(backend.commit(Commit::new(vec![], vec![]), &patient()).await);
    }
    // It is pruned again and again, a few at a time; that the number falls is what is waited for.
    let deadline = patient();
    loop {
        let kept = backend.journal(None, 1000, &patient()).await.expect("the journal").len();
        assert!(kept >= 251, "{kept} are kept");
        if kept == 251 {
            break;
        }
        assert!(!deadline.is_over(), "{kept} are kept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(backend.commit(young, &patient()).await.expect("an answer"), first);
}
