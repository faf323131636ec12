//! Attacks that no table has.

use serde_json::json;
use tonic::Code;

use crate::fixture::{Fixture, SECRET, Who, World};
use crate::rpcs::{Ask, ROWS};
use crate::wire::{self, End};

const HISTORY: &str = "feast_registry.v1.History";
const FEAST: &str = "feast.registry.RegistryServer";

/// All that the history tells somebody.
async fn history(fixture: &Fixture, token: &str) -> String {
    let mut told = String::new();
    for revision in 1..=fixture.newest().await {
        let got = fixture.call(&format!("{HISTORY}/Get"), json!({"revision": revision}), &[token], End::Servers).await;
        told += &got.text();
    }
    for (method, request, end) in [
        ("Log", json!({"pageSize": 1000}), End::Servers),
        ("Diff", json!({}), End::Servers),
        ("Watch", json!({"after": 1}), End::Briefly),
    ] {
        told += &fixture.call(&format!("{HISTORY}/{method}"), request, &[token], end).await.text();
    }
    told
}

/// What is there of another kind under the name of a view may be open; the versions of the view are not, therefore.
#[tokio::test]
async fn versions_are_for_those_who_see_the_view_that_they_are_of() {
    let world = World::new().await;
    let fixture = Fixture::start(&world).await;
    fixture.grant("alpha", "demand", Some(Who::Stranger), &["ON_DEMAND_FEATURE_VIEW"], None, &["DESCRIBE"]).await;
    for token in world.credentials(Who::Stranger) {
        let told = history(&fixture, &token).await;
        assert!(
            told.contains("hidden_demand") && told.contains("SECRET, versioned, of hidden_demand"),
            "they see those"
        );
        for hidden in ["hidden_view", "hidden_stream", "hidden_entity"] {
            assert!(!told.contains(hidden), "{hidden} is told of: {}", told.escape_debug());
        }
    }
}

/// A project that is made anew is somebody else's, whenever they say that it was made.
#[tokio::test]
async fn who_takes_the_name_of_a_project_that_is_gone_does_not_take_its_history() {
    let world = World::new().await;
    for created in [json!(null), json!("1970-01-01T00:00:01Z"), json!("2000-01-01T00:00:00Z")] {
        let fixture = Fixture::start_open(&world).await;
        let ([admin, _], [token, _]) = (world.credentials(Who::Admin), world.credentials(Who::Stranger));
        let delete = json!({"name": "alpha", "commit": true});
        let deleted = fixture.call(&format!("{FEAST}/DeleteProject"), delete, &[&admin], End::Servers).await;
        assert_eq!(deleted.code, Code::Ok, "{}", deleted.text());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let meta = json!({"createdTimestamp": created, "lastUpdatedTimestamp": created});
        let project = json!({"project": {"spec": {"name": "alpha"}, "meta": meta}, "commit": true});
        // Twice: what is there already may be taken over otherwise than what is new.
        for _ in 0..2 {
            let made = fixture.call(&format!("{FEAST}/ApplyProject"), project.clone(), &[&token], End::Servers).await;
            assert_eq!(made.code, Code::Ok, "{}", made.text());
        }
        let told = history(&fixture, &token).await;
        assert!(!told.contains(SECRET) && !told.contains("hidden_"), "{created}: {}", told.escape_debug());
        let restore = json!({"wholeProject": {"project": "alpha"}, "revision": fixture.changed});
        let restored = fixture.call(&format!("{HISTORY}/Restore"), restore, &[&token], End::Servers).await;
        assert!(restored.code == Code::PermissionDenied && !restored.tells(SECRET), "{}", restored.text());
    }
}

/// Nothing that is to be applied later is taken from who may not apply it, and a commit of somebody else does not do it.
#[tokio::test]
async fn what_may_not_be_applied_may_not_wait_either() {
    let world = World::new().await;
    let fixture = Fixture::start_waiting(&world).await;
    let before = fixture.snapshot().await;
    let admin = world.credentials(Who::Admin);
    for who in [Who::Picky, Who::Reader, Who::Stranger] {
        for row in ROWS.iter().filter(|row| row.changes && row.rpc.starts_with(FEAST)) {
            for name in ["hidden", "absent"] {
                let ask = Ask::of("alpha", &format!("{name}_{}", row.noun), "said by the caller");
                let mut request = (row.request)(&ask);
                request["commit"] = json!(false);
                let answer = fixture.call(row.rpc, request, &[&world.credentials(who)[0]], row.end).await;
                assert_eq!(answer.code, Code::PermissionDenied, "{} by {who:?}: {}", row.rpc, answer.text());
            }
        }
        let commit = fixture.call(&format!("{FEAST}/Commit"), json!({}), &[&admin[0]], End::Servers).await;
        assert_eq!(commit.code, Code::Ok, "{}", commit.text());
        assert_eq!(fixture.snapshot().await, before, "{who:?} changed something");
    }
}

