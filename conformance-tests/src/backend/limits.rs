//! Limits: what a backend says that it can hold, it holds; and it says so once.

use bytes::Bytes;
use feast_registry_core::{Expected, JournalQuery, Kind, Limits, Query, Record, Write};

use crate::handle::{Handle, Verdict, assert_value, or_fail, patience};
use crate::run::Setup;
use crate::sample::{object, whole_project};

/// The most that is tried of what a backend says it holds: more than the 16 MiB at which packets and documents end by default.
const LARGE: usize = 17 << 20;

/// Bytes that cannot be compressed, of which no two pieces are the same.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(size + 8);
    while noise.len() < size {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(size);
    noise
}

pub(crate) async fn an_object_as_large_as_promised(setup: Setup) {
    let store = setup.store().await;
    let (handle, other) = (store.handle().await, store.handle().await);
    let size = handle.0.limits().value_bytes.min(LARGE);
    let message = |filler: usize| object(Kind::FeatureView, "p", "view", noise(filler));
    let overhead = message(size).value.len() - size;
    let mut filler = size - overhead;
    // A length takes fewer bytes, the shorter what it is of is.
    while message(filler + 1).value.len() <= size {
        filler += 1;
    }
    let (record, key) = (message(filler), message(0).key);
    let property = format!("an object of {} bytes, where {size} are within the limits", record.value.len());
    handle.put([record.clone()]).await;
    assert_value(&property, &key, Some(&record.value), other.get(&key).await.as_deref());
    // It is compared as what it is, and gives its place to one that is as large: so an object is changed.
    let mut almost = record.value.to_vec();
    *almost.last_mut().expect("it is long") ^= 1;
    let almost = Bytes::from(almost);
    let changed = Record::new(key.clone(), almost.clone(), record.updated);
    for (value, verdict) in [(almost, Verdict::Conflict(key.clone())), (record.value, Verdict::Committed)] {
        let outcome =
            other.commit(vec![(key.clone(), Expected::Value(value))], vec![Write::Put(changed.clone())]).await;
        assert_eq!(outcome, verdict, "{property}, compared with what is expected");
    }
    assert_value("what took its place", &key, Some(&changed.value), handle.get(&key).await.as_deref());
}

#[track_caller]
fn assert_same(after: &str, limits: &Limits, handle: &Handle) {
    assert_eq!(&handle.0.limits(), limits, "after `prepare` the limits are final, and after {after} they are others");
}

pub(crate) async fn they_are_final_once_prepared(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let limits = handle.0.limits();
    assert!(limits.unkept.iter().all(|promise| !promise.trim().is_empty()), "a promise that is not kept is a sentence");
    let other = store.handle().await;
    assert_same("another handle was prepared", &limits, &handle);
    assert_same("the same on another handle", &limits, &other);
    for round in 0..2 {
        handle.put(whole_project("p", "note")).await;
        assert_same("a commit", &limits, &handle);
        handle.commit(vec![(object(Kind::Entity, "p", "absent", "").key, Expected::Present)], Vec::new()).await;
        assert_same("a conflict", &limits, &handle);
        handle.read(&[Query::objects(Kind::Entity, None), Query::Metadata { project: None }]).await;
        assert_same("a read", &limits, &handle);
        // Where there is no journal, that is known from the start.
        drop(handle.0.journal(&JournalQuery::after(None, 10), &patience()).await);
        assert_same("a look at the journal", &limits, &handle);
        other.write(vec![Write::DeleteProject { project: "p".to_owned() }]).await;
        assert_same("a commit of another handle", &limits, &handle);
        let removed = other.0.remove_if_empty(&patience()).await;
        assert!(or_fail("a removal", removed), "round {round}: a storage without a project is removed");
        assert_same("the storage was removed", &limits, &other);
        assert_same("the storage was removed by another handle", &limits, &handle);
    }
}
