//! What is planned, what becomes of it, and what the journal says of it.

use super::*;
use crate::journal::Revision;
use crate::rules::{ApplyOptions, UndoOptions};

const PLAIN: UndoOptions = UndoOptions { force: false, with_materializations: false };

async fn newest(registry: &Registry) -> JournalEntry {
    let mut entries = registry.journal(&JournalQuery::before(None, 1)).await.expect("the journal");
    entries.pop().expect("an entry")
}

fn driver(at: AsOf) -> Undo {
    Undo::RestoreObject { kind: Kind::Entity, project: "p".to_owned(), name: "driver".to_owned(), at }
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_what_an_undo_then_does() {
    let (registry, storage) = open().await;
    let first = registry.apply("p", entity("driver", "old")).await.expect("an apply").revision.expect("a commit");
    let second = registry.apply("p", entity("driver", "new")).await.expect("an apply").revision.expect("a commit");
    let stored = storage.stored(Kind::Entity, "driver").await;
    let commits = storage.commits().len();
    let plan = registry.plan_undo(&Undo::Revert(second), PLAIN).await.expect("a plan");
    assert_eq!(storage.commits().len(), commits, "a plan changes nothing");
    let [change] = &plan.changes[..] else { panic!("{:?}", plan.changes) };
    assert_eq!((&change.key, &change.before), (&Key::object(Kind::Entity, "p", "driver"), &stored));
    assert!(plan.check().is_ok() && plan.remarks.is_empty(), "{plan:?}");
    let revision = registry.with_call(CallOptions::new().with_author("me")).undo(&plan).await.expect("an undo");
    assert_eq!(storage.commits().len(), commits + 1);
    let entry = newest(&registry).await;
    assert_eq!(revision, Some(entry.revision));
    assert_eq!(entry.author.as_deref(), Some("me"));
    assert_eq!(entry.reason, Some(format!("revert of revision {second}")));
    for freshness in [Freshness::Stored, Freshness::Cached] {
        assert_eq!(read(&registry, "driver", freshness).await.as_deref(), Some("old"), "{freshness:?}");
    }
    // Again there is nothing to do, and that is no commit.
    let plan = registry.plan_undo(&Undo::Revert(second), PLAIN).await.expect("a plan");
    assert!(plan.is_empty() && plan.remarks.len() == 1, "{plan:?}");
    assert_eq!(registry.undo(&plan).await.expect("an undo"), None);
    assert_eq!(storage.commits().len(), commits + 1);
    let plan = registry.plan_undo(&driver(AsOf::Revision(second)), PLAIN).await.expect("a plan");
    registry.with_call(CallOptions::new().with_reason("it was right")).undo(&plan).await.expect("an undo");
    assert_eq!(newest(&registry).await.reason.as_deref(), Some("it was right"));
    assert_eq!(read(&registry, "driver", Freshness::Stored).await.as_deref(), Some("new"));
    let plan = registry.plan_undo(&driver(AsOf::Revision(first)), PLAIN).await.expect("a plan");
    assert_eq!(plan.reason(), format!("restore of entity `driver` of project `p` as of revision {first}"));
}

/// Faults: what was not shown is done all the same.
#[tokio::test(start_paused = true)]
async fn what_changes_after_the_plan_is_refused() {
    let (registry, storage) = open().await;
    registry.apply("p", entity("driver", "old")).await.expect("an apply");
    registry.apply("p", view("stats", &["a"])).await.expect("an apply");
    let objects = vec![entity("driver", "new"), view("stats", &["b"])];
    registry.apply_all("p", objects, ApplyOptions::default()).await.expect("an apply");
    let revert = Undo::Revert(newest(&registry).await.revision);
    for options in [PLAIN, PLAIN.with_force(true)] {
        let plan = registry.plan_undo(&revert, options).await.expect("a plan");
        let other = entity("driver", &format!("newer, {options:?}"));
        registry.apply("p", other).await.expect("an apply");
        let before = storage.stored(Kind::Entity, "driver").await;
        let error = registry.undo(&plan).await.expect_err("it has changed");
        assert!(error.kind() == ErrorKind::Changed && error.to_string().contains("entity `driver`"), "{error}");
        assert_eq!(storage.stored(Kind::Entity, "driver").await, before);
    }
    // A plan with refusals says the same of itself, and nothing of it is done.
    let plan = registry.plan_undo(&revert, PLAIN).await.expect("a plan");
    assert!(plan.is_empty() && plan.refusals.len() == 1, "{plan:?}");
    assert_eq!(registry.undo(&plan).await.expect_err("refused").kind(), ErrorKind::Changed);
    // A materialization takes nothing away from a plan.
    let plan = registry.plan_undo(&revert, PLAIN.with_force(true)).await.expect("a plan");
    let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    registry.apply_materialization("p", "stats", at(1), at(2)).await.expect("recorded");
    registry.undo(&plan).await.expect("an undo");
    let stats: FeatureView = registry.get_message("p", "stats", Freshness::Stored).await.expect("a view");
    assert_eq!(stats.spec.expect("a spec").features[0].name, "a");
    assert_eq!(stats.meta.expect("a meta").materialization_intervals.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_moment_is_a_revision_or_a_time_that_the_journal_has() {
    let (registry, _) = open().await;
    let mut entries = Vec::new();
    for description in ["first", "second", "third"] {
        registry.apply("p", entity("driver", description)).await.expect("an apply");
        entries.push(newest(&registry).await);
        // The journal's clock is the real one.
        std::thread::sleep(Duration::from_millis(2));
    }
    let restored = async |at: AsOf| {
        let plan = registry.plan_undo(&driver(at), PLAIN).await.expect("a plan");
        registry.undo(&plan).await.expect("an undo");
        (read(&registry, "driver", Freshness::Stored).await.expect("an entity"), plan.revision)
    };
    assert_eq!(restored(AsOf::Time(entries[0].at)).await, ("first".to_owned(), entries[0].revision));
    assert_eq!(restored(AsOf::Revision(entries[1].revision)).await, ("second".to_owned(), entries[1].revision));
    let error = async |undo: Undo| registry.plan_undo(&undo, PLAIN).await.expect_err("it is refused");
    let newest = newest(&registry).await.revision;
    for revision in [Revision::new(newest.number() + 1), Revision::new(u64::MAX)] {
        assert_eq!(error(Undo::Revert(revision)).await.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error(driver(AsOf::Revision(revision))).await.kind(), ErrorKind::InvalidArgument);
    }
    for at in [AsOf::Revision(Revision::new(0)), AsOf::Time(prost_types::Timestamp::default())] {
        let error = error(driver(at)).await;
        assert!(error.kind() == ErrorKind::Compacted && error.to_string().contains("does not reach back"), "{error}");
    }
    assert_eq!(error(Undo::Revert(Revision::new(0))).await.kind(), ErrorKind::Compacted);
    registry.apply("p", entity("other", "")).await.expect("an apply");
    let at = AsOf::Revision(newest);
    let other = Undo::RestoreObject { kind: Kind::Entity, project: "p".to_owned(), name: "other".to_owned(), at };
    assert_eq!(error(other).await.kind(), ErrorKind::NotFound(Kind::Entity), "it was not there then");
    let project = Undo::RestoreProject { project: "q".to_owned(), at };
    assert_eq!(error(project).await.kind(), ErrorKind::NotFound(Kind::Project));
}

#[tokio::test(start_paused = true)]
async fn one_object_comes_back_with_its_project_and_nothing_else_of_it() {
    let (registry, storage) = open().await;
    registry.apply("p", entity("driver", "")).await.expect("an apply");
    registry.apply("p", view("stats", &["a"])).await.expect("an apply");
    registry.apply("p", view("stats", &["b"])).await.expect("an apply");
    let identity = registry.list_project_metadata("p", Freshness::Stored).await.expect("facts");
    let (project, stats) = (storage.stored(Kind::Project, "p").await, storage.stored(Kind::FeatureView, "stats").await);
    let at = AsOf::Revision(newest(&registry).await.revision);
    registry.delete_project("p").await.expect("a deletion");
    assert_eq!(storage.removals.load(Ordering::SeqCst), 1);
    let stats_then =
        Undo::RestoreObject { kind: Kind::FeatureView, project: "p".to_owned(), name: "stats".to_owned(), at };
    let plan = registry.plan_undo(&stats_then, PLAIN).await.expect("a plan");
    registry.undo(&plan).await.expect("an undo");
    assert_eq!(storage.stored(Kind::FeatureView, "stats").await, stats);
    assert_eq!(storage.stored(Kind::Project, "p").await, project);
    assert_eq!(registry.list_versions("p", "stats").await.expect("a history").len(), 2);
    let again = registry.list_project_metadata("p", Freshness::Stored).await.expect("facts");
    assert_eq!(again[0].project_uuid, identity[0].project_uuid);
    assert_eq!(storage.stored(Kind::Entity, "driver").await, None);
    // In a project that is there, it is the object alone that goes back.
    registry.delete(Kind::FeatureView, "p", "stats").await.expect("a deletion");
    let plan = registry.plan_undo(&stats_then, PLAIN).await.expect("a plan");
    assert!(plan.changes.iter().all(|change| !matches!(&change.key, Key::Object { kind: Kind::Project, .. })));
    registry.undo(&plan).await.expect("an undo");
    assert_eq!(storage.stored(Kind::FeatureView, "stats").await, stats);
}
