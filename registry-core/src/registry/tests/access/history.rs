//! What a caller may see of the past, and take back.

use futures_util::StreamExt;

use super::*;

/// A clock that says what it is told.
#[derive(Debug)]
struct Told(std::sync::atomic::AtomicI64);

impl crate::Environment for Told {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.0.load(std::sync::atomic::Ordering::SeqCst), nanos: 0 }
    }

    fn random(&self) -> u128 {
        crate::System.random()
    }
}

/// Fault: where clocks differ, whoever took the name of a project that was gone saw what had been in it; and whose clock was behind did not
/// see what they did themselves.
#[tokio::test]
async fn clocks_do_not_say_what_was_in_an_earlier_project() {
    let clock = Arc::new(Told(1_700_000_100.into()));
    let options = RegistryOptions::default().with_environment(Arc::clone(&clock) as Arc<dyn crate::Environment>);
    let (registry, _) = open_with(options).await;
    let (ann, eve) = (called(&registry, access("ann", &[])), called(&registry, access("eve", &[])));
    ann.apply("p", entity("driver", "secret")).await.expect("an apply");
    ann.delete_project("p").await.expect("it is theirs");
    clock.0.store(1_700_000_050, std::sync::atomic::Ordering::SeqCst);
    eve.apply("p", entity("rider", "")).await.expect("nobody has it");
    clock.0.store(1_700_000_000, std::sync::atomic::Ordering::SeqCst);
    eve.apply("p", entity("rider", "changed")).await.expect("it is theirs");
    let journal = eve.journal(&JournalQuery::after(None, 100)).await.expect("the journal");
    let seen: Vec<bool> = journal.iter().map(|entry| !entry.changes.is_empty()).collect();
    assert_eq!(seen, [false, false, true, true], "{journal:?}");
    let all = registry.journal(&JournalQuery::after(None, 100)).await.expect("the journal");
    refused(eve.plan_undo(&Undo::Revert(all[0].revision), UndoOptions::default()).await);
}

#[tokio::test]
async fn a_watcher_is_told_what_they_may_see() {
    let registry = ruled().await;
    let ann = called(&registry, access("ann", &["reader"]));
    let mut watch = ann.watch(None, JournalFilter::new()).await.expect("a watch");
    registry.apply("q", entity("hidden", "")).await.expect("an apply");
    registry.apply("p", entity("shown", "")).await.expect("an apply");
    let Some(Ok(WatchEvent::Commit(entry))) = watch.next().await else { panic!("a commit is told") };
    assert!(entry.changes.iter().all(|change| change.target.project() == "p"), "{entry:?}");
    registry.delete(Kind::Permission, "p", "readers").await.expect("a deletion");
    registry.apply("p", entity("later", "")).await.expect("an apply");
    tokio::time::pause();
    let next = watch.next().await;
    assert!(matches!(&next, Some(Ok(WatchEvent::Bookmark(_)))), "{next:?}");
}

#[tokio::test]
async fn an_undo_does_what_its_caller_may_do() {
    let registry = ruled().await;
    registry.apply("p", entity("driver", "changed")).await.expect("an apply");
    let newest = registry.journal(&JournalQuery::before(None, 1)).await.expect("the journal")[0].revision;
    let (reader, writer) =
        (called(&registry, access("ann", &["reader"])), called(&registry, access("bob", &["writer"])));
    let plan = reader.plan_undo(&Undo::Revert(newest), UndoOptions::default()).await.expect("a reader may look");
    refused(reader.undo(&plan).await);
    writer.undo(&plan).await.expect("a writer may").expect("there is something to undo");
    // The permissions that hold today are what counts, and a permission is an object like others.
    let mut narrow = grant("entities", "team", &[Type::Entity], &[], WRITE);
    narrow.spec.get_or_insert_default().name_patterns = vec!["driver".to_owned()];
    registry.apply("p", Object::encode(&narrow)).await.expect("an apply");
    let newest = registry.journal(&JournalQuery::before(None, 1)).await.expect("the journal")[0].revision;
    let team = called(&registry, access("tim", &["team"]));
    refused(team.plan_undo(&Undo::Revert(newest), UndoOptions::default()).await);
    // A project that is gone is an administrator's to bring back.
    registry.delete_project("p").await.expect("a deletion");
    let newest = registry.journal(&JournalQuery::before(None, 1)).await.expect("the journal")[0].revision;
    let everything = Access::new(Arc::new(Identity::new("eve")), Arc::new(AccessRules::default()));
    refused(called(&registry, everything.clone()).plan_undo(&Undo::Revert(newest), UndoOptions::default()).await);
    let admin = called(&registry, everything.as_admin());
    let plan = admin.plan_undo(&Undo::Revert(newest), UndoOptions::default()).await.expect("an administrator may");
    admin.undo(&plan).await.expect("an administrator may");
}

