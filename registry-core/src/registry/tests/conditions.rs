//! Edits that are done if something is so: it is so when they are committed, and not only when somebody looked.

use super::*;
use crate::access::{Access, AccessRules, Identity, Unprotected};
use crate::registry::edit::Condition;
use crate::rules::ApplyOptions;

const OPTIONS: ApplyOptions = ApplyOptions { no_promote: false };

/// It is as it was seen.
fn is(seen: &Bytes) -> Condition {
    let seen = seen.clone();
    Condition::new("is not as it was seen", move |object| object.is_some_and(|object| object.bytes == seen))
}

async fn edit(registry: &Registry, edits: Vec<Edit>) -> Result<Vec<bool>> {
    let edited = registry.edit("p", edits, OPTIONS).await?;
    Ok(edited.into_iter().map(|edited| edited.has_changed).collect())
}

fn kind_of<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.expect_err("it is refused").kind()
}

/// Another process on the same storage.
async fn other(storage: &Arc<Moody>) -> Registry {
    let storage = Arc::clone(storage) as Arc<dyn Backend>;
    Registry::open(storage, RegistryOptions::default()).await.expect("another process")
}

async fn open_with_driver() -> (Registry, Arc<Moody>, Bytes) {
    let (registry, storage) = open().await;
    registry.apply("p", entity("driver", "before")).await.expect("an apply");
    registry.refresh().await.expect("a refresh");
    let seen = storage.stored(Kind::Entity, "driver").await.expect("it is stored");
    (registry, storage, seen)
}

#[tokio::test]
async fn an_edit_is_done_if_its_condition_holds() {
    let (registry, storage, seen) = open_with_driver().await;
    let new = || Edit::apply(entity("new", ""));
    let driver = |description| Edit::apply(entity("driver", description));
    assert_eq!(kind_of(edit(&registry, vec![new().when(Condition::present())]).await), ErrorKind::Changed);
    assert_eq!(storage.stored(Kind::Entity, "new").await, None);
    assert_eq!(edit(&registry, vec![new().when(Condition::absent())]).await.expect("it is new"), [true]);
    assert_eq!(kind_of(edit(&registry, vec![new().when(Condition::absent())]).await), ErrorKind::Changed);
    assert_eq!(edit(&registry, vec![new().when(Condition::present())]).await.expect("it is there"), [false]);
    assert_eq!(edit(&registry, vec![driver("after").when(is(&seen))]).await.expect("it is as seen"), [true]);
    let error = edit(&registry, vec![driver("again").when(is(&seen))]).await.expect_err("it is not as seen");
    assert_eq!(error.kind(), ErrorKind::Changed);
    let text = "the entity `driver` of project `p` is not as it was seen; nothing was done";
    assert_eq!(error.to_string(), text);
    assert_eq!(read(&registry, "driver", Freshness::Stored).await.as_deref(), Some("after"));
    let delete = || Edit::delete(Kind::Entity, "driver");
    assert_eq!(kind_of(edit(&registry, vec![delete().when(is(&seen))]).await), ErrorKind::Changed);
    assert_eq!(kind_of(edit(&registry, vec![delete().when(Condition::absent())]).await), ErrorKind::Changed);
    assert_eq!(edit(&registry, vec![delete().when(Condition::present())]).await.expect("it is there"), [true]);
}

/// A view is deleted by its name, of whichever kind it is, on a condition as without one.
#[tokio::test]
async fn a_view_of_any_kind_is_deleted_on_a_condition() {
    let (registry, storage) = open().await;
    let delete = || Edit::delete_view("stats");
    let absent = edit(&registry, vec![delete().when(Condition::present())]).await;
    assert_eq!(kind_of(absent), ErrorKind::ViewNotFound, "what is not there is told before what it is not");
    let mut on_demand = crate::proto::core::OnDemandFeatureView::default();
    on_demand.spec.get_or_insert_default().name = "stats".to_owned();
    registry.apply("p", Object::encode(&on_demand)).await.expect("an apply");
    let seen = storage.stored(Kind::OnDemandFeatureView, "stats").await.expect("it is stored");
    let never = Condition::new("is never so", |_| false);
    let error = edit(&registry, vec![delete().when(never)]).await.expect_err("it does not hold");
    assert_eq!(error.to_string(), "the on demand feature view `stats` of project `p` is never so; nothing was done");
    assert_eq!(edit(&registry, vec![delete().when(is(&seen))]).await.expect("it is as seen"), [true]);
    assert_eq!(storage.stored(Kind::OnDemandFeatureView, "stats").await, None);
}

