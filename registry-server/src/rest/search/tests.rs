use feast_registry_core::proto::core::{Entity, EntitySpecV2, FeatureSpecV2, FeatureView, FeatureViewSpec};
use proptest::prelude::*;

use super::*;
use crate::rest::golden::{self, number, text};

fn texts(of: &Value) -> Vec<String> {
    of.as_array().into_iter().flatten().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

fn recorded(query: &Value) -> Result<Search, String> {
    let tags = texts(&query["tags"]);
    let tags = tags.iter().filter_map(|tag| tag.split_once(':')).map(|(tag, value)| (tag.to_owned(), value.to_owned()));
    let given = Given {
        sort_by: query["sort_by"].as_str(),
        sort_order: query["sort_order"].as_str(),
        page: number(query, "page"),
        limit: number(query, "limit"),
    };
    Search::new(text(query, "query").to_owned(), tags.collect(), given)
}

#[test]
fn answers_are_those_of_feast() {
    let (registry, _) = golden::registry();
    let known: Vec<String> = registry.iter().map(|project| project.name.clone()).collect();
    for call in golden::calls(golden::SEARCH) {
        let (query, status, expected) = (&call["query"], &call["status"], &call["body"]);
        let search = match recorded(query) {
            Ok(search) => search,
            Err(detail) => {
                assert_eq!((status, expected["detail"].as_str()), (&400.into(), Some(detail.as_str())), "{query}");
                continue;
            }
        };
        let (mut names, errors) = projects_to_search(&known, &texts(&query["projects"]));
        // Feast searches a set of projects, in any order.
        let order = texts(&expected["projects_searched"]);
        names.sort_by_key(|name| order.iter().position(|of| of == name));
        assert_eq!(names, order, "{query}");
        let projects: Vec<Resources> = names.iter().map(|name| golden::project(name)).collect();
        let body = body(&search, &projects, errors);
        assert_eq!((status, expected), (&200.into(), &body), "{query}");
        assert_eq!(fields(expected), fields(&body), "{query}");
    }
}

/// The names of the fields of the first result, in their order.
fn fields(body: &Value) -> Vec<&String> {
    body["results"][0].as_object().into_iter().flat_map(Map::keys).collect()
}

#[test]
fn without_projects_there_is_nothing_to_search() {
    let (projects, errors) = projects_to_search(&[], &["a".to_owned()]);
    assert_eq!((projects.len(), errors), (0, vec!["No projects found".to_owned()]));
}

fn entity(name: &str) -> Object {
    Object::encode(&Entity { spec: Some(EntitySpecV2 { name: name.into(), ..Default::default() }), meta: None })
}

fn search(query: &str, given: Given<'_>) -> Search {
    Search::new(query.to_owned(), BTreeMap::new(), given).expect("valid")
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_found() {
    let broken = |kind| Object::new(kind, &b"\x0a\xff"[..]);
    let project = Resources {
        name: "p".into(),
        objects: vec![entity("one"), broken(Kind::Entity), broken(Kind::LabelView), entity("two")],
        ..Default::default()
    };
    let body = body(&search("", Given::default()), &[project], vec!["before".into()]);
    let names: Vec<_> = body["results"].as_array().expect("results").iter().map(|result| &result["name"]).collect();
    assert_eq!(names, ["one", "two"]);
    let errors =
        ["entities", "label views", "features", "labels"].map(|of| format!("Error searching {of} in project 'p'"));
    assert_eq!(texts(&body["errors"]), [&["before".to_owned()][..], &errors].concat());
}

/// Occurrences of a sub-message merge.
#[test]
fn features_are_found_where_a_message_stands_in_two_parts() {
    let view = |name: &str, feature: &str| {
        let features = vec![FeatureSpecV2 { name: feature.into(), ..Default::default() }];
        FeatureView { spec: Some(FeatureViewSpec { name: name.into(), features, ..Default::default() }), meta: None }
    };
    let parts = [Object::encode(&view("v", "one")).bytes, Object::encode(&view("", "two")).bytes].concat();
    let project =
        Resources { name: "p".into(), objects: vec![Object::new(Kind::FeatureView, parts)], ..Default::default() };
    for sort_by in ["name", "type"] {
        let given = Given { sort_by: Some(sort_by), sort_order: Some("asc"), ..Default::default() };
        let body = body(&search("", given), std::slice::from_ref(&project), Vec::new());
        let features: Vec<_> = body["results"].as_array().expect("results").iter().collect();
        let of_view = features.iter().filter(|result| result["featureView"] == "v").map(|result| &result["name"]);
        assert_eq!(of_view.collect::<Vec<_>>(), ["one", "two"]);
    }
}

/// 2,000 wanted tags and a query of 8 KB among 2,000 objects with 100 tags each: pair by pair, that would be 400 million steps.
#[test]
fn long_queries_find_what_they_name() {
    let query = "tag0=運".repeat(900);
    let wanted: BTreeMap<String, String> = (0..2000).map(|number| (format!("tag{number}"), "x".to_owned())).collect();
    let entity = |name: &str, tags: usize| {
        let tags = wanted.clone().into_iter().take(tags).collect();
        Object::encode(&Entity {
            spec: Some(EntitySpecV2 { name: name.into(), tags, ..Default::default() }),
            meta: None,
        })
    };
    let mut objects: Vec<Object> = (0..2000).map(|_| entity("e", 100)).collect();
    objects.extend([entity("all tags", 2000), entity(&query.to_uppercase(), 100)]);
    let project = Resources { name: "p".into(), objects, ..Default::default() };
    let names = |query: &str, tags: &BTreeMap<String, String>| {
        let search = Search::new(query.to_owned(), tags.clone(), Given::default()).expect("valid");
        let body = body(&search, std::slice::from_ref(&project), Vec::new());
        body["results"]
            .as_array()
            .expect("results")
            .iter()
            .map(|result| text(result, "name").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("", &wanted), ["all tags"]);
    assert_eq!(names(&query, &BTreeMap::new()), [query.to_uppercase()]);
}

/// A name, a description, and tags.
type Words = (String, String, BTreeMap<String, String>);

/// Every second object is a view with two features.
fn object(number: usize, (name, description, tags): Words) -> Object {
    let tags = tags.into_iter().collect();
    if number.is_multiple_of(2) {
        let spec = EntitySpecV2 { name, description, tags, ..Default::default() };
        return Object::encode(&Entity { spec: Some(spec), meta: None });
    }
    let value_type = (number % 8) as i32;
    let feature = |name: &str| FeatureSpecV2 { name: name.into(), value_type, ..Default::default() };
    let features = vec![feature(&description), feature("a")];
    let spec = FeatureViewSpec { name, description, tags, features, ..Default::default() };
    Object::encode(&FeatureView { spec: Some(spec), meta: None })
}

fn projects() -> impl Strategy<Value = Vec<Resources>> {
    let tags = prop::collection::btree_map("[ab]{0,2}", "[ab]{0,2}", 0..3);
    let objects = prop::collection::vec(("[a-cA-C]{0,3}", "[ab]{0,2}", tags), 0..12);
    let project = objects.prop_map(|objects| {
        objects.into_iter().enumerate().map(|(number, words)| object(number, words)).collect::<Vec<_>>()
    });
    prop::collection::vec(project, 1..3).prop_map(|projects| {
        let project = |(number, objects)| Resources { name: format!("p{number}"), objects, ..Default::default() };
        projects.into_iter().enumerate().map(project).collect()
    })
}

/// What stands for a result among others.
fn identity(result: &Value) -> String {
    result.to_string()
}

proptest! {
    #[test]
    fn pages_are_parts_of_one_sorted_list(
        projects in projects(),
        query in "[abc=]{0,4}",
        sort_by in prop::sample::select(vec!["match_score", "name", "type"]),
        sort_order in prop::sample::select(vec!["asc", "desc"]),
        limit in 1..9,
    ) {
        let page = |page, limit| {
            let given = Given { sort_by: Some(sort_by), sort_order: Some(sort_order), page: Some(page), limit: Some(limit) };
            body(&search(&query, given), &projects, Vec::new())
        };
        let results = |body: Value| body["results"].as_array().expect("results").clone();
        let all = page(1, 100);
        let total = all["pagination"]["totalCount"].as_u64().unwrap_or_default();
        let all = results(all);
        prop_assert_eq!(total, all.len() as u64);
        let mut in_pages = Vec::new();
        for number in 1.. {
            let on_page = results(page(number, limit));
            if on_page.is_empty() {
                break;
            }
            in_pages.extend(on_page);
        }
        prop_assert_eq!(&in_pages, &all);

        let compare = |one: &Value, other: &Value| match sort_by {
            "match_score" => one[sort_by].as_f64().partial_cmp(&other[sort_by].as_f64()).expect("numbers"),
            _ => one[sort_by].as_str().cmp(&other[sort_by].as_str()),
        };
        for two in all.windows(2) {
            let order = compare(&two[0], &two[1]);
            prop_assert!(order.is_eq() || order.is_lt() == (sort_order == "asc"), "{:?}", two);
        }
        // Both directions have the same results.
        let given = Given { sort_by: Some(sort_by), limit: Some(100), ..Default::default() };
        let mut descending: Vec<_> = results(body(&search(&query, given), &projects, Vec::new())).iter().map(identity).collect();
        let mut same: Vec<_> = all.iter().map(identity).collect();
        descending.sort();
        same.sort();
        prop_assert_eq!(descending, same);
    }

    #[test]
    fn no_bytes_panic(
        objects in prop::collection::vec((prop::sample::select(Kind::ALL.to_vec()), prop::collection::vec(any::<u8>(), 0..24)), 0..8),
        inner in prop::collection::vec(any::<u8>(), 0..16),
        query in ".{0,3}",
    ) {
        let mut project = Resources { name: "p".into(), ..Default::default() };
        for (kind, bytes) in objects {
            // Some have a definition that is none, some are none.
            let mut wrapped = Vec::new();
            wire::put(&mut wrapped, 1, &bytes);
            wire::put(&mut wrapped, 1, &inner);
            project.objects.extend([Object::new(kind, bytes), Object::new(kind, wrapped)]);
        }
        for sort_by in ["match_score", "type"] {
            let given = Given { sort_by: Some(sort_by), ..Default::default() };
            body(&search(&query, given), std::slice::from_ref(&project), Vec::new());
        }
    }
}
