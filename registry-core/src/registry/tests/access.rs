//! What a caller may see and do.

mod history;

use prost_types::Timestamp;

use super::*;
use crate::ApplyOptions;
use crate::access::{Access, AccessRules, Action, Decided, Identity, Reason, Unprotected, Witness};
use crate::journal::JournalFilter;
use crate::proto::core::permission_spec::{AuthzedAction, Type};
use crate::proto::core::policy::PolicyType;
use crate::proto::core::{
    FeatureService, FeatureServiceSpec, FeatureViewProjection, Permission, PermissionSpec, Policy, Project,
    ProjectSpec, RoleBasedPolicy,
};
use crate::rules::UndoOptions;

pub(super) const READ: &[AuthzedAction] = &[AuthzedAction::Describe];
pub(super) const WRITE: &[AuthzedAction] = &[
    AuthzedAction::Create,
    AuthzedAction::Describe,
    AuthzedAction::Update,
    AuthzedAction::Delete,
    AuthzedAction::WriteOnline,
];

/// A permission for a role.
pub(super) fn grant(
    name: &str,
    role: &str,
    types: &[Type],
    patterns: &[&str],
    actions: &[AuthzedAction],
) -> Permission {
    let policy = PolicyType::RoleBasedPolicy(RoleBasedPolicy { roles: vec![role.to_owned()] });
    let spec = PermissionSpec {
        name: name.to_owned(),
        types: types.iter().map(|of| *of as i32).collect(),
        name_patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
        actions: actions.iter().map(|action| *action as i32).collect(),
        policy: Some(Policy { policy_type: Some(policy), ..Policy::default() }),
        ..PermissionSpec::default()
    };
    Permission { spec: Some(spec), meta: None }
}

/// A registry whose project `p` readers may read and writers may write, with an entity, a view and a service in it.
async fn ruled() -> Registry {
    let (registry, _) = open().await;
    for object in [
        entity("driver", ""),
        view("stats", &["a"]),
        Object::encode(&grant("readers", "reader", &[], &[], READ)),
        Object::encode(&grant("writers", "writer", &[], &[], WRITE)),
    ] {
        registry.apply("p", object).await.expect("an apply");
    }
    registry
}

fn rules() -> Arc<AccessRules> {
    Arc::new(AccessRules::default().with_unprotected(Unprotected::Deny))
}

fn access(name: &str, roles: &[&str]) -> Access {
    Access::new(Arc::new(Identity::new(name).with_roles(roles.iter().copied())), rules())
}

fn called(registry: &Registry, access: Access) -> Registry {
    registry.with_call(CallOptions::new().with_access(access))
}

fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error = result.expect_err("it is not permitted");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    error.to_string()
}

async fn names(registry: &Registry, kind: Kind, project: Option<&str>) -> Vec<String> {
    let mut all = Vec::new();
    for freshness in [Freshness::Cached, Freshness::Stored] {
        let listed = registry.list(kind, project, &ListFilter::all(), freshness).await.expect("a list");
        all.push(listed.iter().map(|object| object.name().expect("a name")).collect::<Vec<_>>());
    }
    assert_eq!(all[0], all[1], "the cache and the storage show the same");
    all.remove(0)
}

