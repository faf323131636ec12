use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::rest::golden::{self, text};

fn visit_at(project: &str, path: &str, at: Timestamp) -> Visit {
    let (object, object_name) = visited(path).expect("a visit");
    let [project, path, object, object_name, method] = [project, path, object, object_name, "GET"].map(str::to_owned);
    Visit { project, path, object, object_name, method, at }
}

fn visit(project: &str, path: &str, seconds: i64) -> Visit {
    visit_at(project, path, Timestamp { seconds, nanos: 0 })
}

/// The calls that were recorded, after a list of paths and what they count as.
fn calls() -> (Value, Vec<Value>) {
    let mut calls = golden::calls(golden::VISITS);
    (calls.remove(0), calls)
}

#[test]
fn paths_count_as_by_feasts_patterns() {
    for path in calls().0.as_array().expect("paths") {
        let (path, counts) = (path[0].as_str().expect("a path"), &path[1]);
        assert_eq!(&json!(visited(path)), counts, "{path}");
        // Feast counts paths without the prefix too, but does not say what was visited.
        let bare = path.strip_prefix("/api/v1").unwrap_or(path);
        assert_eq!(&json!(visited(bare)), counts, "{bare}");
    }
}

#[test]
fn the_list_of_jobs_is_no_dataset() {
    assert_eq!(visited("/api/v1/saved_datasets/jobs"), None);
    assert_eq!(visited("/api/v1/entities/jobs"), Some(("entities", "jobs")));
}

#[test]
fn answers_are_those_of_feast() {
    let (_, calls) = calls();
    let visits = Visits::new(DEFAULT_LIMIT);
    // The first call lists all of them, newest first.
    for of_feast in calls[0]["body"]["visits"].as_array().expect("visits").iter().rev() {
        let at = text(of_feast, "timestamp").parse().expect("a moment");
        visits.note("anonymous", visit_at(text(of_feast, "project"), text(of_feast, "path"), at));
    }
    let projects = ["rides", "food", "empty"].map(str::to_owned);
    for call in &calls {
        let query: BTreeMap<&str, &str> =
            text(call, "query").trim_start_matches('?').split('&').filter_map(|pair| pair.split_once('=')).collect();
        let number = |name| query.get(name).map(|text: &&str| text.parse().expect("a number"));
        let listing = Listing {
            object: query.get("object").copied(),
            sort_by: query.get("sort_by").copied(),
            is_descending: query.get("sort_order") == Some(&"desc"),
            page: number("page"),
            limit: number("limit"),
        };
        let body = match query.get("project") {
            Some(project) => visits.of_project("anonymous", project, &listing),
            None => visits.of_projects("anonymous", &projects, &listing),
        };
        assert_eq!(body, call["body"], "{query:?}");
    }
}

#[test]
fn moments_are_written_as_by_python() {
    for (nanos, expected) in [
        (0, "2023-11-14T22:13:20+00:00"),
        (999, "2023-11-14T22:13:20+00:00"),
        (1_000, "2023-11-14T22:13:20.000001+00:00"),
        (500_000_000, "2023-11-14T22:13:20.500000+00:00"),
    ] {
        assert_eq!(iso_format(&Timestamp { seconds: 1_700_000_000, nanos }), expected);
    }
}

fn names(body: &Value) -> Vec<&str> {
    body["visits"].as_array().expect("visits").iter().map(|visit| text(visit, "object_name")).collect()
}

#[test]
fn the_newest_visits_are_kept_and_listed() {
    let visits = Visits::new(3);
    for (second, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        for (shift, project) in [(0, "p"), (10, "q")] {
            visits.note("me", visit(project, &format!("/entities/{project}{name}"), second as i64 + shift));
        }
    }
    let all = Listing::default();
    assert_eq!(names(&visits.of_project("me", "p", &all)), ["pb", "pc", "pd"]);
    // Of six, the newest three.
    let projects = ["p", "q", "other"].map(str::to_owned);
    assert_eq!(names(&visits.of_projects("me", &projects, &all)), ["qd", "qc", "qb"]);
    // A project that somebody may not see has no visits for them.
    assert_eq!(names(&visits.of_projects("me", &projects[..1], &all)), ["pd", "pc", "pb"]);
    assert!(names(&visits.of_project("you", "p", &all)).is_empty());
    assert!(names(&visits.of_projects("you", &projects, &all)).is_empty());
}

