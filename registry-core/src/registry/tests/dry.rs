//! What would be done, and is not.

use proptest::collection::vec;
use proptest::prelude::*;
use prost_types::Timestamp;

use super::access::{Notes, READ, WRITE, grant};
use super::*;
use crate::access::{Access, AccessRules, Identity, Unprotected};
use crate::proto::core::{
    FeatureService, FeatureServiceSpec, FeatureViewProjection, OnDemandFeatureView, OnDemandFeatureViewSpec,
};
use crate::registry::edit::{Condition, Edited};
use crate::rules::{ApplyOptions, UndoOptions};

const OPTIONS: ApplyOptions = ApplyOptions { no_promote: false };
const PLAIN: UndoOptions = UndoOptions { force: false, with_materializations: false };

fn dry(registry: &Registry) -> Registry {
    registry.with_call(CallOptions::new().dry())
}

fn second(number: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: number, nanos: 0 })
}

/// All that is stored, and all that the journal has.
async fn whole(storage: &Moody) -> (Vec<Vec<Record>>, Vec<JournalEntry>) {
    let deadline = Deadline::after(Duration::from_secs(1));
    let mut queries: Vec<Query> = Kind::ALL.iter().map(|kind| Query::objects(*kind, None)).collect();
    queries.push(Query::Metadata { project: None });
    queries.push(Query::Versions { project: "p".to_owned(), view: "stats".to_owned(), latest_only: false });
    let stored = storage.inner.read(&queries, &deadline).await.expect("memory does not fail");
    let journal = storage.inner.journal(&JournalQuery::after(None, usize::MAX), &deadline).await;
    (stored, journal.expect("memory does not fail"))
}

async fn filled(options: RegistryOptions) -> (Registry, Arc<Moody>) {
    let (registry, storage) = open_with(options).await;
    registry.apply("p", entity("driver", "before")).await.expect("an apply");
    registry.apply("p", view("stats", &["a"])).await.expect("an apply");
    registry.apply_materialization("p", "stats", second(1), second(2)).await.expect("it is recorded");
    (registry, storage)
}