/// Fault: whether there was something to restore was told to everybody; and whoever took the name of a project that was gone could
/// restore what had been in it.
#[tokio::test]
async fn what_is_restored_has_to_be_seen_as_it_was() {
    let registry = ruled().await;
    let newest = async || registry.journal(&JournalQuery::before(None, 1)).await.expect("the journal")[0].revision;
    let before = AsOf::Revision(newest().await);
    registry.apply("p", entity("driver", "changed")).await.expect("an apply");
    let (eve, ann) = (called(&registry, access("eve", &[])), called(&registry, access("ann", &["reader"])));
    let now = AsOf::Revision(newest().await);
    let plan = async |of: &Registry, undo: &Undo| of.plan_undo(undo, UndoOptions::default()).await;
    let object =
        |name: &str, at| Undo::RestoreObject { kind: Kind::Entity, project: "p".to_owned(), name: name.to_owned(), at };
    let project = |project: &str, at| Undo::RestoreProject { project: project.to_owned(), at };
    let mut told = std::collections::BTreeSet::new();
    for at in [before, now] {
        for undo in [object("driver", at), object("nobody", at), project("p", at), project("nowhere", at)] {
            told.insert(refused(plan(&eve, &undo).await));
        }
    }
    assert_eq!(told.len(), 1, "it is one answer to all: {told:?}");
    plan(&ann, &object("driver", before)).await.expect("they see it");
    let absent = plan(&ann, &object("nobody", before)).await.expect_err("it was not there");
    assert_eq!(absent.kind(), ErrorKind::NotFound(Kind::Entity));

    registry.delete_project("p").await.expect("a deletion");
    let deletion = newest().await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    eve.apply("p", entity("rider", "")).await.expect("nobody has it");
    for undo in [object("driver", before), project("p", before), Undo::Revert(deletion)] {
        refused(plan(&eve, &undo).await);
    }
}

/// Fault: who could see views of one kind saw the versions of views of all others.
#[tokio::test]
async fn a_version_is_seen_with_the_view_that_it_is_of() {
    let (registry, _) = open().await;
    registry.apply("p", view("stats", &["a"])).await.expect("an apply");
    registry.apply("p", view("stats", &["a", "b"])).await.expect("an apply");
    for (role, of) in [("plain", Type::FeatureView), ("demand", Type::OnDemandFeatureView)] {
        registry.apply("p", Object::encode(&grant(role, role, &[of], &[], READ))).await.expect("an apply");
    }
    let is_version = |change: &crate::Change| matches!(change.target, crate::Target::Key(Key::Version { .. }));
    for (role, is_seen) in [("plain", true), ("demand", false)] {
        let caller = called(&registry, access("ann", &[role]));
        let changes = caller.changes_between(None, None, &JournalFilter::new()).await.expect("changes");
        assert_eq!(changes.iter().any(is_version), is_seen, "{role}: {changes:?}");
        // A log does not have what was stored.
        let log = caller.log(&LogQuery::new(JournalFilter::new(), 100)).await.expect("a log");
        assert_eq!(log.iter().any(|entry| entry.changes.iter().any(is_version)), is_seen, "{role}: {log:?}");
    }
}

/// Fault: a commit that changed nothing but what is attached to a view could be seen, and taken back, by everybody.
#[tokio::test]
async fn what_is_attached_to_a_view_is_undone_as_the_view_would_be() {
    let registry = ruled().await;
    for text in ["first", "second"] {
        let attached = Some(Bytes::from_static(text.as_bytes()));
        registry.apply_user_metadata(Kind::FeatureView, "p", "stats", attached).await.expect("it is attached");
    }
    let newest = registry.journal(&JournalQuery::before(None, 1)).await.expect("the journal")[0].revision;
    let undo = Undo::Revert(newest);
    let plan = registry.plan_undo(&undo, UndoOptions::default()).await.expect("a plan");
    assert_eq!(plan.changes.len(), 1);
    let (eve, ann) = (called(&registry, access("eve", &[])), called(&registry, access("ann", &["reader"])));
    refused(eve.plan_undo(&undo, UndoOptions::default()).await);
    refused(eve.undo(&plan).await);
    ann.plan_undo(&undo, UndoOptions::default()).await.expect("a reader may look");
    refused(ann.undo(&plan).await);
    let attached = registry.get_user_metadata(Kind::FeatureView, "p", "stats").await.expect("it is there");
    assert_eq!(attached.as_deref(), Some(&b"second"[..]));
    called(&registry, access("bob", &["writer"])).undo(&plan).await.expect("a writer may").expect("it is done");
}
