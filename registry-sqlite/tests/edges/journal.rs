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
    let now = System.now();
    let old = Timestamp { seconds: now.seconds - 2 * 24 * 3600, nanos: 0 };
    for number in 0..300 {
        added(backend.commit(adds(&format!("e{number}")).with_time(old), &patient()).await);
    }
    let young = adds("young").with_time(now);
    let first = backend.commit(young.clone(), &patient()).await.expect("it is written");
    // It is pruned again and again, a few at a time; that the number falls is what is waited for.
    let deadline = patient();
    loop {
        let kept = backend.journal(None, 1000, &patient()).await.expect("the journal").len();
        if kept < 100 {
            assert!(kept >= 10, "{kept} are kept");
            break;
        }
        assert!(!deadline.is_over(), "{kept} are kept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(backend.commit(young, &patient()).await.expect("an answer"), first);
}
