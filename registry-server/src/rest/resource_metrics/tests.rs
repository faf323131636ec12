use feast_registry_core::proto::core::{FeatureView, FeatureViewSpec};
use proptest::prelude::*;

use super::*;
use crate::rest::golden::{self, number};

#[test]
fn answers_are_those_of_feast() {
    let (registry, last_updated) = golden::registry();
    let last_updated: Timestamp = last_updated.parse().expect("a moment");
    for call in golden::calls(golden::METRICS) {
        let (path, query, expected) = (&call["path"], &call["query"], &call["body"]);
        let one = query["project"].as_str().map(golden::project);
        let projects = one.as_ref().map_or(&registry[..], std::slice::from_ref);
        let body = match (path.as_str(), &one) {
            (Some("/metrics/resource_counts"), Some(project)) => resource_counts(project, Some(&last_updated)),
            (Some("/metrics/resource_counts"), None) => all_resource_counts(projects, Some(&last_updated)),
            _ => popular_tags(projects, number(query, "limit").unwrap_or(4)),
        };
        assert_eq!(&body.expect("well-formed"), expected, "{path} {query}");
    }
}

#[test]
fn a_registry_that_was_never_changed_has_no_moment() {
    let body = resource_counts(&golden::project("empty"), None).expect("well-formed");
    assert_eq!(body["registryLastUpdated"], Value::Null);
}

proptest! {
    #[test]
    fn each_tag_is_counted_once_for_each_view(
        views in prop::collection::vec(prop::collection::btree_map("[ab]", "[xy]", 0..3), 0..12),
        limit in -3..6,
    ) {
        let view = |(number, tags): (usize, &std::collections::BTreeMap<String, String>)| {
            let tags = tags.clone().into_iter().collect();
            let spec = FeatureViewSpec { name: number.to_string(), tags, ..Default::default() };
            Object::encode(&FeatureView { spec: Some(spec), meta: None })
        };
        let objects = views.iter().enumerate().map(view).collect();
        let projects = [Resources { name: "p".into(), objects, ..Default::default() }];
        let all = popular_tags(&projects, i32::MAX).expect("well-formed");
        let all = all["popular_tags"].as_array().expect("tags");
        let counts: Vec<u64> = all.iter().map(|tag| tag["total_feature_views"].as_u64().expect("a number")).collect();
        prop_assert!(counts.is_sorted_by(|one, next| one >= next));
        prop_assert_eq!(counts.iter().sum::<u64>(), views.iter().map(|tags| tags.len() as u64).sum::<u64>());
        for tag in all {
            let (key, value) = (golden::text(tag, "tag_key"), golden::text(tag, "tag_value"));
            let having = views.iter().filter(|tags| tags.get(key).is_some_and(|of| of == value));
            prop_assert_eq!(&tag["total_feature_views"], having.count());
            prop_assert_eq!(&tag["total_feature_views"], tag["feature_views"].as_array().expect("views").len());
        }
        let some = popular_tags(&projects, limit).expect("well-formed");
        let count = if limit < 0 { all.len() as i32 + limit } else { limit.min(all.len() as i32) };
        prop_assert_eq!(some["popular_tags"].as_array().expect("tags"), &all[..count.max(0) as usize]);
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, kind in prop::sample::select(Kind::ALL.to_vec()), limit: i32) {
        let projects = [Resources { name: "p".into(), objects: vec![Object::new(kind, bytes)], ..Default::default() }];
        drop((popular_tags(&projects, limit), all_resource_counts(&projects, None)));
    }
}