#[tokio::test]
async fn a_reader_reads_and_a_writer_writes() {
    let registry = ruled().await;
    let (reader, writer) =
        (called(&registry, access("ann", &["reader"])), called(&registry, access("bob", &["writer"])));
    for freshness in [Freshness::Cached, Freshness::Stored] {
        reader.get(Kind::Entity, "p", "driver", freshness).await.expect("a reader may");
        reader.get_any_view("p", "stats", freshness).await.expect("a reader may");
        let absent = reader.get(Kind::Entity, "p", "nobody", freshness).await.expect_err("there is none");
        assert_eq!(absent.kind(), ErrorKind::NotFound(Kind::Entity));
    }
    refused(reader.apply("p", entity("driver", "")).await);
    refused(reader.apply("p", entity("driver", "changed")).await);
    refused(reader.apply("p", entity("new", "")).await);
    refused(reader.apply_later("p", entity("new", "")).await);
    refused(reader.delete(Kind::Entity, "p", "driver").await);
    refused(reader.delete(Kind::Entity, "p", "nobody").await);
    refused(reader.delete_view("p", "stats").await);
    refused(reader.delete_project("p").await);
    refused(reader.apply_user_metadata(Kind::FeatureView, "p", "stats", Some(Bytes::from_static(b"x"))).await);
    let (start, end) = (Timestamp { seconds: 1, nanos: 0 }, Timestamp { seconds: 2, nanos: 0 });
    refused(reader.apply_materialization("p", "stats", Some(start), Some(end)).await);
    refused(reader.prune_journal(&crate::Retention::default()).await);
    // Nothing of it was done.
    assert_eq!(names(&registry, Kind::Entity, Some("p")).await, ["driver"]);

    writer.apply("p", entity("driver", "changed")).await.expect("a writer may");
    writer.apply("p", entity("new", "")).await.expect("a writer may");
    writer.apply_materialization("p", "stats", Some(start), Some(end)).await.expect("a writer may");
    writer
        .apply_user_metadata(Kind::FeatureView, "p", "stats", Some(Bytes::from_static(b"x")))
        .await
        .expect("they may");
    writer.delete(Kind::Entity, "p", "new").await.expect("a writer may");
    let absent = writer.delete(Kind::Entity, "p", "new").await.expect_err("it is gone");
    assert_eq!(absent.kind(), ErrorKind::NotFound(Kind::Entity));
    writer.delete_view("p", "stats").await.expect("a writer may");
    writer.delete_project("p").await.expect("a writer may");
}

/// What is not there, and what is there and hidden, are told of in the same words.
#[tokio::test]
async fn a_stranger_cannot_tell_what_is_there() {
    let registry = ruled().await;
    let stranger = called(&registry, access("eve", &["other"]));
    let alike = |one: String, other: String, (name, absent): (&str, &str)| {
        assert_eq!(one.replace(name, "…"), other.replace(absent, "…"));
    };
    let both = ("driver", "nobody");
    for freshness in [Freshness::Cached, Freshness::Stored] {
        let get = async |name| refused(stranger.get(Kind::Entity, "p", name, freshness).await);
        alike(get("driver").await, get("nobody").await, both);
        let any = async |name| refused(stranger.get_any_view("p", name, freshness).await);
        alike(any("stats").await, any("nobody").await, ("stats", "nobody"));
        let project = async |name| refused(stranger.get(Kind::Project, name, name, freshness).await);
        alike(project("p").await, project("nowhere").await, ("p`", "nowhere`"));
        refused(stranger.get_infra("p", freshness).await);
        assert!(stranger.lineage("p", freshness).await.expect("lineage").direct.is_empty());
        assert!(stranger.list_features("p", freshness).await.expect("features").is_empty());
        assert!(stranger.proto(freshness).await.expect("everything").as_bytes().is_empty());
        refused(stranger.list_project_metadata("p", freshness).await);
    }
    let apply = async |name| refused(stranger.apply("p", entity(name, "")).await);
    alike(apply("driver").await, apply("nobody").await, both);
    let delete = async |name| refused(stranger.delete(Kind::Entity, "p", name).await);
    alike(delete("driver").await, delete("nobody").await, both);
    let delete_view = async |name| refused(stranger.delete_view("p", name).await);
    alike(delete_view("stats").await, delete_view("nobody").await, ("stats", "nobody"));
    let delete_project = async |name| refused(stranger.delete_project(name).await);
    alike(delete_project("p").await, delete_project("nowhere").await, ("p`", "nowhere`"));
    let materialize = async |name| {
        let (start, end) = (Some(Timestamp::default()), Some(Timestamp::default()));
        refused(stranger.apply_materialization("p", name, start, end).await)
    };
    alike(materialize("stats").await, materialize("nobody").await, ("stats", "nobody"));
    let metadata = async |name| refused(stranger.get_user_metadata(Kind::FeatureView, "p", name).await);
    alike(metadata("stats").await, metadata("nobody").await, ("stats", "nobody"));
    for kind in Kind::ALL {
        for project in [Some("p"), Some("nowhere"), None] {
            assert!(names(&stranger, *kind, project).await.is_empty(), "{kind} of {project:?}");
        }
    }
    assert!(stranger.list_versions("p", "stats").await.expect("a list").is_empty());
    let version = stranger.get_version("p", "stats", 0).await.expect_err("it is hidden");
    assert_eq!(version.kind(), ErrorKind::VersionNotFound);
    assert!(stranger.inventory().await.expect("counts").is_empty());
    assert!(stranger.log(&LogQuery::new(JournalFilter::new(), 100)).await.expect("a log").is_empty());
    let entries = stranger.journal(&JournalQuery::after(None, 100)).await.expect("entries");
    assert!(entries.iter().all(|entry| entry.changes.is_empty() && entry.author.is_none()));
    assert!(stranger.changes_between(None, None, &JournalFilter::new()).await.expect("changes").is_empty());
    let first = entries[0].revision;
    assert_eq!(stranger.journal_entry(first).await.expect_err("it is hidden").kind(), ErrorKind::InvalidArgument);
    refused(stranger.plan_undo(&Undo::Revert(first), UndoOptions::default()).await);
}

