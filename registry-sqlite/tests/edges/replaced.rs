//! A file that is removed or replaced while it is open is neither read nor written any more.

use std::fs;

use feast_registry_core::ErrorKind;

use super::*;

async fn is_refused(backend: &SqliteBackend, name: &str) {
    let refused = error(add(backend, name).await);
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    let text = refused.to_string();
    assert!(text.contains("registry.db") && text.contains("while this process had it open"), "{text}");
    // A reader may rely for a moment on what another has seen.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let read = backend.read(&[Query::objects(Kind::Entity, None)], &patient()).await.expect_err("no read either");
    assert_eq!(read.kind(), ErrorKind::Unavailable, "{read}");
}

#[tokio::test]
async fn nothing_is_written_into_a_file_that_was_removed() {
    let folder = Folder::new();
    let backend = folder.open().await;
    added(add(&backend, "kept").await);
    for name in ["registry.db", "registry.db-wal", "registry.db-shm"] {
        fs::remove_file(folder.path(name)).expect("it is there");
    }
    is_refused(&backend, "lost").await;
    drop(backend);
    assert_eq!(fs::read_dir(folder.0.path()).expect("the folder").count(), 0);
}

#[tokio::test]
async fn a_file_that_took_its_place_is_left_as_it_is() {
    let folder = Folder::new();
    let other = open(&folder.path("other.db")).await;
    added(add(&other, "restored").await);
    drop(other);
    let restored = fs::read(folder.path("other.db")).expect("the file to restore");

    let backend = folder.open().await;
    added(add(&backend, "old").await);
    fs::rename(folder.path("other.db"), folder.file()).expect("it is moved over the registry");
    is_refused(&backend, "lost").await;
    drop(backend);
    assert!(fs::read(folder.file()).expect("it is there") == restored, "the file was written to");

    // The WAL of the old file is still beside it, and does not become its own.
    let reopened = folder.open().await;
    assert_eq!(names(&reopened).await, ["restored"]);
    added(add(&reopened, "new").await);
}

#[tokio::test]
async fn the_wal_of_a_replaced_file_is_emptied_when_the_registry_is_closed_too() {
    let folder = Folder::new();
    let other = open(&folder.path("other.db")).await;
    added(add(&other, "restored").await);
    drop(other);
    let backend = folder.open().await;
    added(add(&backend, "old").await);
    let old = fs::File::open(folder.file()).expect("the old file");
    fs::rename(folder.path("other.db"), folder.file()).expect("it is moved over the registry");
    backend.close().await;
    assert_eq!(names(&folder.open().await).await, ["restored"]);
    drop(old);
}

#[tokio::test]
async fn nothing_is_written_into_a_wal_that_was_removed() {
    let folder = Folder::new();
    let backend = folder.open().await;
    added(add(&backend, "kept").await);
    fs::remove_file(folder.path("registry.db-wal")).expect("it is there");
    is_refused(&backend, "lost").await;
    drop(backend);
    // What had been acknowledged was written into the database, which is in its place.
    assert_eq!(names(&folder.open().await).await, ["kept"]);
}

#[tokio::test]
async fn a_file_that_comes_back_is_used_again() {
    let folder = Folder::new();
    let backend = folder.open().await;
    added(add(&backend, "one").await);
    fs::rename(folder.file(), folder.path("away.db")).expect("it is moved away");
    is_refused(&backend, "lost").await;
    fs::rename(folder.path("away.db"), folder.file()).expect("it is moved back");
    added(add(&backend, "two").await);
    assert_eq!(names(&backend).await, ["one", "two"]);
}
