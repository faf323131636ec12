//! Names are compared byte by byte.

use std::collections::BTreeMap;

use bytes::Bytes;
use feast_registry_core::{Expected, Key, Kind, Query, Record, Write};

use crate::handle::{Handle, Verdict, assert_records, assert_unchanged, assert_value, not_of_project};
use crate::run::Setup;
use crate::sample::{
    LOOKALIKES, identity, key, last_updated, object, user_metadata, user_metadata_key, version, version_key,
};
use crate::shown::shown;

/// Checks that each key has its own value and that its absence is no longer believed, then deletes every other one and
/// checks that the rest are untouched.
async fn are_told_apart(handle: &Handle, stored: &BTreeMap<Key, Bytes>) {
    for (key, value) in stored {
        assert_value("names that look alike are different", key, Some(value), handle.get(key).await.as_deref());
        let outcome = handle.commit(vec![(key.clone(), Expected::Absent)], Vec::new()).await;
        assert_eq!(outcome, Verdict::Conflict(key.clone()), "what is stored is not absent");
        let outcome = handle.commit(vec![(key.clone(), Expected::Value(value.clone()))], Vec::new()).await;
        assert_eq!(outcome, Verdict::Committed, "what is stored under {} has its value", shown(&key));
    }
    let (deleted, kept): (Vec<_>, Vec<_>) = stored.iter().enumerate().partition(|(index, _)| index % 2 == 0);
    for (_, (key, _)) in &deleted {
        handle.write(vec![Write::Delete((*key).clone())]).await;
    }
    for (_, (key, _)) in deleted {
        assert_value("a deleted name is gone", key, None, handle.get(key).await.as_deref());
        let outcome = handle.commit(vec![(key.clone(), Expected::Absent)], Vec::new()).await;
        assert_eq!(outcome, Verdict::Committed, "a deleted name is absent, though others look like it");
    }
    for (_, (key, value)) in kept {
        let property = "a deletion leaves names that look alike";
        assert_value(property, key, Some(value), handle.get(key).await.as_deref());
    }
}

fn by_key(records: &[Record]) -> BTreeMap<Key, Bytes> {
    records.iter().map(|record| (record.key.clone(), record.value.clone())).collect()
}

pub(crate) async fn objects_with_names_that_look_alike(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let stored: Vec<Record> = LOOKALIKES.iter().map(|name| object(Kind::Entity, "p", name, name)).collect();
    for (index, record) in stored.iter().enumerate() {
        let creation = vec![(record.key.clone(), Expected::Absent)];
        let outcome = handle.commit(creation, vec![Write::Put(record.clone())]).await;
        assert_eq!(outcome, Verdict::Committed, "no earlier name is taken for name {index}, {}", shown(&record.key));
    }
    let listed = handle.in_order(stored.clone(), |record| record.key.clone());
    assert_records("a list of names that look alike", &listed, &handle.objects(Kind::Entity, Some("p")).await);
    are_told_apart(&handle, &by_key(&stored)).await;
}

pub(crate) async fn views_with_names_that_look_alike(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let mut versions = Vec::new();
    for name in LOOKALIKES {
        let kind = Kind::VIEWS[name.len() % 4];
        handle.put([object(kind, "p", name, name), user_metadata(kind, "p", name, name)]).await;
        let history = [version("p", name, 0, name), version("p", name, 1, name)];
        handle.put(history.clone()).await;
        versions.push(history);
    }
    let attached: Vec<Record> =
        LOOKALIKES.iter().map(|name| user_metadata(Kind::VIEWS[name.len() % 4], "p", name, name)).collect();
    for (name, history) in LOOKALIKES.iter().zip(&versions) {
        assert_records(&format!("the history of {name:?}"), history, &handle.versions("p", name).await);
    }
    are_told_apart(&handle, &by_key(&attached)).await;
    are_told_apart(&handle, &by_key(&versions.iter().flatten().cloned().collect::<Vec<_>>())).await;
    // Every other version is gone now. Histories, too, are deleted one at a time.
    for (index, name) in LOOKALIKES.iter().enumerate() {
        let left = handle.versions("p", name).await.len();
        let (project, view) = ("p".to_owned(), (*name).to_owned());
        handle.write(vec![Write::DeleteVersions { project, view }]).await;
        assert_eq!(left, 1, "the deletion of {index} histories before left that of {name:?}");
        assert_eq!(handle.versions("p", name).await.len(), 0, "the history of {name:?} is deleted");
    }
}