/// A view of another kind has the name, and is not for everybody to know.
#[tokio::test]
async fn a_hidden_object_is_not_there_for_what_is_applied() {
    let (registry, _) = open().await;
    registry.apply("p", view("secret", &["salary"])).await.expect("an apply");
    registry.apply("p", view("open", &["a"])).await.expect("an apply");
    let types = [Type::OnDemandFeatureView, Type::FeatureService];
    registry.apply("p", Object::encode(&grant("team", "team", &types, &[], WRITE))).await.expect("an apply");
    let opened = grant("open", "team", &[Type::FeatureView], &["open"], WRITE);
    registry.apply("p", Object::encode(&opened)).await.expect("an apply");
    let team = called(&registry, access("tim", &["team"]));

    let service = |of: &str| {
        let projection = FeatureViewProjection { feature_view_name: of.to_owned(), ..Default::default() };
        let spec = FeatureServiceSpec { name: "service".to_owned(), features: vec![projection], ..Default::default() };
        Object::encode(&FeatureService { spec: Some(spec), meta: None })
    };
    let hidden = team.apply("p", service("secret")).await.expect_err("the view is hidden");
    let absent = team.apply("p", service("nothing")).await.expect_err("there is no such view");
    assert_eq!((hidden.kind(), absent.kind()), (ErrorKind::FeatureNotFound, ErrorKind::FeatureNotFound));
    assert_eq!(hidden.to_string().replace("secret", "…"), absent.to_string().replace("nothing", "…"));
    team.apply("p", service("open")).await.expect("its view may be seen");

    let mut on_demand = crate::proto::core::OnDemandFeatureView::default();
    on_demand.spec.get_or_insert_default().name = "secret".to_owned();
    refused(team.apply("p", Object::encode(&on_demand)).await);
    // What they may see may be told.
    on_demand.spec.get_or_insert_default().name = "open".to_owned();
    let conflict = team.apply("p", Object::encode(&on_demand)).await.expect_err("the name is taken");
    assert_eq!(conflict.kind(), ErrorKind::ConflictingFeatureViewNames);
    // A view that is there and hidden is as one that is not, also for who may delete some.
    let told = |error: Error| (error.kind(), error.to_string().replace("secret", "…").replace("nothing", "…"));
    let hidden = told(team.delete_view("p", "secret").await.expect_err("it is hidden"));
    assert_eq!(hidden, told(team.delete_view("p", "nothing").await.expect_err("it is not there")));
    let hidden = told(team.get_any_view("p", "secret", Freshness::Cached).await.expect_err("it is hidden"));
    assert_eq!(hidden, told(team.get_any_view("p", "nothing", Freshness::Cached).await.expect_err("it is not there")));
    assert_eq!(names(&team, Kind::FeatureView, Some("p")).await, ["open"]);
    assert_eq!(team.list_features("p", Freshness::Cached).await.expect("features").len(), 1);
}