/// What has no name of its own, or is the project itself, has a state like all else.
#[tokio::test]
async fn conditions_are_about_objects_of_all_kinds() {
    let (registry, _) = open().await;
    let mut infra = crate::proto::core::Infra::default();
    infra.infra_objects.push(crate::proto::core::InfraObject::default());
    let mut project = crate::proto::core::Project::default();
    project.spec.get_or_insert_default().name = "p".to_owned();
    project.spec.get_or_insert_default().description = "said".to_owned();
    for object in [Object::encode(&project), Object::encode(&infra), view("stats", &["a"])] {
        let kind = object.kind;
        let apply = || Edit::apply(object.clone());
        assert_eq!(
            kind_of(edit(&registry, vec![apply().when(Condition::present())]).await),
            ErrorKind::Changed,
            "{kind}"
        );
        let done = edit(&registry, vec![apply().when(Condition::absent())]).await;
        assert_eq!(done.expect("it is not there"), [true], "{kind}");
        assert_eq!(
            kind_of(edit(&registry, vec![apply().when(Condition::absent())]).await),
            ErrorKind::Changed,
            "{kind}"
        );
    }
}

#[tokio::test]
async fn of_a_batch_later_conditions_see_what_earlier_edits_made() {
    let (registry, storage, seen) = open_with_driver().await;
    let edits = vec![
        Edit::apply(entity("driver", "after")).when(is(&seen)),
        Edit::apply(entity("new", "")).when(Condition::absent()),
        Edit::delete(Kind::Entity, "driver").when(Condition::new("it says `after`", |object| {
            object.is_some_and(|object| {
                object.decode::<Entity>().is_ok_and(|of| of.spec.is_some_and(|spec| spec.description == "after"))
            })
        })),
        Edit::apply(entity("driver", "anew")).when(Condition::absent()),
        Edit::apply(entity("new", "")).when(Condition::present()),
    ];
    assert_eq!(edit(&registry, edits).await.expect("all hold"), [true, true, true, true, false]);
    // One that does not hold, and nothing of the others is done.
    let before = storage.commits().len();
    let edits = vec![
        Edit::apply(entity("more", "")),
        Edit::delete(Kind::Entity, "new"),
        Edit::apply(entity("new", "")).when(Condition::present()),
    ];
    assert_eq!(kind_of(edit(&registry, edits).await), ErrorKind::Changed);
    assert_eq!(storage.commits().len(), before);
    assert_eq!(storage.stored(Kind::Entity, "more").await, None);
    assert!(storage.stored(Kind::Entity, "new").await.is_some());
}

