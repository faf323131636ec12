//! What the queries of a read answer, and in which order.

use std::collections::BTreeMap;

use feast_registry_core::{Key, Kind, Query, Record, Write};

use crate::handle::{Handle, assert_records, assert_value};
use crate::run::Setup;
use crate::sample::{
    AT, identity, key, last_updated, object, object_at, user_metadata, version, version_key, whole_project,
};

fn names(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .map(|record| match &record.key {
            Key::Object { project, name, .. } => format!("{project}/{name}"),
            other => panic!("a query for objects is answered with {other:?}"),
        })
        .collect()
}

pub(crate) async fn keys_come_in_the_order_that_was_asked(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let stored = whole_project("p", "note");
    handle.put(stored.clone()).await;
    let mut backwards = stored;
    backwards.reverse();
    let mut keys: Vec<Key> = Vec::new();
    for record in &backwards {
        keys.push(record.key.clone());
        // For a key that is not there, nothing: neither an answer nor a gap.
        keys.push(Key::object(Kind::Entity, "p", "absent"));
        keys.push(version_key("p", "absent", 0));
    }
    let found = handle.ask(Query::Keys(keys)).await;
    assert_records("a query for keys answers in the order of the keys", &backwards, &found);

    let twice = vec![backwards[0].key.clone(), backwards[1].key.clone(), backwards[0].key.clone()];
    let found = handle.ask(Query::Keys(twice)).await;
    let expected = [backwards[0].clone(), backwards[1].clone(), backwards[0].clone()];
    assert_records("a key that is asked for twice is answered twice", &expected, &found);
}

pub(crate) async fn objects_are_of_the_kind_and_project(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let projects = ["p", "P", "pp", "q"];
    for project in projects {
        handle.put(whole_project(project, project)).await;
    }
    for &kind in Kind::ALL {
        let of_kind = |project: &str| {
            whole_project(project, project).into_iter().filter(move |record| match record.key {
                Key::Object { kind: stored, .. } => stored == kind,
                _ => false,
            })
        };
        for project in projects {
            let expected = handle.in_order(of_kind(project).collect(), |record: &Record| record.key.clone());
            let found = handle.objects(kind, Some(project)).await;
            assert_records(&format!("the objects of kind {kind} in project `{project}`"), &expected, &found);
        }
        let all: Vec<Record> = projects.into_iter().flat_map(of_kind).collect();
        let expected = handle.in_order(all, |record| record.key.clone());
        let found = handle.objects(kind, None).await;
        assert_records(&format!("the objects of kind {kind} in all projects"), &expected, &found);
        for project in ["absent", ""] {
            let found = handle.objects(kind, Some(project)).await;
            assert_records(
                &format!("the objects of kind {kind} in project `{project}`, which is not there"),
                &[],
                &found,
            );
        }
    }
}

pub(crate) async fn objects_keep_their_order(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    // Neither the order of names nor that of times, in one commit and in several, from two handles.
    handles[0].put(["m", "z", "a"].map(|name| object(Kind::Entity, "p", name, ""))).await;
    handles[1].put([object_at(Kind::Entity, "q", "x", "", AT + 5)]).await;
    handles[1].put([object_at(Kind::Entity, "p", "k", "", AT - 1000)]).await;
    handles[0].put([object_at(Kind::Entity, "p", "b", "", AT + 1000)]).await;
    let stored = vec!["p/m", "p/z", "p/a", "q/x", "p/k", "p/b"];
    let expected = handles[0].in_order(stored, |name| *name);
    let first = |project| expected.iter().copied().filter(|name| name.starts_with(project)).collect::<Vec<_>>();
    for (round, changed) in ["z", "m", "k", "z"].into_iter().enumerate() {
        let value = "longer than before ".repeat(round * 100);
        handles[round % 2].put([object_at(Kind::Entity, "p", changed, value, AT + 2000)]).await;
        for handle in &handles {
            let property = format!("the order of objects after `{changed}` was written again");
            assert_eq!(names(&handle.objects(Kind::Entity, Some("p")).await), first("p"), "{property}");
            assert_eq!(names(&handle.objects(Kind::Entity, Some("q")).await), first("q"), "{property}");
            assert_eq!(names(&handle.objects(Kind::Entity, None).await), expected, "{property}");
        }
    }
}

pub(crate) async fn what_is_deleted_and_stored_again_comes_last(setup: Setup) {
    let handle = setup.store().await.handle().await;
    handle.put(["a", "b", "c", "d"].map(|name| object(Kind::FeatureService, "p", name, ""))).await;
    let again = |name| (key(Kind::FeatureService, "p", name), object(Kind::FeatureService, "p", name, "again"));
    let (key, record) = again("b");
    handle.write(vec![Write::Delete(key)]).await;
    handle.put([record]).await;
    let (key, record) = again("a");
    handle.write(vec![Write::Delete(key), Write::Put(record)]).await;
    let found = names(&handle.objects(Kind::FeatureService, Some("p")).await);
    let expected = handle.in_order(vec!["p/c", "p/d", "p/b", "p/a"], |name| *name);
    assert_eq!(found, expected, "what is deleted and stored again comes last");
}

