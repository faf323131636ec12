//! What is stored and is no message of its kind.

use prost::Message as _;

use super::*;

/// Fault: one row that could not be decoded was handed to clients, whose whole list then failed.
#[tokio::test]
async fn what_cannot_be_decoded_is_left_out_of_lists_and_named_by_who_asks_for_it() {
    let (registry, storage) = open().await;
    registry.apply("p", entity("driver", "")).await.expect("an apply");
    registry.apply("p", view("stats", &["a"])).await.expect("an apply");
    // Not a message at all, and one whose text is not UTF-8.
    storage.plant(Key::object(Kind::FeatureView, "p", "broken"), &b"\xff\xff\xff"[..]).await;
    storage.plant(Key::object(Kind::Entity, "p", "latin-1"), &b"\x0a\x03\x0a\x01\xe9"[..]).await;
    storage.plant(Key::Version { project: "p".into(), view: "stats".into(), number: 7 }, &b"\xff"[..]).await;
    registry.refresh().await.expect("a refresh");
    let stored = Registry::open(Arc::clone(&storage) as Arc<dyn Backend>, RegistryOptions::default()).await;
    for (registry, freshness) in [
        (&registry, Freshness::Cached),
        (&registry, Freshness::Stored),
        (&stored.expect("a registry"), Freshness::Stored),
    ] {
        for (kind, name) in [(Kind::FeatureView, "broken"), (Kind::Entity, "latin-1")] {
            let listed = registry.list(kind, Some("p"), &ListFilter::default(), freshness).await.expect("a list");
            assert_eq!(listed.len(), 1, "{freshness:?}: the others are listed");
            let tags = [("a".to_owned(), "b".to_owned())].into();
            let tagged = registry.list(kind, None, &ListFilter { tags, updated_since: None }, freshness).await;
            assert!(tagged.expect("a list").is_empty());
            let error = registry.get(kind, "p", name, freshness).await.expect_err("it cannot be decoded");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            for part in [kind.label(), "project `p`", name] {
                assert!(error.to_string().contains(part), "{freshness:?}: {error}");
            }
        }
        assert_eq!(registry.list_features("p", freshness).await.expect("features").len(), 1);
        assert_eq!(registry.lineage("p", freshness).await.expect("lineage").direct.len(), 2);
        let proto = registry.proto(freshness).await.expect("all of it");
        let proto = crate::proto::core::Registry::decode(&**proto.as_bytes()).expect("a registry");
        assert_eq!((proto.feature_views.len(), proto.entities.len()), (1, 1));
        assert_eq!(registry.list_versions("p", "stats").await.expect("the history").len(), 1);
        assert_eq!(registry.get_version("p", "stats", 7).await.expect_err("it").kind(), ErrorKind::Corrupt);
        assert_eq!(registry.undecodable().len(), 3, "{:?}", registry.undecodable());
    }
    // What others mend is no longer told of after a refresh; what this process removes at once.
    storage.plant(Key::object(Kind::FeatureView, "p", "broken"), view("broken", &[]).bytes).await;
    registry.delete(Kind::Entity, "p", "latin-1").await.expect("a deletion");
    registry.refresh().await.expect("a refresh");
    assert_eq!(registry.undecodable().len(), 1, "the version is left: {:?}", registry.undecodable());
    registry.get(Kind::FeatureView, "p", "broken", Freshness::Cached).await.expect("it is mended");
}