#[tokio::test]
async fn all_of_several_conditions_must_hold() {
    let (registry, storage, seen) = open_with_driver().await;
    let driver = || Edit::apply(entity("driver", "after"));
    let no = || Condition::new("never", |_| false);
    for edits in [
        driver().when(no()).when(is(&seen)),
        driver().when(is(&seen)).when(no()),
        driver().when(is(&seen)).when(no()).when(Condition::present()),
    ] {
        assert_eq!(kind_of(edit(&registry, vec![edits]).await), ErrorKind::Changed);
    }
    assert_eq!(storage.stored(Kind::Entity, "driver").await, Some(seen.clone()));
    let all = driver().when(is(&seen)).when(Condition::present()).when(is(&seen));
    assert_eq!(edit(&registry, vec![all]).await.expect("all hold"), [true]);
    // What cannot be an edit cannot be one under a condition.
    let project = Edit::delete(Kind::Project, "p").when(Condition::present()).when(Condition::present());
    assert_eq!(kind_of(edit(&registry, vec![project]).await), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn of_many_writers_who_saw_the_same_one_writes() {
    let (_, storage, seen) = open_with_driver().await;
    for round in 0..5 {
        let seen =
            if round == 0 { seen.clone() } else { storage.stored(Kind::Entity, "driver").await.expect("it is there") };
        let mut writers = tokio::task::JoinSet::new();
        for number in 0..8 {
            let (registry, seen) = (other(&storage).await, seen.clone());
            if number % 2 == 0 {
                registry.refresh().await.expect("a refresh");
            }
            writers.spawn(async move {
                let apply = Edit::apply(entity("driver", &format!("{round} of {number}"))).when(is(&seen));
                edit(&registry, vec![apply]).await
            });
        }
        let outcomes = writers.join_all().await;
        let (done, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!(done.len(), 1, "{refused:?}");
        assert!(refused.into_iter().all(|refused| kind_of(refused) == ErrorKind::Changed));
    }
}

/// Another process has changed it between the decision and the commit.
#[tokio::test(start_paused = true)]
async fn a_condition_that_no_longer_holds_when_it_is_committed_is_asked_again() {
    for is_deleted in [false, true] {
        let (registry, storage, seen) = open_with_driver().await;
        storage.committing(Mood::Slow(Duration::from_secs(1)));
        let edits = vec![Edit::apply(entity("driver", "after")).when(is(&seen)), Edit::apply(entity("more", ""))];
        let interfere = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if is_deleted {
                let key = Key::object(Kind::Entity, "p", "driver");
                let commit = Commit::new(vec![], vec![Write::Delete(key)]);
                storage.inner.commit(commit, &Deadline::after(Duration::from_secs(1))).await.expect("it is done");
            } else {
                storage.plant(Key::object(Kind::Entity, "p", "driver"), entity("driver", "theirs").bytes).await;
            }
        };
        let commits = storage.commits().len();
        let (edited, ()) = tokio::join!(edit(&registry, edits), interfere);
        assert_eq!(kind_of(edited), ErrorKind::Changed, "deleted: {is_deleted}");
        assert_eq!(storage.commits().len() - commits, 1, "it was decided, committed, and decided again");
        assert_eq!(storage.stored(Kind::Entity, "more").await, None);
    }
    // What has been changed and still is so is no reason.
    let (registry, storage, _) = open_with_driver().await;
    storage.committing(Mood::Slow(Duration::from_secs(1)));
    let edits = vec![Edit::apply(entity("driver", "after")).when(Condition::present())];
    let interfere = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        storage.plant(Key::object(Kind::Entity, "p", "driver"), entity("driver", "theirs").bytes).await;
    };
    let (edited, ()) = tokio::join!(edit(&registry, edits), interfere);
    assert_eq!(edited.expect("it is there"), [true]);
    assert_eq!(read(&registry, "driver", Freshness::Stored).await.as_deref(), Some("after"));
}

/// Another process has written meanwhile, and the cache does not know.
#[tokio::test(start_paused = true)]
async fn what_the_cache_holds_decides_about_no_condition() {
    let (registry, storage, seen) = open_with_driver().await;
    let theirs = entity("driver", "theirs").bytes;
    storage.plant(Key::object(Kind::Entity, "p", "driver"), theirs.clone()).await;
    storage.plant(Key::object(Kind::Entity, "p", "rider"), entity("rider", "theirs").bytes).await;
    // By what is held it holds, and is the only edit that writes nothing.
    let same = Edit::apply(entity("driver", "before")).when(is(&seen));
    let edits = vec![same, Edit::apply(entity("more", ""))];
    assert_eq!(kind_of(edit(&registry, edits).await), ErrorKind::Changed);
    assert_eq!(storage.stored(Kind::Entity, "more").await, None);
    let rider = || Edit::apply(entity("rider", "own"));
    assert_eq!(kind_of(edit(&registry, vec![rider().when(Condition::absent())]).await), ErrorKind::Changed);

    // By what is held it does not.
    let (registry, storage, _) = open_with_driver().await;
    storage.plant(Key::object(Kind::Entity, "p", "driver"), theirs.clone()).await;
    storage.plant(Key::object(Kind::Entity, "p", "rider"), entity("rider", "theirs").bytes).await;
    let driver = Edit::apply(entity("driver", "after")).when(is(&theirs));
    assert_eq!(
        edit(&registry, vec![driver, rider().when(Condition::present())]).await.expect("both hold"),
        [true, true]
    );
}

/// Who may see what is there in `p`, and who may do nothing.
async fn with_callers() -> (Registry, Registry, Registry) {
    let (registry, _) = open().await;
    let access = |name: &str| {
        let rules = AccessRules::default().with_unprotected(Unprotected::Deny).with_anyone_creating_projects(false);
        let access = Access::new(Arc::new(Identity::new(name).with_roles([name])), Arc::new(rules));
        registry.with_call(CallOptions::new().with_access(access))
    };
    registry.apply("p", entity("driver", "before")).await.expect("an apply");
    for (name, role, actions) in
        [("readers", "reader", super::access::READ), ("writers", "writer", super::access::WRITE)]
    {
        let grant = super::access::grant(name, role, &[], &[], actions);
        registry.apply("p", Object::encode(&grant)).await.expect("an apply");
    }
    (access("reader"), access("writer"), access("stranger"))
}

#[tokio::test]
async fn who_may_not_do_an_edit_learns_nothing_of_its_condition() {
    let (reader, writer, stranger) = with_callers().await;
    let conditions = || [Condition::present(), Condition::absent(), Condition::new("never", |_| false)];
    for registry in [&reader, &stranger] {
        let mut told = Vec::new();
        for condition in conditions() {
            for name in ["driver", "nobody"] {
                for one in [Edit::apply(entity(name, "after")), Edit::delete(Kind::Entity, name)] {
                    let error =
                        edit(registry, vec![one.clone().when(condition.clone())]).await.expect_err("not permitted");
                    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{one:?} when {condition:?}");
                    told.push(error.to_string().replace(name, "…"));
                }
            }
        }
        told.sort();
        told.dedup();
        assert_eq!(told.len(), 2, "one for what is applied and one for what is deleted: {told:?}");
    }
    for condition in conditions() {
        let apply = Edit::apply(entity("driver", "before")).when(condition);
        if let Err(error) = edit(&writer, vec![apply]).await {
            assert_eq!(error.kind(), ErrorKind::Changed);
        }
    }
}

/// Fault: it was told by who asked: without permissions a deletion was refused for its condition, with them for what is not there.
#[tokio::test]
async fn what_is_not_there_is_not_deleted_whatever_was_to_be_so() {
    let (_, writer, _) = with_callers().await;
    let (registry, _) = open().await;
    registry.apply("p", entity("driver", "before")).await.expect("an apply");
    for registry in [&registry, &writer] {
        for condition in [Condition::present(), Condition::absent(), Condition::new("never", |_| false)] {
            let delete = Edit::delete(Kind::Entity, "nobody").when(condition);
            assert_eq!(kind_of(edit(registry, vec![delete]).await), ErrorKind::NotFound(Kind::Entity));
        }
    }
}

/// A field that no version knows, at the top, in the spec, in the meta and in a source.
fn with_unknown(object: &Object, note: &str) -> Object {
    let mut bytes = object.bytes.to_vec();
    for number in [1, 2] {
        let mut inner = crate::wire::sub_message(&bytes, number).expect("a message").unwrap_or_default().into_owned();
        crate::wire::put(&mut inner, 5000, format!("{note} of {number}").as_bytes());
        bytes = crate::wire::set(&bytes, number, &inner).expect("a message");
    }
    crate::wire::put(&mut bytes, 5000, note.as_bytes());
    Object::new(object.kind, bytes)
}

fn notes(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for part in [Some(1), Some(2), None] {
        let inner = part
            .map(|number| crate::wire::sub_message(bytes, number).expect("a message").unwrap_or_default().into_owned());
        let content =
            crate::wire::content(inner.as_deref().unwrap_or(bytes), 5000).expect("a message").map(<[u8]>::to_vec);
        found.extend(content.map(|content| String::from_utf8(content).expect("text")));
    }
    found
}

/// Fault: what was said in JSON lost the fields that a newer version had stored.
#[tokio::test]
async fn an_object_said_in_words_that_know_less_keeps_the_rest() {
    let (registry, storage) = open().await;
    registry.apply("p", with_unknown(&entity("driver", "before"), "newer")).await.expect("an apply");
    let all = ["newer of 1", "newer of 2", "newer"];
    let edited = edit(&registry, vec![Edit::apply_known(entity("driver", "before"))]).await.expect("an apply");
    assert_eq!(edited, [false], "it says what is stored");
    let seen = storage.stored(Kind::Entity, "driver").await.expect("it is stored");
    let known = Edit::apply_known(entity("driver", "after")).when(is(&seen));
    assert_eq!(edit(&registry, vec![known]).await.expect("an apply"), [true]);
    assert_eq!(notes(&storage.stored(Kind::Entity, "driver").await.expect("it is stored")), all);
    assert_eq!(read(&registry, "driver", Freshness::Stored).await.as_deref(), Some("after"));
    // Who says one of them has said what it is to be.
    let own = Edit::apply_known(with_unknown(&entity("driver", "after"), "own"));
    assert_eq!(edit(&registry, vec![own]).await.expect("an apply"), [true]);
    assert_eq!(
        notes(&storage.stored(Kind::Entity, "driver").await.expect("it is stored")),
        ["own of 1", "own of 2", "own"]
    );
    // Who knows them all and says none has taken them away, but for what the registry keeps.
    assert_eq!(edit(&registry, vec![Edit::apply(entity("driver", "after"))]).await.expect("an apply"), [true]);
    assert_eq!(notes(&storage.stored(Kind::Entity, "driver").await.expect("it is stored")), ["own of 2"]);
    // What is not there, or cannot be read, has nothing to keep.
    assert_eq!(edit(&registry, vec![Edit::apply_known(entity("rider", ""))]).await.expect("an apply"), [true]);
    storage.plant(Key::object(Kind::Entity, "p", "broken"), &b"\xff\xff"[..]).await;
    assert_eq!(edit(&registry, vec![Edit::apply_known(entity("broken", ""))]).await.expect("an apply"), [true]);
    // In a batch it is what an earlier edit made.
    let edits = vec![Edit::delete(Kind::Entity, "driver"), Edit::apply_known(entity("driver", "anew"))];
    assert_eq!(edit(&registry, edits).await.expect("an edit"), [true, true]);
    assert!(notes(&storage.stored(Kind::Entity, "driver").await.expect("it is stored")).is_empty());
}