#[tokio::test]
async fn each_object_is_judged_by_the_permissions_of_its_own_project() {
    let registry = ruled().await;
    registry.apply("q", entity("rider", "")).await.expect("an apply");
    registry.apply("q", Object::encode(&grant("team", "q-team", &[], &[], WRITE))).await.expect("an apply");
    let team = called(&registry, access("tim", &["q-team"]));
    assert_eq!(names(&team, Kind::Project, None).await, ["q"]);
    assert_eq!(names(&team, Kind::Entity, None).await, ["rider"]);
    // Inside the object stands another project than the one that it is for.
    let mut foreign = crate::proto::core::Entity::default();
    *foreign.spec.get_or_insert_default() =
        EntitySpecV2 { name: "driver".into(), project: "q".into(), ..EntitySpecV2::default() };
    refused(team.apply("p", Object::encode(&foreign)).await);
    foreign.spec.get_or_insert_default().project = "p".into();
    team.apply("q", Object::encode(&foreign)).await.expect("it is stored in their own");
    assert_eq!(names(&team, Kind::Entity, None).await, ["rider", "driver"]);
    assert_eq!(names(&registry, Kind::Entity, Some("p")).await, ["driver"]);
    let stored: Entity = registry.get_message("q", "driver", Freshness::Stored).await.expect("it is stored");
    assert_ne!(stored.spec.unwrap_or_default().project, "p");
    let everything =
        team.proto(Freshness::Stored).await.expect("all that they may see").to_message().expect("a message");
    assert_eq!((everything.projects.len(), everything.entities.len(), everything.permissions.len()), (1, 2, 1));
}

#[tokio::test]
async fn who_makes_a_project_has_it() {
    let (registry, _) = open().await;
    let (ann, eve) = (called(&registry, access("ann", &[])), called(&registry, access("eve", &[])));
    // Feast's client looks first.
    for freshness in [Freshness::Cached, Freshness::Stored] {
        ann.get_infra("p", freshness).await.expect("who may make a project may look");
    }
    ann.refresh_for("p").await.expect("the same");
    ann.apply("p", entity("driver", "")).await.expect("anybody may make a project");
    ann.apply("p", entity("driver", "changed")).await.expect("it is theirs");
    refused(eve.apply("p", entity("driver", "")).await);
    refused(eve.get_infra("p", Freshness::Cached).await);
    refused(eve.refresh_for("p").await);
    refused(eve.get(Kind::Entity, "p", "driver", Freshness::Cached).await);
    // Also where it waits for its commit.
    let (waiting, _) = open_with(RegistryOptions::default().with_defers(true)).await;
    let ann_waits = called(&waiting, access("ann", &[]));
    ann_waits.apply_later("p", entity("driver", "")).await.expect("anybody may make a project");
    ann_waits.commit().await.expect("a commit");
    ann_waits.apply("p", entity("rider", "")).await.expect("it is theirs");
    refused(called(&waiting, access("eve", &[])).apply("p", entity("driver", "")).await);
    // A project that is made again is somebody else's, and with it nothing of the former.
    ann.delete_project("p").await.expect("it is theirs");
    tokio::time::sleep(Duration::from_millis(2)).await;
    eve.apply("p", entity("rider", "")).await.expect("nobody has it");
    refused(ann.get(Kind::Entity, "p", "rider", Freshness::Cached).await);
    let log = eve.log(&LogQuery::new(JournalFilter::new(), 100)).await.expect("a log");
    assert_eq!(log.len(), 1, "what was in the former project is not theirs: {log:?}");

    let strict = AccessRules::default().with_unprotected(Unprotected::Deny).with_anyone_creating_projects(false);
    let strict = Arc::new(strict);
    let nobody = Access::new(Arc::new(Identity::new("tim")), Arc::clone(&strict));
    let nobody = called(&registry, nobody);
    refused(nobody.get_infra("new", Freshness::Cached).await);
    refused(nobody.refresh_for("new").await);
    // It is not told whether there is such a project.
    let of_new = refused(nobody.apply("new", entity("driver", "")).await);
    let of_other = refused(nobody.apply("p", entity("driver", "")).await);
    assert_eq!(of_new.replace("`new`", "…"), of_other.replace("`p`", "…"));
    let admin = Access::new(Arc::new(Identity::new("root")), strict).as_admin();
    called(&registry, admin).apply("new", entity("driver", "")).await.expect("administrators may");
}