#[test]
fn who_visited_nothing_for_the_longest_time_is_forgotten_first() {
    let visits = Visits::new(DEFAULT_LIMIT);
    for user in 0..MOST_LISTS {
        visits.note(&user.to_string(), visit("p", "/entities/a", 0));
    }
    visits.note("0", visit("p", "/entities/b", 1));
    visits.note("new", visit("p", "/entities/a", 2));
    let count = |user| names(&visits.of_project(user, "p", &Listing::default())).len();
    assert_eq!((count("0"), count("1"), count("2"), count("new")), (2, 0, 1, 1));
    let lists = visits.lock();
    assert_eq!((lists.count, lists.of_users.len()), (MOST_LISTS, MOST_LISTS));
}

#[test]
fn long_names_take_a_bounded_amount_of_memory() {
    let visits = Visits::new(usize::MAX);
    visits.note("me", visit("p", &format!("/entities/{}", "x".repeat(LARGEST / 2)), 0));
    assert!(visits.lock().of_users.is_empty());
    let path = format!("/entities/{}", "x".repeat(LARGEST / 2 - OVERHEAD));
    for number in 0..2 * MOST_BYTES / LARGEST {
        visits.note(&(number / MOST_VISITS).to_string(), visit("p", &path, 0));
        assert!(visits.lock().bytes <= MOST_BYTES);
    }
    assert!(visits.lock().bytes > MOST_BYTES / 2);
    // Of the last but one all is there, of the first nothing.
    let count = |user: usize| names(&visits.of_project(&user.to_string(), "p", &Listing::default())).len();
    let last = (2 * MOST_BYTES / LARGEST - 1) / MOST_VISITS;
    assert_eq!((count(0), count(last - 1)), (0, MOST_VISITS));
}

proptest! {
    #[test]
    fn what_is_counted_is_what_is_there_and_is_listed(
        notes in prop::collection::vec((0..3_usize, 0..3_usize, "[a-c]{1,3}", 0..5_i64), 0..40),
        limit in 0..4_usize,
        page_limit in 1..4_u32,
        sort_by in prop::sample::select(vec!["path", "timestamp", "project", "object_name", "other"]),
        is_descending: bool,
    ) {
        let visits = Visits::new(limit);
        let (users, projects) = (["a", "b", "c"], ["p", "q", "r"].map(str::to_owned));
        // What the newest visits are, kept plainly.
        let mut expected: BTreeMap<(usize, usize), Vec<Visit>> = BTreeMap::new();
        for (user, project, name, second) in notes {
            let visit = visit(&projects[project], &format!("/entities/{name}"), second);
            visits.note(users[user], visit.clone());
            let list = expected.entry((user, project)).or_default();
            list.push(visit);
            list.drain(..list.len().saturating_sub(limit));
        }
        expected.retain(|_, list| !list.is_empty());

        let lists = visits.lock();
        let kept = lists.of_users.values().flat_map(HashMap::values);
        prop_assert_eq!(lists.count, expected.len());
        prop_assert_eq!(lists.bytes, kept.map(|list| list.bytes).sum::<usize>());
        drop(lists);

        for (user, name) in users.iter().enumerate() {
            for (project, of) in projects.iter().enumerate() {
                let body = visits.of_project(name, of, &Listing::default());
                let bodies = expected.get(&(user, project)).into_iter().flatten().map(|visit| visit.body(name));
                prop_assert_eq!(&body["visits"], &bodies.collect::<Value>());
            }
            let listing = Listing { sort_by: Some(sort_by), is_descending, ..Default::default() };
            let all = visits.of_projects(name, &projects, &listing);
            let pages = (1..).map(|page| {
                let listing = Listing { page: Some(page), limit: Some(page_limit), ..listing };
                visits.of_projects(name, &projects, &listing)["visits"].as_array().expect("visits").clone()
            });
            let paged: Vec<Value> = pages.take_while(|page| !page.is_empty()).flatten().collect();
            prop_assert_eq!(&all["visits"], &Value::from(paged));
        }
    }

    #[test]
    fn no_path_panics(path in "(/api/v1)?/?(entities|features|é)?/?.{0,8}", seconds: i64, nanos: i32) {
        if let Some((object, name)) = visited(&path) {
            let end = ["", object, name].join("/");
            prop_assert!(path.ends_with(&end));
        }
        iso_format(&Timestamp { seconds, nanos });
    }
}