/// What needs no token is told by the path, so no other path must look like it.
#[tokio::test]
async fn no_way_of_writing_a_path_gets_around_the_question_who_calls() {
    let world = World::new().await;
    let fixture = Fixture::start(&world).await;
    let before = fixture.snapshot().await;
    for path in [
        "feast.registry.RegistryServer/Proto/",
        "/feast.registry.RegistryServer/Proto",
        "feast.registry.RegistryServer//Proto",
        "feast.registry.RegistryServer/%50roto",
        "feast.registry.RegistryServer/Proto?x=/grpc.health.v1.Health/Check",
        "Feast.Registry.RegistryServer/Proto",
        "grpc.health.v1.Health/../feast.registry.RegistryServer/Proto",
        "grpc.health.v1.Health/%2e%2e/feast.registry.RegistryServer/Proto",
        "grpc.health.v1.Health/../../feast.registry.RegistryServer/Proto",
        "grpc.reflection.v1.ServerReflection/../feast.registry.RegistryServer/Proto",
        "grpc.health./Proto",
        "grpc.health.v1.Health/Proto",
        "feast_registry.v1.History/%57atch",
        "feast_registry.v1.History/Watch/",
        "feast_registry.v1.History/watch",
        "",
    ] {
        let answer = wire::call(&fixture.channel, path, Vec::new(), &[], End::Briefly).await;
        assert!(answer.code != Code::Ok && !answer.tells(SECRET), "{path}: {}", answer.text().escape_debug());
    }
    assert_eq!(fixture.snapshot().await, before);
}

/// A watch goes on for as long as who watches may be somebody.
#[tokio::test]
async fn a_watch_ends_with_the_token_that_it_was_begun_with() {
    let world = World::new().await;
    let fixture = Fixture::start(&world).await;
    let token = world.expiring(Who::Admin, 3);
    let request = json!({"after": fixture.began});
    let answer = fixture.call(&format!("{HISTORY}/Watch"), request, &[&token], End::Servers).await;
    assert_eq!(answer.code, Code::Unauthenticated, "{}", answer.message);
    assert!(answer.tells(SECRET), "until then it was told all");
}

/// What stands beside an object belongs to it, also where a commit was about nothing else: the bytes that somebody attached to a view.
#[tokio::test]
async fn what_is_attached_to_a_view_is_neither_shown_nor_taken_back_by_a_stranger() {
    let world = World::new().await;
    let fixture = Fixture::start(&world).await;
    for text in ["SECRET of a first note", "SECRET of a second note"] {
        let attached = Some(bytes::Bytes::from_static(text.as_bytes()));
        let (kind, view) = (feast_registry_core::Kind::FeatureView, "hidden_view");
        fixture.registry.apply_user_metadata(kind, "alpha", view, attached).await.expect("it is attached");
    }
    let newest = fixture.newest().await;
    let before = fixture.snapshot().await;
    for (who, is_shown) in [(Who::Stranger, false), (Who::Picky, false), (Who::Reader, true)] {
        for (revision, is_dry) in [(newest, true), (newest - 1, true), (newest, false), (newest - 1, false)] {
            let request = json!({"revision": revision, "options": {"dryRun": is_dry, "force": true}});
            let [token, _] = world.credentials(who);
            let answer = fixture.call(&format!("{HISTORY}/Revert"), request, &[&token], End::Servers).await;
            let expected = if is_shown && is_dry { Code::Ok } else { Code::PermissionDenied };
            assert_eq!(answer.code, expected, "{who:?}, dry: {is_dry}: {}", answer.text().escape_debug());
            assert_eq!(answer.tells(SECRET), is_shown && is_dry, "{who:?}: {}", answer.text().escape_debug());
            assert_eq!(fixture.snapshot().await, before, "{who:?} changed it");
        }
    }
    let [token, _] = world.credentials(Who::Writer);
    let request = json!({"revision": newest});
    let answer = fixture.call(&format!("{HISTORY}/Revert"), request, &[&token], End::Servers).await;
    assert_eq!(answer.code, Code::Ok, "{}", answer.text());
}
