//! A commit is done if all that it expects is so, and otherwise leaves no trace.

use bytes::Bytes;
use feast_registry_core::{Expected, Key, Kind, Record, Write};

use crate::handle::{Handle, Verdict, assert_records, assert_unchanged, assert_value};
use crate::run::Setup;
use crate::sample::{AT, identity, key, last_updated, object, object_at, user_metadata, uuid, version, whole_project};
use crate::shown::shown;

/// A kind of key: a record, the same with another value, and what must be there for it to be stored at all.
struct Case {
    one: Record,
    other: Record,
    needs: Option<Record>,
}

/// Every kind of key there is.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &kind in Kind::ALL {
        cases.push(Case {
            one: object(kind, "p", "p", "one"),
            other: object_at(kind, "p", "p", "other", AT + 1),
            needs: None,
        });
    }
    for &kind in Kind::VIEWS {
        cases.push(Case {
            one: user_metadata(kind, "p", "view", "one"),
            other: user_metadata(kind, "p", "view", "other"),
            needs: Some(object(kind, "p", "view", "")),
        });
    }
    for number in [0, 7] {
        cases.push(Case {
            one: version("p", "view", number, "one"),
            other: version("p", "view", number, "other"),
            needs: None,
        });
    }
    cases.push(Case { one: identity("p", 1), other: identity("p", 2), needs: None });
    cases.push(Case { one: last_updated("p", AT), other: last_updated("p", AT + 1), needs: None });
    cases
}

fn holds(stored: Option<&Record>, expected: &Expected) -> bool {
    match (stored, expected) {
        (None, Expected::Absent) | (Some(_), Expected::Present) => true,
        (Some(record), Expected::Value(value)) => record.value == value,
        _ => false,
    }
}

/// Commits with one expectation and checks the outcome, and that what was to be written is there or is not.
async fn expect(handle: &Handle, stored: Option<&Record>, of: &Key, expected: Expected) {
    let holds = holds(stored, &expected);
    let marker = object(Kind::SavedDataset, "marker", "marker", "");
    let state = if stored.is_some() { "present" } else { "absent" };
    let property = format!("{} is {state} and a commit expects that it is {}", shown(of), shown(&expected));
    let outcome = handle.commit(vec![(of.clone(), expected)], vec![Write::Put(marker.clone())]).await;
    let right = if holds { Verdict::Committed } else { Verdict::Conflict(of.clone()) };
    assert_eq!(outcome, right, "{property}");
    let found = handle.get(&marker.key).await;
    assert_eq!(found.is_some(), holds, "{property}: whether the commit's write is there");
    let found = handle.get(of).await;
    assert_value(&format!("{property}: what it was about"), of, stored.map(|record| &*record.value), found.as_deref());
    handle.write(vec![Write::Delete(marker.key)]).await;
}

pub(crate) async fn every_expectation_on_every_kind_of_key(setup: Setup) {
    let store = setup.store().await;
    let (writer, handle) = (store.handle().await, store.handle().await);
    for Case { one, other, needs } in cases() {
        let all = || {
            let values = [&one, &other].map(|record| Expected::Value(record.value.clone()));
            [Expected::Absent, Expected::Present].into_iter().chain(values)
        };
        let key = &one.key;
        // Absent, and all it needs is too; absent; there; changed; deleted.
        for expected in all() {
            expect(&handle, None, key, expected).await;
        }
        writer.put(needs).await;
        for stored in [None, Some(&one), Some(&other), None] {
            match stored {
                Some(record) => writer.put([record.clone()]).await,
                None => writer.write(vec![Write::Delete(key.clone())]).await,
            }
            for expected in all() {
                expect(&handle, stored, key, expected).await;
            }
        }
    }
}