#[tokio::test]
async fn a_project_without_permissions_is_open_or_closed() {
    let (registry, _) = open().await;
    registry.apply("p", entity("driver", "")).await.expect("an apply");
    let open = Access::new(Arc::new(Identity::new("ann")), Arc::new(AccessRules::default()));
    called(&registry, open.clone()).apply("p", entity("driver", "changed")).await.expect("everybody may do everything");
    refused(called(&registry, access("ann", &[])).apply("p", entity("driver", "")).await);
    let decision = registry.decide(&open, Action::Delete, (Kind::Entity, "p", "driver")).await.expect("a decision");
    assert_eq!((decision.is_allowed, decision.reason), (true, Reason::NoPermissions));
    // With the first permission, that holds.
    registry.apply("p", Object::encode(&grant("readers", "reader", &[], &[], READ))).await.expect("an apply");
    refused(called(&registry, open).apply("p", entity("driver", "")).await);
}

/// An explanation names what each permission lacks, and decides as the rest does.
#[tokio::test]
async fn a_decision_can_be_explained() {
    let registry = ruled().await;
    let mut odd = grant("odd", "auditor", &[Type::FeatureView], &["x.*"], READ);
    if let Some(spec) = &mut odd.spec {
        spec.required_tags.insert("team".to_owned(), "ml".to_owned());
    }
    registry.apply("p", Object::encode(&odd)).await.expect("an apply");
    let driver = (Kind::Entity, "p", "driver");
    let explained =
        registry.explain(&access("ann", &["reader"]), Action::Delete, driver).await.expect("it is explained");
    assert_eq!((explained.decision.is_allowed, explained.decision.reason), (false, Reason::NoneGrants));
    let lacks = explained.weighed.iter().map(|weighed| {
        let lacks: Vec<String> = weighed.lacks.iter().map(ToString::to_string).collect();
        (&*weighed.permission, lacks.join("; "))
    });
    let expected = [
        ("readers", "it does not allow DELETE"),
        ("writers", "it is for the roles writer"),
        (
            "odd",
            "it does not allow DELETE; it is about other types; none of its name patterns matches; it requires the tags team=ml; it is for \
             the roles auditor",
        ),
    ];
    let mut lacks: Vec<_> = lacks.collect();
    lacks.sort_unstable_by_key(|(name, _)| expected.iter().position(|(known, _)| known == name));
    assert_eq!(lacks, expected.map(|(name, lacks)| (name, lacks.to_owned())));
    for (roles, action) in [(&["writer"][..], Action::Delete), (&["reader"], Action::Describe), (&[], Action::Describe)]
    {
        let explained = registry.explain(&access("ann", roles), action, driver).await.expect("it is explained");
        let granted = explained.weighed.iter().any(|weighed| weighed.lacks.is_empty());
        assert_eq!(granted, explained.decision.is_allowed, "{roles:?} {action}");
    }
}