#[tokio::test]
async fn nothing_is_written_by_whatever_is_done() {
    for defers in [false, true] {
        let (registry, storage) = filled(RegistryOptions::default().with_defers(defers)).await;
        let newest = registry.journal(&JournalQuery::before(None, 1)).await.expect("the journal").remove(0).revision;
        let plan =
            registry.plan_undo(&Undo::Revert(newest), UndoOptions { with_materializations: true, ..PLAIN }).await;
        let plan = plan.expect("a plan");
        assert!(!plan.is_empty());
        let before = whole(&storage).await;
        let commits = storage.commits().len();
        let dry = dry(&registry);

        let edited = dry.apply("p", entity("driver", "after")).await.expect("an apply");
        assert_eq!(edited, Edited { has_changed: true, version: None, revision: None });
        assert!(!dry.apply("p", entity("driver", "before")).await.expect("an apply").has_changed);
        let edited = dry.apply("p", view("stats", &["a", "b"])).await.expect("an apply");
        assert_eq!((edited.has_changed, edited.version), (true, Some(1)));
        let edited = dry.apply("p", view("stats", &["a"])).await.expect("an apply");
        assert_eq!((edited.has_changed, edited.version), (false, Some(0)));
        dry.apply("elsewhere", entity("driver", "")).await.expect("a project would be made");
        dry.apply_later("p", entity("later", "")).await.expect("an apply");
        dry.apply_later("elsewhere", entity("later", "")).await.expect("an apply");
        dry.delete(Kind::Entity, "p", "driver").await.expect("a deletion");
        dry.delete_view("p", "stats").await.expect("a deletion");
        dry.delete_project("p").await.expect("a deletion");
        let project = registry.get(Kind::Project, "p", "p", Freshness::Stored).await.expect("a project");
        let removal = dry.delete_project_as_seen(&project).await.expect("a deletion");
        assert!(matches!(removal, StorageRemoval::Kept), "{removal:?}");
        dry.apply_materialization("p", "stats", second(3), second(4)).await.expect("it could be recorded");
        let (start, end) = (second(1).expect("a moment"), second(2).expect("a moment"));
        dry.remove_materialization("p", "stats", start, end).await.expect("it could be removed");
        let metadata = Some(Bytes::from_static(b"attached"));
        dry.apply_user_metadata(Kind::FeatureView, "p", "stats", metadata).await.expect("it could be attached");
        assert_eq!(dry.undo(&plan).await.expect("an undo"), None);
        let error = dry.prune_journal(&crate::Retention::default()).await.expect_err("nobody can tell");
        assert_eq!(error.kind(), ErrorKind::Unsupported);

        dry.commit().await.expect("nothing waits");
        assert_eq!(read(&registry, "later", Freshness::Cached).await, None);
        assert_eq!(storage.commits().len(), commits);
        assert_eq!(storage.removals.load(Ordering::SeqCst), 0);
        assert_eq!(whole(&storage).await, before);
        // All of it can be done.
        assert!(registry.undo(&plan).await.expect("an undo").is_some());
        registry.delete_project("p").await.expect("a deletion");
        assert_eq!(storage.removals.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn errors_are_those_that_there_would_be() {
    let (registry, _) = filled(RegistryOptions::default()).await;
    let mut protected = crate::proto::core::Project::default();
    let spec = protected.spec.get_or_insert_default();
    spec.name = "kept".to_owned();
    spec.tags.insert(crate::encoded::PROTECTED_PROJECT_TAG.to_owned(), "true".to_owned());
    registry.apply("kept", Object::encode(&protected)).await.expect("an apply");
    for registry in [dry(&registry), registry] {
        let kind = |result: Result<()>| result.expect_err("it cannot be done").kind();
        let not_found = ErrorKind::NotFound(Kind::Entity);
        assert_eq!(kind(registry.delete(Kind::Entity, "p", "nobody").await), not_found);
        assert_eq!(kind(registry.delete_view("p", "nobody").await), ErrorKind::ViewNotFound);
        assert_eq!(kind(registry.delete_project("nowhere").await), ErrorKind::NotFound(Kind::Project));
        assert_eq!(kind(registry.delete_project("kept").await), ErrorKind::Protected);
        assert_eq!(
            kind(registry.apply("p", on_demand("stats")).await.map(drop)),
            ErrorKind::ConflictingFeatureViewNames
        );
        assert_eq!(kind(registry.apply("p", service("of_none", "nobody")).await.map(drop)), ErrorKind::FeatureNotFound);
        let broken = Object::new(Kind::Entity, &b"\xff\xff"[..]);
        assert_eq!(kind(registry.apply("p", broken).await.map(drop)), ErrorKind::InvalidArgument);
        let absent = Edit::apply(entity("driver", "")).when(Condition::absent());
        assert_eq!(kind(registry.edit("p", vec![absent], OPTIONS).await.map(drop)), ErrorKind::Changed);
        let edits = vec![Edit::apply(entity("more", "")), Edit::delete(Kind::Entity, "nobody")];
        assert_eq!(kind(registry.edit("p", edits, OPTIONS).await.map(drop)), not_found);
        let interval = registry.apply_materialization("p", "nobody", second(1), second(2)).await;
        assert_eq!(kind(interval), ErrorKind::NotFound(Kind::FeatureView));
    }
    let (read_only, storage) = open_with(RegistryOptions::default().for_reading()).await;
    let error = dry(&read_only).apply("p", entity("driver", "")).await.expect_err("it is only read");
    assert_eq!((error.kind(), storage.reads()), (ErrorKind::ReadOnly, 0));
}

/// What the cache holds may be old, and nothing is committed that would find that out.
#[tokio::test(start_paused = true)]
async fn what_would_be_done_is_decided_by_what_is_stored() {
    let (registry, storage) = filled(RegistryOptions::default()).await;
    registry.refresh().await.expect("a refresh");
    let dry = dry(&registry);
    let other = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, RegistryOptions::default()).await;
    other.expect("another process").apply("p", entity("driver", "theirs")).await.expect("theirs");
    assert!(!dry.apply("p", entity("driver", "theirs")).await.expect("an apply").has_changed);
    assert!(dry.apply("p", entity("driver", "before")).await.expect("an apply").has_changed);
}

/// What was acknowledged comes first, as for every write.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_commit_is_written_before() {
    let (registry, storage) = filled(RegistryOptions::default().with_defers(true)).await;
    registry.apply_later("p", entity("waiting", "own")).await.expect("an apply");
    let edited = dry(&registry).apply("p", entity("waiting", "own")).await.expect("an apply");
    assert!(!edited.has_changed);
    assert!(storage.stored(Kind::Entity, "waiting").await.is_some());
}

/// Fault: the audit log had it as something that was done.
#[tokio::test]
async fn a_witness_is_told_that_nothing_is_done() {
    let (registry, _) = filled(RegistryOptions::default()).await;
    for (name, role, actions) in [("readers", "reader", READ), ("writers", "writer", WRITE)] {
        registry.apply("p", Object::encode(&grant(name, role, &[], &[], actions))).await.expect("an apply");
    }
    let rules = Arc::new(AccessRules::default().with_unprotected(Unprotected::Deny));
    for (role, is_allowed) in [("reader", false), ("writer", true)] {
        for is_dry in [true, false] {
            let notes = Arc::new(Notes::default());
            let access = Access::new(Arc::new(Identity::new("ann").with_roles([role])), Arc::clone(&rules));
            let call = CallOptions::new().with_access(access.with_witness(Arc::clone(&notes) as _));
            let caller = registry.with_call(if is_dry { call.dry() } else { call });
            let applied = caller.apply("p", entity("driver", "after")).await;
            assert_eq!(applied.is_ok(), is_allowed, "{applied:?}");
            let decided = notes.decided.lock().expect("not poisoned").clone();
            let told: Vec<_> = decided.iter().map(|one| (one.decision.is_allowed, one.is_dry)).collect();
            assert_eq!(told, [(is_allowed, is_dry)], "{decided:?}");
        }
    }
}

fn on_demand(name: &str) -> Object {
    let spec = OnDemandFeatureViewSpec { name: name.to_owned(), ..Default::default() };
    Object::encode(&OnDemandFeatureView { spec: Some(spec), meta: None })
}

fn service(name: &str, of: &str) -> Object {
    let projection = FeatureViewProjection { feature_view_name: of.to_owned(), ..Default::default() };
    let spec = FeatureServiceSpec { name: name.to_owned(), features: vec![projection], ..Default::default() };
    Object::encode(&FeatureService { spec: Some(spec), meta: None })
}

/// An edit of something that others of these are about too.
fn edits() -> impl Strategy<Value = Edit> {
    let name = prop::sample::select(vec!["a", "b", "stats"]);
    let text = prop::sample::select(vec!["", "one", "two"]);
    let object = (0..5_usize, name.clone(), text).prop_map(|(which, name, text)| match which {
        0 | 1 => entity(name, text),
        2 => view(name, if text.is_empty() { &["x"] } else { &["x", "y"] }),
        3 => on_demand(name),
        _ => service("service", name),
    });
    let kinds = vec![Kind::Entity, Kind::FeatureView, Kind::OnDemandFeatureView, Kind::FeatureService];
    let edit = prop_oneof![
        4 => object.clone().prop_map(Edit::Apply),
        1 => object.prop_map(Edit::ApplyKnown),
        2 => (prop::sample::select(kinds), name).prop_map(|(kind, name)| Edit::delete(kind, name)),
    ];
    (edit, 0..8_usize).prop_map(|(edit, which)| match which {
        0 => edit.when(Condition::absent()),
        1 | 2 => edit.when(Condition::present()),
        3 => edit
            .when(Condition::new("it is not long", |object| object.is_none_or(|object| object.bytes.len() % 2 == 0))),
        _ => edit,
    })
}

type Told = std::result::Result<Vec<(bool, Option<i32>)>, (ErrorKind, String)>;

fn told(edited: Result<Vec<Edited>>) -> Told {
    match edited {
        Ok(edited) => Ok(edited.into_iter().map(|edited| (edited.has_changed, edited.version)).collect()),
        Err(error) => Err((error.kind(), error.to_string())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_would_be_done_is_what_is_done_then(batches in vec((vec(edits(), 1..4), any::<bool>()), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (registry, storage) = open().await;
            let dry = dry(&registry);
            for (edits, no_promote) in batches {
                let options = ApplyOptions { no_promote };
                let before = whole(&storage).await;
                let would_be = told(dry.edit("p", edits.clone(), options).await);
                assert_eq!(whole(&storage).await, before);
                let is = told(registry.edit("p", edits.clone(), options).await);
                assert_eq!(would_be, is, "{edits:?}");
            }
        });
    }
}