pub(crate) async fn values_are_compared_to_the_last_byte(setup: Setup) {
    let handle = setup.store().await.handle().await;
    handle.put(whole_project("p", "The Value")).await;
    let view = crate::sample::view_name(Kind::FeatureView);
    let attached = user_metadata(Kind::FeatureView, "p", &view, "The Value");
    for stored in [object(Kind::Entity, "p", "entities", "The Value"), attached] {
        let value = stored.value.to_vec();
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut value = value.clone();
            change(&mut value);
            value
        };
        let end = value.len();
        let near = [
            changed(&|value| value.push(0)),
            changed(&|value| value.push(b' ')),
            changed(&|value| value.truncate(end - 1)),
            changed(&|value| value.truncate(end / 2)),
            changed(&|value| value.clear()),
            changed(&|value| value[end - 1] ^= 0x20),
            changed(&|value| value[end - 1] ^= 1),
            changed(&|value| value[0] ^= 1),
            changed(&|value| value.extend_from_slice(&value.clone())),
        ];
        for near in near {
            expect(&handle, Some(&stored), &stored.key, Expected::Value(near.into())).await;
        }
        expect(&handle, Some(&stored), &stored.key, Expected::Value(stored.value.clone())).await;
    }
}

/// Writes of every sort to what `whole_project("p", …)` and `("q", …)` have.
pub(crate) fn writes_of_every_sort() -> Vec<Write> {
    let view = crate::sample::view_name(Kind::StreamFeatureView);
    let mut writes: Vec<Write> = whole_project("p", "changed").into_iter().map(Write::Put).collect();
    writes.extend(whole_project("new", "new").into_iter().map(Write::Put));
    writes.push(Write::Delete(key(Kind::Entity, "p", "entities")));
    writes.push(Write::Delete(user_metadata(Kind::StreamFeatureView, "p", &view, "").key));
    writes.push(Write::Delete(key(Kind::LabelView, "p", "label_views")));
    writes.push(Write::Delete(Key::metadata("p", Key::LAST_UPDATED)));
    writes.push(Write::DeleteVersions { project: "p".to_owned(), view });
    writes.push(Write::DeleteProject { project: "q".to_owned() });
    writes
}

pub(crate) async fn a_failed_expectation_leaves_no_trace(setup: Setup) {
    let store = setup.store().await;
    let (handle, other) = (store.handle().await, store.handle().await);
    handle.put(whole_project("p", "first").into_iter().chain(whole_project("q", "first"))).await;
    let before = handle.everything(&[]).await;
    let good: Vec<(Key, Expected)> = before
        .iter()
        .enumerate()
        .map(|(index, (key, record))| {
            let expected = if index % 2 == 0 { Expected::Present } else { Expected::Value(record.value.clone()) };
            (key.clone(), expected)
        })
        .collect();
    let bad = [
        (key(Kind::Entity, "p", "absent"), Expected::Present),
        (key(Kind::Entity, "p", "absent"), Expected::Value(Bytes::new())),
        (version("p", "feature_views", 3, "").key, Expected::Present),
        (key(Kind::LabelView, "new", "label_views"), Expected::Present),
    ];
    for (key, expected) in bad {
        // First, in the middle, last: nothing of what was checked or written before may stay.
        for place in [0, good.len() / 2, good.len()] {
            let mut expectations = good.clone();
            expectations.insert(place, (key.clone(), expected.clone()));
            let (of, is) = (shown(&key), shown(&expected));
            let property = format!("expectation {place} of {} fails ({of} is {is})", expectations.len());
            let outcome = handle.commit(expectations, writes_of_every_sort()).await;
            assert_eq!(outcome, Verdict::Conflict(key.clone()), "{property}");
            for handle in [&handle, &other] {
                assert_unchanged(&property, &before, &handle.everything(&[("new", "feature_views")]).await);
            }
        }
    }
    // The same with a good end: a commit that is refused leaves nothing that would refuse the next.
    assert_eq!(handle.commit(good, writes_of_every_sort()).await, Verdict::Committed, "all expectations hold");
    let after = other.everything(&[]).await;
    assert!(after.keys().all(|key| key.project() != "q"), "the accepted commit is done whole: project `q` is deleted");
    let entity = key(Kind::Entity, "new", "entities");
    assert!(after.contains_key(&entity), "the accepted commit is done whole: {} is there", shown(&entity));
}