/// Fault: whose a project is was decided by the cache alone, so that whoever came within a second took over what another had just made,
/// on another server or where it waited for its commit, for good.
#[tokio::test(start_paused = true)]
async fn nobody_takes_over_a_project_that_another_has_just_made() {
    let storage = Arc::new(Moody::default());
    let open = async |options: RegistryOptions| {
        let registry = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, options).await.expect("a registry");
        registry.refresh().await.expect("a refresh");
        registry
    };
    let here = open(RegistryOptions::default()).await;
    let there = open(RegistryOptions::default()).await;
    let all = || Object::encode(&grant("all", "mallory", &[], &[], WRITE));
    let of = |registry: &Registry, name: &str| called(registry, access(name, &["mallory"]));

    of(&here, "ann").apply("p", entity("driver", "secret")).await.expect("nobody has it");
    refused(of(&there, "eve").apply("p", all()).await);
    refused(of(&there, "eve").apply("p", entity("rider", "")).await);
    refused(of(&there, "eve").delete(Kind::Entity, "p", "driver").await);
    of(&there, "ann").apply("p", entity("rider", "")).await.expect("it is theirs everywhere at once");

    // Who made one that is gone does not have the next of its name.
    of(&here, "eve").apply("q", entity("driver", "")).await.expect("nobody has it");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(read(&there, "driver", Freshness::Cached).await.is_some());
    here.delete_project("q").await.expect("a deletion");
    of(&here, "ann").apply("q", entity("driver", "secret")).await.expect("nobody has it");
    refused(of(&there, "eve").apply("q", all()).await);
    refused(of(&there, "eve").apply("q", entity("driver", "")).await);
    refused(of(&there, "eve").delete_project("q").await);
}

/// The same where it waits for its commit.
#[tokio::test(start_paused = true)]
async fn nobody_takes_over_a_project_that_waits_for_its_commit() {
    let storage = Arc::new(Moody::default());
    let open = async |options: RegistryOptions| {
        let registry = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, options).await.expect("a registry");
        registry.refresh().await.expect("a refresh");
        registry
    };
    let (waiting, there) =
        (open(RegistryOptions::default().with_defers(true)).await, open(RegistryOptions::default()).await);
    let of = |registry: &Registry, name: &str| called(registry, access(name, &["eve"]));
    let all = || Object::encode(&grant("all", "eve", &[], &[], WRITE));
    of(&waiting, "ann").apply_later("p", entity("driver", "secret")).await.expect("nobody has it");
    refused(of(&waiting, "eve").apply_later("p", all()).await);
    refused(of(&waiting, "eve").get(Kind::Entity, "p", "driver", Freshness::Cached).await);
    of(&waiting, "ann").apply_later("p", entity("driver", "changed")).await.expect("it is theirs already");
    of(&waiting, "ann").get(Kind::Entity, "p", "driver", Freshness::Cached).await.expect("it is theirs already");
    // What is granted and taken away counts before it is written.
    let readers = |role: &str| Object::encode(&grant("readers", role, &[], &[], READ));
    of(&waiting, "ann").apply_later("p", readers("eve")).await.expect("it is theirs");
    of(&waiting, "eve").get(Kind::Entity, "p", "driver", Freshness::Cached).await.expect("it is granted");
    of(&waiting, "ann").apply_later("p", readers("nobody")).await.expect("it is theirs");
    refused(of(&waiting, "eve").get(Kind::Entity, "p", "driver", Freshness::Cached).await);
    waiting.commit().await.expect("a commit");
    refused(of(&waiting, "eve").apply("p", all()).await);

    // What waits is not written into a project that another has made meanwhile.
    of(&waiting, "eve").apply_later("r", all()).await.expect("nobody has it");
    of(&waiting, "eve").apply_later("r", entity("hers", "")).await.expect("it is theirs");
    of(&there, "ann").apply("r", entity("driver", "secret")).await.expect("nobody has it");
    waiting.commit().await.expect_err("it can never be written");
    let stored = storage.inner.all();
    assert!(!stored.iter().any(|record| record.key == Key::object(Kind::Permission, "r", "all")), "{stored:?}");
    assert!(!stored.iter().any(|record| record.key == Key::object(Kind::Entity, "r", "hers")), "{stored:?}");
    refused(of(&there, "eve").get(Kind::Entity, "r", "driver", Freshness::Cached).await);

    // Each commit has one author.
    for name in ["ann", "bob"] {
        let call = CallOptions::new().with_access(access(name, &[])).with_author(name);
        waiting.with_call(call).apply_later(&format!("of_{name}"), entity("driver", "")).await.expect("an apply");
    }
    waiting.commit().await.expect_err("what was lost is told of");
    let journal = waiting.journal(&JournalQuery::before(None, 2)).await.expect("the journal");
    let authors: Vec<_> = journal.iter().filter_map(|entry| entry.author.as_deref()).collect();
    assert_eq!(authors, ["bob", "ann"]);
}