pub(crate) async fn updated_since_includes_its_second(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let times = [("epoch", 0), ("early", AT - 1), ("exact", AT), ("late", AT + 1), ("far", 253_402_300_799)];
    for project in ["p", "q"] {
        handle.put(times.map(|(name, time)| object_at(Kind::FeatureView, project, name, "", time))).await;
    }
    let cases = [
        (i64::MIN, 0),
        (-1, 0),
        (0, 0),
        (1, 1),
        (AT - 1, 1),
        (AT, 2),
        (AT + 1, 3),
        (AT + 2, 4),
        (253_402_300_799, 4),
        (253_402_300_800, 5),
        (i64::MAX, 5),
    ];
    for (since, first) in cases {
        let names_of = |project: &str| times[first..].iter().map(|(name, _)| format!("{project}/{name}")).collect();
        let expected = |project: &str| handle.in_order(names_of(project), String::clone);
        let all: Vec<String> =
            [expected("p"), expected("q")].into_iter().flat_map(|names: Vec<String>| names).collect();
        for (project, expected) in [(Some("p"), expected("p")), (Some("q"), expected("q")), (None, all)] {
            let project = project.map(str::to_owned);
            let property = format!("what was written in second {since} or later, in project {project:?}");
            let query = Query::Objects { kind: Kind::FeatureView, project, updated_since: Some(since), page: None };
            assert_eq!(names(&handle.ask(query).await), expected, "{property}");
        }
    }
    // What is written again is as young as its last write.
    handle.put([object_at(Kind::FeatureView, "p", "early", "", AT + 7)]).await;
    let query = Query::Objects { kind: Kind::FeatureView, project: None, updated_since: Some(AT + 7), page: None };
    let found = names(&handle.ask(query).await);
    assert_eq!(found, ["p/early", "p/far", "q/far"], "what was written again counts by its last write");
}

pub(crate) async fn the_second_of_writing_is_kept(setup: Setup) {
    let handle = setup.store().await.handle().await;
    for (round, time) in [AT, AT + 1, 0, 253_402_300_799].into_iter().enumerate() {
        let mut records: Vec<Record> =
            Kind::ALL.iter().copied().map(|kind| object_at(kind, "p", "p", format!("round {round}"), time)).collect();
        for fact in [identity("p", round as i32), last_updated("p", time)] {
            records.push(Record::new(fact.key, fact.value, time));
        }
        handle.put(records.clone()).await;
        let found = handle.ask(Query::Keys(records.iter().map(|record| record.key.clone()).collect())).await;
        let times: Vec<(&Key, i64)> = found.iter().map(|record| (&record.key, record.updated)).collect();
        let expected: Vec<(&Key, i64)> = records.iter().map(|record| (&record.key, record.updated)).collect();
        assert_eq!(times, expected, "when each record was last written");
    }
}

pub(crate) async fn versions_come_by_number(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let made = |project: &str, view: &str, numbers: &[i32]| -> Vec<Record> {
        numbers.iter().map(|number| version(project, view, *number, format!("{project} {view} {number}"))).collect()
    };
    // Stored out of order; as text, 10 would come before 2.
    handle.put(made("p", "view", &[10, 2])).await;
    handle.put(made("p", "view", &[0, 1, 100, 9])).await;
    handle.put(made("p", "other", &[3])).await;
    handle.put(made("q", "view", &[7, 5, i32::MAX])).await;
    let cases: [(&str, &str, &[i32]); 6] = [
        ("p", "view", &[0, 1, 2, 9, 10, 100]),
        ("p", "other", &[3]),
        ("q", "view", &[5, 7, i32::MAX]),
        ("q", "other", &[]),
        ("p", "absent", &[]),
        ("", "", &[]),
    ];
    for (project, view, numbers) in cases {
        let expected = made(project, view, numbers);
        for (latest_only, expected) in
            [(false, expected.as_slice()), (true, &expected[expected.len().saturating_sub(1)..])]
        {
            let query = Query::Versions { project: project.to_owned(), view: view.to_owned(), latest_only };
            let property = format!("the history of `{view}` in `{project}` (latest only: {latest_only})");
            assert_records(&property, expected, &handle.ask(query).await);
        }
        for (number, expected) in numbers.iter().zip(&expected) {
            let key = version_key(project, view, *number);
            assert_value("a version by its key", &key, Some(&expected.value), handle.get(&key).await.as_deref());
        }
    }
}