pub(crate) async fn expectations_are_about_the_state_before_the_writes(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let one = object(Kind::Entity, "p", "driver", "one");
    let two = object(Kind::Entity, "p", "driver", "two");
    let (key, is) = (one.key.clone(), |record: &Record| Expected::Value(record.value.clone()));
    let put = |record: &Record| Write::Put(record.clone());
    let delete = || Write::Delete(key.clone());
    let steps = [
        ("a creator expects absence", Expected::Absent, vec![put(&one)], Verdict::Committed, Some(&one)),
        ("a second creator", Expected::Absent, vec![put(&two)], Verdict::Conflict(key.clone()), Some(&one)),
        ("a change expects the old value", is(&one), vec![put(&two)], Verdict::Committed, Some(&two)),
        ("a change expects the new value", is(&one), vec![put(&one)], Verdict::Conflict(key.clone()), Some(&two)),
        (
            "deletion before creation",
            Expected::Absent,
            vec![delete(), put(&one)],
            Verdict::Conflict(key.clone()),
            Some(&two),
        ),
        ("deletion expects presence", Expected::Present, vec![delete()], Verdict::Committed, None),
        ("a second deletion", Expected::Present, vec![delete()], Verdict::Conflict(key.clone()), None),
        (
            "creation before deletion",
            Expected::Present,
            vec![put(&one), delete()],
            Verdict::Conflict(key.clone()),
            None,
        ),
        ("creation and deletion", Expected::Absent, vec![put(&one), delete()], Verdict::Committed, None),
    ];
    for (property, expected, writes, outcome, stored) in steps {
        assert_eq!(handle.commit(vec![(key.clone(), expected)], writes).await, outcome, "{property}");
        assert_value(property, &key, stored.map(|record| &*record.value), handle.get(&key).await.as_deref());
    }
}

pub(crate) async fn commits_without_writes_or_expectations(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let record = identity("p", 1);
    assert_eq!(handle.commit(Vec::new(), Vec::new()).await, Verdict::Committed, "a commit of nothing");
    let absent = vec![(record.key.clone(), Expected::Absent)];
    assert_eq!(handle.commit(absent.clone(), Vec::new()).await, Verdict::Committed, "an expectation alone, that holds");
    handle.put([record.clone()]).await;
    let outcome = handle.commit(absent, Vec::new()).await;
    assert_eq!(outcome, Verdict::Conflict(record.key.clone()), "an expectation alone, that does not hold");
    assert_eq!(handle.commit(Vec::new(), Vec::new()).await, Verdict::Committed, "a commit of nothing");
    assert_records(
        "commits without writes write nothing",
        std::slice::from_ref(&record),
        &handle.ask(all_facts()).await,
    );
    assert_eq!(record.value, uuid(1), "the fact is the text that it was");
}

fn all_facts() -> feast_registry_core::Query {
    feast_registry_core::Query::Metadata { project: None }
}

pub(crate) async fn thousands_of_expectations_and_writes(setup: Setup) {
    let store = setup.store().await;
    let (handle, other) = (store.handle().await, store.handle().await);
    const MANY: i32 = 1000;
    let records: Vec<Record> = (0..MANY)
        .flat_map(|number| {
            let name = format!("view {number}");
            let view = object(Kind::FeatureView, "p", &name, format!("note {number}"));
            [view, version("p", &name, 0, "body"), object(Kind::DataSource, "p", &name, "")]
        })
        .collect();
    let absent = |record: &Record| (record.key.clone(), Expected::Absent);
    let is = |record: &Record| (record.key.clone(), Expected::Value(record.value.clone()));
    let writes: Vec<Write> = records.iter().cloned().map(Write::Put).collect();
    // A whole repository is applied in one commit.
    let outcome = handle.commit(records.iter().map(absent).collect(), writes.clone()).await;
    assert_eq!(outcome, Verdict::Committed, "a commit of {} writes", writes.len());
    let views = other.objects(Kind::FeatureView, Some("p")).await;
    let expected = handle.in_order(records.iter().step_by(3).cloned().collect(), |record: &Record| record.key.clone());
    assert_records("all views of a large commit, in their order", &expected, &views);
    let mut expectations: Vec<(Key, Expected)> = records.iter().map(is).collect();
    assert_eq!(handle.commit(expectations.clone(), writes.clone()).await, Verdict::Committed, "3,000 values expected");
    let last = expectations.last_mut().expect("there are many");
    last.1 = Expected::Absent;
    let key = last.0.clone();
    let deletion = vec![Write::DeleteProject { project: "p".to_owned() }];
    assert_eq!(handle.commit(expectations, deletion).await, Verdict::Conflict(key), "the last of 3,000 does not hold");
    assert_eq!(other.objects(Kind::FeatureView, None).await.len(), MANY as usize, "and nothing is deleted");
}