/// Each object of a list is held against all of them.
#[tokio::test]
async fn a_project_has_room_for_so_many_permissions() {
    let (registry, _) = open().await;
    let ann = called(&registry, access("ann", &[]));
    ann.apply("p", entity("driver", "")).await.expect("it is theirs");
    let large = |number: usize| {
        let patterns: Vec<String> = (0..99).map(|pattern| format!("stats{pattern:02}_[a-z]*")).collect();
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        Object::encode(&grant(&format!("{number}"), "role", &[], &patterns, READ))
    };
    let all = (0..13).map(large).collect();
    ann.apply_all("p", all, ApplyOptions::default()).await.expect("there is room for 13 of 298");
    ann.apply("p", large(7)).await.expect("it replaces one");
    let error = ann.apply("p", large(20)).await.expect_err("there is no room");
    assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains("4172"), "{error}");
    refused(called(&registry, access("eve", &[])).apply("p", large(20)).await);
    ann.apply("q", large(20)).await.expect("another project has its own");
    registry.apply("p", large(20)).await.expect("whoever embeds a registry does as they like");
}

#[tokio::test]
async fn required_tags_restrict() {
    let (registry, _) = open().await;
    let tagged = |name: &str, team: &str| {
        let mut entity = Entity::default();
        let spec = entity.spec.get_or_insert_default();
        spec.name = name.to_owned();
        spec.tags = [("team".to_owned(), team.to_owned())].into();
        Object::encode(&entity)
    };
    registry.apply("p", tagged("mine", "a")).await.expect("an apply");
    registry.apply("p", tagged("theirs", "b")).await.expect("an apply");
    let mut permission = grant("team", "team", &[Type::Entity], &[], WRITE);
    permission.spec.get_or_insert_default().required_tags = [(" team ".to_owned(), "a".to_owned())].into();
    registry.apply("p", Object::encode(&permission)).await.expect("an apply");
    let team = called(&registry, access("tim", &["team"]));
    assert_eq!(names(&team, Kind::Entity, Some("p")).await, ["mine"]);
    team.apply("p", tagged("new", "a")).await.expect("with the tag they may");
    refused(team.apply("p", tagged("other", "b")).await);
    // Neither by taking it over nor by giving it away.
    refused(team.apply("p", tagged("theirs", "a")).await);
    refused(team.apply("p", tagged("mine", "b")).await);
    refused(team.delete(Kind::Entity, "p", "theirs").await);
    team.delete(Kind::Entity, "p", "mine").await.expect("with the tag they may");
}

#[tokio::test]
async fn what_is_granted_and_taken_away_holds_at_once_here() {
    let registry = ruled().await;
    let ann = called(&registry, access("ann", &["reader"]));
    let sees = async || ann.get(Kind::Entity, "p", "driver", Freshness::Cached).await.is_ok();
    assert!(sees().await);
    registry.delete(Kind::Permission, "p", "readers").await.expect("a deletion");
    assert!(!sees().await);
    registry
        .apply("p", Object::encode(&grant("r", "reader", &[Type::Entity], &["dri.*"], READ)))
        .await
        .expect("an apply");
    assert!(sees().await);
    registry
        .apply("p", Object::encode(&grant("r", "reader", &[Type::Entity], &["rid.*"], READ)))
        .await
        .expect("an apply");
    assert!(!sees().await);
}

