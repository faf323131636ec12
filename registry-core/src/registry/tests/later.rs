//! Applies that wait for a commit.

use tokio::time::Instant;

use super::*;
use crate::proto::core::{OnDemandFeatureView, OnDemandFeatureViewSpec};

async fn open_deferring() -> (Registry, Arc<Moody>) {
    let (registry, storage) = open_with(RegistryOptions::default().with_defers(true)).await;
    registry.apply("p", entity("driver", "before")).await.expect("an apply");
    registry.refresh().await.expect("a refresh");
    (registry, storage)
}

async fn names(registry: &Registry, freshness: Freshness) -> Vec<String> {
    let listed = registry.list(Kind::Entity, Some("p"), &ListFilter::default(), freshness).await.expect("a list");
    listed.iter().map(|object| object.name().expect("a name")).collect()
}

/// Fault: every read, cached ones too, waited for the file to be written: 59.5 s.
#[tokio::test(start_paused = true)]
async fn what_waits_is_seen_by_reads_that_do_not_wait() {
    let (registry, storage) = open_deferring().await;
    storage.committing(Mood::Silence);
    let began = Instant::now();
    registry.apply_later("p", entity("driver", "changed")).await.expect("an apply");
    registry.apply_later("p", entity("rider", "new")).await.expect("an apply");
    registry.apply_later("q", entity("rider", "of another project")).await.expect("an apply");
    registry.apply_later("p", view("stats", &["a"])).await.expect("an apply");
    for _ in 0..2 {
        for freshness in [Freshness::Cached, Freshness::Stored] {
            assert_eq!(read(&registry, "driver", freshness).await.as_deref(), Some("changed"), "{freshness:?}");
            assert_eq!(read(&registry, "rider", freshness).await.as_deref(), Some("new"), "{freshness:?}");
            assert_eq!(names(&registry, freshness).await, ["driver", "rider"], "{freshness:?}");
            registry.get_any_view("p", "stats", freshness).await.expect("a view that waits");
            let identity = registry.list_project_metadata("q", freshness).await.expect("metadata");
            assert_eq!(identity.len(), 1, "{freshness:?}: of a project that is made with what waits");
            registry.proto(freshness).await.expect("all of it");
        }
        assert_eq!(registry.list_versions("p", "stats").await.expect("versions").len(), 1);
        assert!(began.elapsed() <= Duration::from_secs(3), "{:?}", began.elapsed());
        // The second time, an attempt to write is under way and hangs.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(storage.stored(Kind::Entity, "rider").await, None, "nothing of it was written");
}

/// Fault: what could not be written at the moment, as the lock of the file was held, was dropped.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_now_goes_on_waiting() {
    let (registry, storage) = open_deferring().await;
    storage.committing(Mood::Fail(ErrorKind::Unavailable));
    registry.apply_later("p", entity("rider", "patient")).await.expect("an apply");
    for _ in 0..2 {
        let error = registry.commit().await.expect_err("it is not durable");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("goes on waiting"), "{error}");
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    // A write that comes later must not be overtaken by what was there before it.
    let overtaking = registry.apply("p", entity("rider", "late")).await.expect_err("the storage is in a bad mood");
    assert_eq!(overtaking.kind(), ErrorKind::Unavailable);
    assert_eq!(read(&registry, "rider", Freshness::Cached).await.as_deref(), Some("patient"));
    storage.committing(Mood::Answer);
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(storage.stored(Kind::Entity, "rider").await.is_some(), "it is written by itself once that is possible");
    registry.commit().await.expect("all is durable");
    let commits = storage.commits().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(storage.commits().len(), commits, "and not written again");
}

