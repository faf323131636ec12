//! Files of earlier versions, and files that an earlier version has written after this one: a rolling upgrade.
#![cfg(feature = "local")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use feast_registry_core::config::SchemaMode;
use feast_registry_core::{
    Backend as _, Commit, CommitId, Deadline, JournalQuery, Key, Kind, Outcome, Query, Revision, Write,
};
use feast_registry_file::FileBackend;

/// Written by the version before the journal: a project, a view with user metadata, and 17 entities.
const OLD: &[u8] = include_bytes!("files/old.bin");

/// The same, to which this version has added four entities, with commits whose identities are sixteen times the bytes 0 to 3,
/// and then the version before 17 more.
const BOTH: &[u8] = include_bytes!("files/both.bin");

fn patience() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn open(folder: &Path, file: &[u8]) -> (PathBuf, FileBackend) {
    let path = folder.join("registry.db");
    std::fs::write(&path, file).expect("a file");
    (path.clone(), FileBackend::local(path, SchemaMode::Auto))
}

async fn entities(backend: &FileBackend) -> usize {
    let answers = backend.read(&[Query::objects(Kind::Entity, Some("p"))], &patience()).await.expect("a read");
    answers[0].len()
}

#[tokio::test]
async fn a_file_of_the_version_before_is_gone_on_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, backend) = open(folder.path(), OLD);
    assert_eq!(entities(&backend).await, 17);
    assert_eq!(backend.journal(&JournalQuery::after(None, 100), &patience()).await.expect("a journal"), []);
    let deletion = Commit::new(Vec::new(), vec![Write::Delete(Key::object(Kind::Entity, "p", "old 3"))]);
    let outcome = backend.commit(deletion.clone(), &patience()).await.expect("a commit");
    let journal = backend.journal(&JournalQuery::after(None, 100), &patience()).await.expect("a journal");
    let [entry] = &journal[..] else { panic!("{journal:?}") };
    assert_eq!(outcome, backend.commit(deletion.clone(), &patience()).await.expect("the same commit"));
    assert!(entry.id == deletion.id && outcome.is_committed());
    // All else is still there, for another process too.
    let other = FileBackend::local(path, SchemaMode::Verify);
    assert_eq!(entities(&other).await, 16);
    let note = Key::UserMetadata { kind: Kind::FeatureView, project: "p".into(), view: "v".into() };
    let found = other.read(&[Query::Keys(vec![note])], &patience()).await.expect("a read");
    assert_eq!(found[0][0].value, "note");
}

#[tokio::test]
async fn the_version_before_leaves_the_journal_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, backend) = open(folder.path(), BOTH);
    assert_eq!(entities(&backend).await, 17 + 4 + 17);
    let journal = backend.journal(&JournalQuery::after(None, 100), &patience()).await.expect("a journal");
    let ids: Vec<CommitId> = journal.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [0, 1, 2, 3].map(|byte| CommitId::from_bytes([byte; 16])));
    assert!(journal.iter().all(|entry| entry.author.as_deref() == Some("alice") && entry.changes.len() == 1));
    // A commit that this version did is not done again, whatever the other has written since.
    let revision: Vec<Revision> = journal.iter().map(|entry| entry.revision).collect();
    let deletion = vec![Write::Delete(Key::object(Kind::Entity, "p", "late 1"))];
    let again = Commit::new(Vec::new(), deletion).with_id(ids[2]);
    let outcome = backend.commit(again, &patience()).await.expect("a commit");
    assert!(matches!(outcome, Outcome::Committed { revision: Some(of) } if of == revision[2]), "{outcome:?}");
    assert_eq!(entities(&backend).await, 38);
}