#[tokio::test]
async fn a_protected_project_is_not_deleted() {
    let (registry, _) = open().await;
    let project = |value: &str| {
        let tags = [("feast.dev/protected-project".to_owned(), value.to_owned())].into();
        let spec = ProjectSpec { name: "p".to_owned(), tags, ..ProjectSpec::default() };
        Object::encode(&Project { spec: Some(spec), meta: None })
    };
    registry.apply("p", project("true")).await.expect("an apply");
    let made = registry.journal(&JournalQuery::before(None, 1)).await.expect("the journal")[0].revision;
    let refused = registry.delete_project("p").await.expect_err("it is protected");
    assert_eq!(refused.kind(), ErrorKind::Protected);
    let seen = registry.get(Kind::Project, "p", "p", Freshness::Stored).await.expect("it is there");
    let refused = registry.delete_project_as_seen(&seen).await.expect_err("it is protected");
    assert_eq!(refused.kind(), ErrorKind::Protected);
    let plan = registry.plan_undo(&Undo::Revert(made), UndoOptions::default()).await.expect("a plan");
    assert_eq!(plan.check().expect_err("it is protected").kind(), ErrorKind::Protected);
    registry.apply("p", project("false")).await.expect("an apply");
    registry.delete_project("p").await.expect("it is protected no more");
}

#[tokio::test]
async fn a_permission_that_cannot_be_enforced_is_refused_by_name() {
    let (registry, _) = open().await;
    let refused = registry.apply("p", Object::encode(&grant("odd", "r", &[], &["ok", "(?=a)b"], READ))).await;
    let refused = refused.expect_err("it cannot be enforced");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    for part in ["`odd`", "`p`", "`(?=a)b`", "looks around"] {
        assert!(refused.to_string().contains(part), "{refused}");
    }
}

/// Notes what was decided, or fails to.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) decided: Mutex<Vec<Decided>>,
    fails: AtomicBool,
}

#[async_trait]
impl Witness for Notes {
    async fn note(&self, _: &Access, decided: &[Decided]) -> Result<()> {
        self.decided.lock().expect("not poisoned").extend(decided.iter().cloned());
        match self.fails.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "the audit log is full")),
            false => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_witness_is_told_before_anything_is_done() {
    let registry = ruled().await;
    let notes = Arc::new(Notes::default());
    let witnessed = |access: Access| called(&registry, access.with_witness(Arc::clone(&notes) as Arc<dyn Witness>));
    let told = || {
        let decided = std::mem::take(&mut *notes.decided.lock().expect("not poisoned"));
        let told = decided.iter().map(|one| {
            let (actions, name, allowed) = (one.actions, &one.name, one.decision.is_allowed);
            format!("{actions} {} {}/{name}: {allowed}, {}", one.kind, one.project, one.decision.reason)
        });
        told.collect::<Vec<_>>()
    };
    let (reader, writer) = (witnessed(access("ann", &["reader"])), witnessed(access("bob", &["writer"])));
    reader.get(Kind::Entity, "p", "driver", Freshness::Cached).await.expect("a reader may");
    assert_eq!(told(), [""; 0], "what is read is not noted");
    writer.apply("p", entity("driver", "x")).await.expect("a writer may");
    assert_eq!(told(), ["DESCRIBE and UPDATE entity p/driver: true, permission `writers` grants it"]);
    writer.apply("p", entity("driver", "x")).await.expect("nothing is to be written");
    assert_eq!(told().len(), 1);
    refused(reader.apply("p", entity("driver", "y")).await);
    assert_eq!(told(), ["DESCRIBE and UPDATE entity p/driver: false, no permission of the project grants it"]);
    refused(witnessed(access("eve", &[])).get(Kind::Entity, "p", "driver", Freshness::Cached).await);
    assert_eq!(told(), ["DESCRIBE entity p/driver: false, no permission of the project grants it"]);
    notes.fails.store(true, Ordering::SeqCst);
    let failed = writer.apply("p", entity("driver", "z")).await.expect_err("it cannot be noted");
    assert_eq!(failed.kind(), ErrorKind::Unavailable);
    let stored: Entity = registry.get_message("p", "driver", Freshness::Stored).await.expect("an entity");
    assert_eq!(stored.spec.unwrap_or_default().description, "x", "nothing was done");
    refused(reader.apply("p", entity("driver", "y")).await);
}