pub(crate) async fn projects_with_names_that_look_alike(setup: Setup) {
    let handle = setup.store().await.handle().await;
    for (number, project) in LOOKALIKES.iter().enumerate() {
        let records = [
            object(Kind::Project, project, project, project),
            object(Kind::Entity, project, "driver", project),
            object(Kind::FeatureView, project, "view", project),
            user_metadata(Kind::FeatureView, project, "view", project),
            version(project, "view", 0, project),
            identity(project, number as i32),
            last_updated(project, number as i64),
        ];
        let creation = records.iter().map(|record| (record.key.clone(), Expected::Absent)).collect();
        let outcome = handle.commit(creation, records.iter().cloned().map(Write::Put).collect()).await;
        assert_eq!(outcome, Verdict::Committed, "no earlier project is taken for {project:?}");
    }
    for project in LOOKALIKES {
        let expected = [object(Kind::Entity, project, "driver", project)];
        let property = format!("the entities of project {project:?}");
        assert_records(&property, &expected, &handle.objects(Kind::Entity, Some(project)).await);
        let facts = handle.ask(Query::Metadata { project: Some((*project).to_owned()) }).await;
        assert_eq!(facts.len(), 2, "the facts about project {project:?}, not those of one that looks like it");
        let history = handle.versions(project, "view").await;
        assert_records("a history in that project", &[version(project, "view", 0, project)], &history);
    }
    let mut before = handle.everything(&[]).await;
    assert_eq!(before.len(), 7 * LOOKALIKES.len(), "every record of every project is there");
    for project in LOOKALIKES {
        handle.write(vec![Write::DeleteProject { project: (*project).to_owned() }]).await;
        let after = handle.everything(&[(project, "view")]).await;
        before = not_of_project(&before, project);
        assert_unchanged(&format!("the deletion of project {project:?} alone"), &before, &after);
    }
}

/// Names as long as the backend says, in characters of one byte and of four; 10,000 where it says nothing.
pub(crate) async fn long_names(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let longest = handle.0.limits().name_chars.unwrap_or(10_000);
    assert!(longest >= 255, "names of 255 characters are Feast's, and this backend stores at most {longest}");
    for length in [255, longest] {
        for character in ['x', '\u{e9}', '\u{1f697}'] {
            // The last character is what tells the names apart: a prefix must not stand for the whole.
            let names: Vec<String> =
                ['a', 'b', ' '].map(|last| character.to_string().repeat(length - 1) + &last.to_string()).into();
            let mut stored = Vec::new();
            for name in &names {
                stored.push(object(Kind::Entity, name, name, "entity"));
                stored.push(object(Kind::Project, name, name, "project"));
                stored.push(object(Kind::FeatureView, name, name, "view"));
                stored.push(version(name, name, 1, "version"));
                stored.push(user_metadata(Kind::FeatureView, name, name, "user metadata"));
                stored.push(identity(name, 1));
            }
            handle.put(stored.clone()).await;
            let keys = stored.iter().map(|record| record.key.clone()).collect();
            let property = format!("names of {length} characters {character:?}");
            assert_records(&property, &stored, &handle.ask(Query::Keys(keys)).await);
            for name in &names {
                let expected = [object(Kind::Entity, name, name, "entity")];
                assert_records(&property, &expected, &handle.objects(Kind::Entity, Some(name)).await);
                assert_records(&property, &[version(name, name, 1, "version")], &handle.versions(name, name).await);
            }
            handle.write(vec![Write::Delete(key(Kind::FeatureView, &names[0], &names[0]))]).await;
            for (name, is_there) in [(&names[0], false), (&names[1], true), (&names[2], true)] {
                let key = user_metadata_key(Kind::FeatureView, name, name);
                assert_eq!(handle.get(&key).await.is_some(), is_there, "{property}: {}", shown(&key));
                let key = version_key(name, name, 1);
                assert!(handle.get(&key).await.is_some(), "{property}: {}", shown(&key));
            }
        }
    }
}
