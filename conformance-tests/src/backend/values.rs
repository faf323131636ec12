//! Values come back as they were stored, to the byte.

use bytes::Bytes;
use feast_registry_core::proto::core::FeatureViewVersionRecord;
use feast_registry_core::{Expected, Key, Kind, Query, Record};

use crate::handle::{Handle, Verdict, assert_records, assert_value};
use crate::run::Setup;
use crate::sample::{
    AT, at, filler, identity, key, last_updated, message, object, user_metadata, uuid, version_of, whole_project,
};
use crate::shown::shown;

/// Stores a record and checks it by key, by an expectation, and again after it is replaced by itself.
async fn comes_back(handle: &Handle, property: &str, record: &Record) {
    let key = &record.key;
    for _ in 0..2 {
        handle.put([record.clone()]).await;
        assert_value(property, key, Some(&record.value), handle.get(key).await.as_deref());
        let outcome = handle.commit(vec![(key.clone(), Expected::Value(record.value.clone()))], Vec::new()).await;
        assert_eq!(outcome, Verdict::Committed, "{property}: {} has the value that was just stored", shown(key));
    }
}

fn every_byte() -> Vec<u8> {
    // Each byte after each: also every broken piece of UTF-8, every line end, every NUL.
    (0..=255_u8).flat_map(|first| (0..=255_u8).flat_map(move |second| [first, second])).collect()
}

pub(crate) async fn every_byte_comes_back(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let fillers = [every_byte(), vec![0; 1000], vec![0xff; 1000], b"\\x00\\000'\";--\r\n\\".to_vec(), vec![0x80]];
    for value in &fillers {
        for &kind in Kind::ALL {
            comes_back(&handle, "an object with any bytes", &object(kind, "p", "name", value)).await;
        }
        for &kind in Kind::VIEWS {
            let property = "user metadata of any bytes";
            comes_back(&handle, property, &user_metadata(kind, "p", "name", value)).await;
        }
    }
    // A message may have its fields in any order and a field more than once; nothing may tidy it up.
    let mut odd = message(Kind::Entity, "p", "name", "late", AT).to_vec();
    odd.extend_from_slice(&message(Kind::Entity, "p", "name", "", AT));
    let record = Record::new(key(Kind::Entity, "p", "name"), odd, AT);
    comes_back(&handle, "a message that no library would write like this", &record).await;
}

pub(crate) async fn empty_values_are_values(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let property = "an empty value is there, and is not the absence of one";
    handle.put(whole_project("p", "note")).await;
    let mut records = vec![Record::new(key(Kind::Infra, "p", ""), Bytes::new(), AT)];
    records
        .extend(Kind::VIEWS.iter().copied().map(|kind| user_metadata(kind, "p", &crate::sample::view_name(kind), "")));
    for record in &records {
        comes_back(&handle, property, record).await;
        for (expected, holds) in
            [(Expected::Present, true), (Expected::Absent, false), (Expected::Value(Bytes::from_static(b"\0")), false)]
        {
            let outcome = handle.commit(vec![(record.key.clone(), expected.clone())], Vec::new()).await;
            let (key, expected) = (shown(&record.key), shown(&expected));
            assert_eq!(outcome == Verdict::Committed, holds, "{property}: {key} is {expected}");
        }
    }
}

pub(crate) async fn values_of_megabytes(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let largest = handle.0.limits().value_bytes;
    assert!(largest >= 64 * 1024 - 1, "Feast's narrowest column holds 65,535 bytes, this backend at most {largest}");
    // Around the sizes at which columns, pages and packets end; up to 4 MiB, or as much as the backend says.
    let overhead = object(Kind::FeatureView, "p", "view", vec![0; 70_000]).value.len() - 70_000 + 1;
    let sizes = [65_535, 65_536, 1 << 20, (1 << 22) + 1];
    let mut last = None;
    for size in sizes.into_iter().map(|size| size.min(largest)) {
        let pattern: Vec<u8> = (0..size.saturating_sub(overhead)).map(|index| (index % 251) as u8).collect();
        let record = object(Kind::FeatureView, "p", "view", &pattern);
        comes_back(&handle, &format!("an object of {} bytes", record.value.len()), &record).await;
        let history = version_of(FeatureViewVersionRecord {
            feature_view_name: "view".to_owned(),
            project_id: "p".to_owned(),
            feature_view_type: "feature_view".to_owned(),
            feature_view_proto: pattern.clone().into(),
            created_timestamp: Some(at(AT)),
            version_id: uuid(0),
            ..Default::default()
        });
        if history.value.len() <= largest {
            comes_back(&handle, "a large version", &history).await;
        }
        let attached = user_metadata(Kind::FeatureView, "p", "view", &pattern);
        comes_back(&handle, "large user metadata", &attached).await;
        last = Some(record);
    }
    let expected: Vec<Record> = last.into_iter().collect();
    let other = store.handle().await;
    assert_records("a large object in a list", &expected, &other.objects(Kind::FeatureView, None).await);
    // Smaller again: no rest of the larger value is left.
    let small = object(Kind::FeatureView, "p", "view", "small");
    comes_back(&handle, "a small object in place of a large one", &small).await;
    let value = other.get(&small.key).await.unwrap_or_default();
    assert_eq!(filler(&value), b"small", "a small object in place of a large one, from another handle");
}

pub(crate) async fn all_fields_of_a_version(setup: Setup) {
    let store = setup.store().await;
    let (handle, other) = (store.handle().await, store.handle().await);
    let full = FeatureViewVersionRecord {
        feature_view_name: "view \u{1f697} 'quoted'".to_owned(),
        project_id: "project \u{1f697}".to_owned(),
        version_number: 0,
        feature_view_type: "feature_view".to_owned(),
        feature_view_proto: every_byte().into(),
        created_timestamp: Some(at(AT)),
        description: "several lines\nof \"text\", \u{e9}, \u{1f697} and 'quotes' \\".to_owned(),
        version_id: uuid(7),
    };
    let mut versions = vec![full.clone()];
    versions.push(FeatureViewVersionRecord { version_number: 1, description: String::new(), ..full.clone() });
    versions.push(FeatureViewVersionRecord { version_number: 2, feature_view_proto: Bytes::new(), ..full.clone() });
    versions.push(FeatureViewVersionRecord { version_number: 3, description: "long ".repeat(12_000), ..full.clone() });
    for (number, kind) in (4..).zip(Kind::VIEWS.iter().copied()) {
        let feature_view_type = kind.version_type().unwrap_or_default().to_owned();
        versions.push(FeatureViewVersionRecord { version_number: number, feature_view_type, ..full.clone() });
    }
    for (number, second) in (10..).zip([1, AT + 1, 253_402_300_799]) {
        let created_timestamp = Some(at(second));
        versions.push(FeatureViewVersionRecord { version_number: number, created_timestamp, ..full.clone() });
    }
    let records: Vec<Record> = versions.into_iter().map(version_of).collect();
    for record in &records {
        comes_back(&handle, "a version with all its fields", record).await;
    }
    let found = other.versions(&full.project_id, &full.feature_view_name).await;
    assert_records("a history with all its fields", &records, &found);
    let facts = [identity("p", 12), last_updated("p", AT), last_updated("p", 0)];
    for fact in &facts {
        comes_back(&handle, "a fact", fact).await;
    }
    let found = other.ask(Query::Keys(vec![Key::metadata("p", Key::LAST_UPDATED)])).await;
    assert_records("a fact, from another handle", &facts[2..], &found);
}