/// Fault: another client's commit took the one error; the client whose object was lost got OK from its own.
#[tokio::test(start_paused = true)]
async fn every_commit_tells_of_what_was_lost_before_it_until_it_is_mended() {
    let (registry, storage) = open_deferring().await;
    storage.committing(Mood::Fail(ErrorKind::Unavailable));
    registry.apply_later("p", view("stats", &["a"])).await.expect("an apply");
    registry.apply_later("p", entity("rider", "fine")).await.expect("an apply");
    // Another process takes the name for another kind of view.
    let spec = OnDemandFeatureViewSpec { name: "stats".to_owned(), ..Default::default() };
    let taken = Object::encode(&OnDemandFeatureView { spec: Some(spec), meta: None });
    storage.plant(Key::object(Kind::OnDemandFeatureView, "p", "stats"), taken.bytes).await;
    storage.committing(Mood::Answer);
    for client in ["another client", "its own client"] {
        let error = registry.commit().await.expect_err(client);
        assert_eq!(error.kind(), ErrorKind::ConflictingFeatureViewNames, "{client}: {error}");
        assert!(error.to_string().contains("feature view `stats` of project `p`"), "{client}: {error}");
    }
    assert!(storage.stored(Kind::Entity, "rider").await.is_some(), "the others are written");
    let views = registry.list(Kind::FeatureView, Some("p"), &ListFilter::default(), Freshness::Cached).await;
    assert!(views.expect("a list").is_empty(), "what is lost no longer shows");
    // Once it has been applied again, all is well.
    registry.delete(Kind::OnDemandFeatureView, "p", "stats").await.expect("a deletion");
    registry.apply_later("p", view("stats", &["a"])).await.expect("an apply");
    registry.commit().await.expect("nothing is lost any more");
    assert!(storage.stored(Kind::FeatureView, "stats").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_not_told_for_ever() {
    let (registry, storage) = open_deferring().await;
    registry.apply_later("p", entity("rider", "")).await.expect("an apply");
    storage.committing(Mood::Fail(ErrorKind::ReadOnly));
    assert_eq!(registry.commit().await.expect_err("lost").kind(), ErrorKind::ReadOnly);
    tokio::time::sleep(Duration::from_secs(599)).await;
    assert_eq!(registry.commit().await.expect_err("still told").kind(), ErrorKind::ReadOnly);
    tokio::time::sleep(Duration::from_secs(2)).await;
    registry.commit().await.expect("that was ten minutes ago");
}

/// A commit answers for what was acknowledged before it, also while an attempt that does not include it is under way.
#[tokio::test(start_paused = true)]
async fn a_commit_covers_what_was_applied_during_an_attempt() {
    let (registry, storage) = open_deferring().await;
    let answer = Arc::new(Semaphore::new(0));
    storage.committing(Mood::AnswerLate(Arc::clone(&answer)));
    registry.apply_later("p", entity("first", "")).await.expect("an apply");
    let commit = |registry: &Registry| {
        let registry = registry.clone();
        tokio::spawn(async move { registry.commit().await })
    };
    let first = commit(&registry);
    settled().await;
    registry.apply_later("p", entity("second", "")).await.expect("an apply");
    let second = commit(&registry);
    answer.add_permits(1);
    first.await.expect("a task").expect("the first is durable");
    settled().await;
    assert!(!second.is_finished(), "the second is not durable yet");
    answer.add_permits(1);
    second.await.expect("a task").expect("the second is durable");
    assert!(storage.stored(Kind::Entity, "second").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_adds_to_too_much_waits_for_room_until_the_deadline() {
    let (registry, storage) = open_deferring().await;
    storage.committing(Mood::Silence);
    let mut added = 0;
    let refused = loop {
        match registry.with_call(seconds(5)).apply_later("p", entity(&format!("driver {added}"), "")).await {
            Ok(()) => added += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::DeadlineExceeded, "{refused}");
    assert_eq!(added, 256, "so many wait at the most");
    assert_eq!(names(&registry, Freshness::Cached).await.len(), 257);
}

#[tokio::test]
async fn closing_writes_what_waits() {
    let (registry, storage) = open_deferring().await;
    registry.apply_later("p", entity("rider", "")).await.expect("an apply");
    registry.close().await.expect("it is written");
    assert!(storage.stored(Kind::Entity, "rider").await.is_some());
}
