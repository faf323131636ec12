//! Lists in pages.

use feast_registry_core::{Kind, Page, Query, Record, Write};

use crate::handle::{Handle, assert_records};
use crate::run::Setup;
use crate::sample::{AT, LOOKALIKES, key, object, object_at};

fn query(kind: Kind, project: Option<&str>, updated_since: Option<i64>, page: Page) -> Query {
    Query::Objects { kind, project: project.map(str::to_owned), updated_since, page: Some(page) }
}

/// The page that comes after a record.
fn after(record: &Record, limit: usize) -> Page {
    match &record.key {
        feast_registry_core::Key::Object { project, name, .. } => Page::after(project, name, limit),
        other => panic!("a list of objects has {other:?}"),
    }
}

/// Reads a list page by page and checks each page.
async fn read_in_pages(handle: &Handle, kind: Kind, project: Option<&str>, since: Option<i64>, expected: &[Record]) {
    for limit in [1, 3, expected.len().max(1), expected.len() + 1, 100_000] {
        let mut read = 0;
        let mut page = Page::first(limit);
        loop {
            let end = expected.len().min(read + limit);
            let found = handle.ask(query(kind, project, since, page)).await;
            let property =
                format!("the {} of {project:?} since {since:?} from {read}, {limit} at the most", kind.plural());
            assert_records(&property, &expected[read..end], &found);
            read = end;
            match found.last() {
                Some(last) => page = after(last, limit),
                None => break,
            }
        }
    }
}

fn sorted(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by(|one, other| one.key.cmp(&other.key));
    records
}

pub(crate) async fn pages_are_parts_of_a_list_by_project_and_name(setup: Setup) {
    let handle = setup.store().await.handle().await;
    // As text of whatever language, and as UTF-16, these have other orders.
    let names = || LOOKALIKES.iter().copied().step_by(3);
    let mut records: Vec<Record> = names().map(|name| object(Kind::Entity, "p", name, "")).collect();
    let projects = ["P", "p ", "p/q", "\u{fffd}", "\u{10ffff}", "\u{e9}", "q"];
    records.extend(
        projects.iter().flat_map(|project| ["b", "B", "a"].map(|name| object(Kind::Entity, project, name, ""))),
    );
    // Not in the order in which they are to come.
    records.reverse();
    handle.put(records.clone()).await;
    handle.put(["a", "b"].map(|name| object(Kind::FeatureService, "p", name, "of another kind"))).await;
    let all = sorted(records);
    read_in_pages(&handle, Kind::Entity, None, None, &all).await;
    for project in ["p", "q", "absent"] {
        let of_project: Vec<Record> = all.iter().filter(|record| record.key.project() == project).cloned().collect();
        read_in_pages(&handle, Kind::Entity, Some(project), None, &of_project).await;
    }
    handle.put(projects.map(|project| object(Kind::Project, project, project, ""))).await;
    let of_projects = sorted(projects.map(|project| object(Kind::Project, project, project, "")).into());
    read_in_pages(&handle, Kind::Project, None, None, &of_projects).await;
}

pub(crate) async fn a_page_goes_on_after_what_is_gone(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let entity = |project: &str, name: &str| object(Kind::Entity, project, name, "");
    handle.put(["a", "b", "c", "d"].map(|name| entity("p", name))).await;
    handle.put([entity("q", "a")]).await;
    let ask = async |project: &str, name: &str| {
        handle.ask(query(Kind::Entity, None, None, Page::after(project, name, 2))).await
    };
    handle.write(vec![Write::Delete(key(Kind::Entity, "p", "b"))]).await;
    let cases = [
        ("p", "b", vec![entity("p", "c"), entity("p", "d")]),
        ("p", "c", vec![entity("p", "d"), entity("q", "a")]),
        ("p", "", vec![entity("p", "a"), entity("p", "c")]),
        ("p", "a\u{1}", vec![entity("p", "c"), entity("p", "d")]),
        ("p", "zzz", vec![entity("q", "a")]),
        ("o", "z", vec![entity("p", "a"), entity("p", "c")]),
        ("p ", "z", vec![entity("q", "a")]),
        ("q", "a", vec![]),
        ("z", "", vec![]),
    ];
    for (project, name, expected) in cases {
        assert_records(&format!("the page after {project}/{name}"), &expected, &ask(project, name).await);
    }
    // In a project of its own, what is after a place of another.
    let of_p = handle.ask(query(Kind::Entity, Some("p"), None, Page::after("o", "z", 9))).await;
    assert_eq!(of_p.len(), 3, "the entities of `p` after a place before it");
    let of_p = handle.ask(query(Kind::Entity, Some("p"), None, Page::after("q", "", 9))).await;
    assert_eq!(of_p.len(), 0, "the entities of `p` after a place behind it");
}

pub(crate) async fn a_page_counts_what_its_query_asks_for(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let records: Vec<Record> = (0..40)
        .map(|number| object_at(Kind::FeatureView, "p", &format!("view {number:02}"), "", AT + number % 4))
        .collect();
    handle.put(records.clone()).await;
    for since in [AT, AT + 2, AT + 3, AT + 4] {
        let young: Vec<Record> = records.iter().filter(|record| record.updated >= since).cloned().collect();
        read_in_pages(&handle, Kind::FeatureView, Some("p"), Some(since), &young).await;
    }
    // Pages of one read are of one state, each with a limit of its own.
    let pages = [Page::first(5), after(&records[4], 7), after(&records[39], 7)];
    let answers = handle.read(&pages.map(|page| query(Kind::FeatureView, Some("p"), None, page))).await;
    for (answer, expected) in answers.iter().zip([&records[..5], &records[5..12], &[]]) {
        assert_records("one of several pages in a read", expected, answer);
    }
}