pub(crate) async fn facts_are_of_one_project_or_of_all(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let mut facts = BTreeMap::new();
    for (number, project) in ["p", "P", "pp", "q"].into_iter().enumerate() {
        let mut of_project = vec![identity(project, number as i32)];
        // One of them has only an identity.
        if project != "q" {
            of_project.push(last_updated(project, AT + number as i64));
        }
        handle.put(of_project.clone()).await;
        facts.insert(project, of_project);
    }
    let sorted = |mut records: Vec<Record>| {
        records.sort_by(|one, other| one.key.cmp(&other.key));
        records
    };
    for (project, expected) in &facts {
        let found = handle.ask(Query::Metadata { project: Some((*project).to_owned()) }).await;
        assert_records(&format!("the facts about `{project}`"), &sorted(expected.clone()), &sorted(found));
    }
    let found = handle.ask(Query::Metadata { project: None }).await;
    assert_records("the facts about all projects", &sorted(facts.into_values().flatten().collect()), &sorted(found));
    for project in ["absent", ""] {
        let found = handle.ask(Query::Metadata { project: Some(project.to_owned()) }).await;
        assert_records(&format!("the facts about `{project}`, which is not there"), &[], &found);
    }
}

pub(crate) async fn every_query_has_its_answer(setup: Setup) {
    let handle = setup.store().await.handle().await;
    assert_eq!(handle.read(&[]).await.len(), 0, "a read of no queries has no answers");
    let stored = whole_project("p", "note");
    handle.put(stored.clone()).await;
    let view = crate::sample::view_name(Kind::LabelView);
    let entity = object(Kind::Entity, "p", &crate::sample::view_name(Kind::Entity), "note");
    let queries = [
        Query::Keys(Vec::new()),
        Query::objects(Kind::Entity, Some("p")),
        Query::Keys(vec![Key::object(Kind::Entity, "p", "absent")]),
        Query::Versions { project: "p".to_owned(), view: view.clone(), latest_only: true },
        Query::Objects { kind: Kind::Entity, project: Some("p".to_owned()), updated_since: Some(AT + 1), page: None },
        Query::Keys(vec![user_metadata(Kind::LabelView, "p", &view, "").key, entity.key.clone()]),
        // The same query twice has its answer twice.
        Query::objects(Kind::Entity, Some("p")),
    ];
    let expected = [
        Vec::new(),
        vec![entity.clone()],
        Vec::new(),
        vec![version("p", &view, 2, "note")],
        Vec::new(),
        vec![user_metadata(Kind::LabelView, "p", &view, "note"), entity.clone()],
        vec![entity],
    ];
    let found = handle.read(&queries).await;
    for (index, (expected, found)) in expected.iter().zip(&found).enumerate() {
        assert_records(&format!("answer {index} of a read of many queries"), expected, found);
    }
}

pub(crate) async fn thousands_of_keys_in_one_query(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let stored: Vec<Record> =
        (0..300).map(|number| object(Kind::DataSource, "p", &format!("source {number}"), number.to_string())).collect();
    handle.put(stored.clone()).await;
    // An apply of a large repository asks for as many; databases limit the parameters of a statement.
    let keys: Vec<Key> = (0..3000)
        .flat_map(|number| {
            let name = format!("source {number}");
            [
                Key::object(Kind::DataSource, "p", &name),
                Key::object(Kind::Entity, "p", &name),
                version_key("p", &name, 0),
            ]
        })
        .collect();
    assert_records("a query for 9,000 keys", &stored, &handle.ask(Query::Keys(keys)).await);
    let queries: Vec<Query> = (0..1000)
        .map(|number| Query::Versions { project: "p".to_owned(), view: number.to_string(), latest_only: true })
        .collect();
    let found = handle.read(&queries).await;
    assert!(found.iter().all(Vec::is_empty), "a read of 1,000 queries about histories that are not there");
}

pub(crate) async fn an_acknowledged_write_is_seen_by_every_handle(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(3).await;
    let entity = key(Kind::Entity, "p", "driver");
    let see = async |handle: &Handle, property: &str, expected: Option<&Record>| {
        let found = handle.get(&entity).await;
        assert_value(property, &entity, expected.map(|record| &*record.value), found.as_deref());
    };
    for round in 0..60 {
        let writer = &handles[round % handles.len()];
        let record = object(Kind::Entity, "p", "driver", format!("round {round}"));
        writer.put([record.clone()]).await;
        for handle in &handles {
            see(handle, "a read by any handle sees what was acknowledged before", Some(&record)).await;
        }
        writer.write(vec![Write::Delete(entity.clone())]).await;
        for handle in &handles {
            see(handle, "a read by any handle sees a deletion that was acknowledged before", None).await;
        }
    }
}
