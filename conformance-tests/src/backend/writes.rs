//! What each write does, alone and after others of the same commit.

use feast_registry_core::{Key, Kind, Record, Write};

use crate::handle::{Everything, assert_unchanged, assert_value, not_of_project, of_project};
use crate::run::Setup;
use crate::sample::{
    AT, identity, key, last_updated, object, object_at, user_metadata, user_metadata_key, version, version_key,
    view_name, whole_project,
};
use crate::shown::shown;

pub(crate) async fn writes_are_done_in_their_order(setup: Setup) {
    let handle = setup.store().await.handle().await;
    let kind = Kind::OnDemandFeatureView;
    let one = object(kind, "p", "view", "one");
    let two = object(kind, "p", "view", "two");
    let (note, later) = (user_metadata(kind, "p", "view", "note"), user_metadata(kind, "p", "view", "later"));
    let (old, new) = (version("p", "view", 3, "old"), version("p", "view", 0, "new"));
    let fact = identity("p", 1);
    let put = |record: &Record| Write::Put(record.clone());
    let delete = |record: &Record| Write::Delete(record.key.clone());
    let history = || Write::DeleteVersions { project: "p".to_owned(), view: "view".to_owned() };
    let project = || Write::DeleteProject { project: "p".to_owned() };
    let cases: [(&str, Vec<Write>, Vec<&Record>); 19] = [
        ("put, put", vec![put(&one), put(&two)], vec![&two]),
        ("put, delete", vec![put(&one), delete(&one)], vec![]),
        ("delete, put", vec![put(&one), delete(&one), put(&two)], vec![&two]),
        ("put, delete, put, delete", vec![put(&one), delete(&one), put(&two), delete(&two)], vec![]),
        ("view, then its metadata", vec![put(&one), put(&note)], vec![&one, &note]),
        ("metadata, then its view", vec![put(&note), put(&one)], vec![&one]),
        ("view, metadata, view", vec![put(&one), put(&note), put(&two)], vec![&two, &note]),
        ("view, metadata twice", vec![put(&one), put(&note), put(&later)], vec![&one, &later]),
        ("metadata put and deleted", vec![put(&one), put(&note), delete(&note)], vec![&one]),
        ("view deleted and put", vec![put(&one), put(&note), delete(&one), put(&two)], vec![&two]),
        ("view deleted, then metadata", vec![put(&one), delete(&one), put(&note)], vec![]),
        ("version put and deleted", vec![put(&old), put(&new), delete(&old)], vec![&new]),
        ("history deleted, then version", vec![put(&old), history(), put(&new)], vec![&new]),
        ("version, then history deleted", vec![put(&old), put(&new), history()], vec![]),
        ("project deleted, then put", vec![put(&old), put(&one), put(&note), project(), put(&two)], vec![&two]),
        ("put, then project deleted", vec![put(&one), put(&note), put(&old), put(&fact), project()], vec![]),
        ("put, project deleted, metadata", vec![put(&one), project(), put(&note), put(&fact)], vec![&fact]),
        ("fact put and deleted", vec![put(&fact), delete(&fact)], vec![]),
        ("fact deleted and put", vec![put(&fact), delete(&fact), put(&fact)], vec![&fact]),
    ];
    let all = [&one, &note, &old, &new, &fact];
    for (property, writes, expected) in cases {
        // In one commit, and write by write: the same must be left.
        for at_once in [true, false] {
            handle.write(vec![project()]).await;
            if at_once {
                handle.write(writes.clone()).await;
            } else {
                for write in writes.clone() {
                    handle.write(vec![write]).await;
                }
            }
            let how = if at_once { "in one commit" } else { "in a commit each" };
            for key in all.map(|record| &record.key) {
                let expected = expected.iter().find(|record| record.key == *key).map(|record| &*record.value);
                assert_value(&format!("{property}, {how}"), key, expected, handle.get(key).await.as_deref());
            }
        }
    }
}

pub(crate) async fn user_metadata_is_only_put_where_its_view_is(setup: Setup) {
    let handle = setup.store().await.handle().await;
    for &kind in Kind::VIEWS {
        // A view of another kind, another project, or another name is not its view.
        let other = Kind::VIEWS[(Kind::VIEWS.iter().position(|of| *of == kind).unwrap_or(0) + 1) % 4];
        let others = [object(other, "p", "view", ""), object(kind, "q", "view", ""), object(kind, "p", "View", "")];
        handle.put(others).await;
        handle.put([user_metadata(kind, "p", "view", "note")]).await;
        for key in [user_metadata_key(kind, "p", "view"), key(kind, "p", "view")] {
            let found = handle.get(&key).await;
            assert_value("user metadata without its view is not put, and makes none", &key, None, found.as_deref());
        }
        for (project, view, of) in [("p", "view", other), ("q", "view", kind), ("p", "View", kind)] {
            let key = user_metadata_key(of, project, view);
            let found = handle.get(&key).await;
            assert_value("user metadata is not put where another view is", &key, None, found.as_deref());
        }
        handle.put([object(kind, "p", "view", ""), user_metadata(kind, "p", "view", "note")]).await;
        let key = user_metadata_key(kind, "p", "view");
        assert_value("user metadata of a view", &key, Some(b"note"), handle.get(&key).await.as_deref());
        handle.write(vec![Write::DeleteProject { project: "p".to_owned() }]).await;
        handle.write(vec![Write::DeleteProject { project: "q".to_owned() }]).await;
    }
}

pub(crate) async fn user_metadata_stays_with_its_view_and_goes_with_it(setup: Setup) {
    let handle = setup.store().await.handle().await;
    // All four kinds share a name here: each has its own.
    for &kind in Kind::VIEWS {
        handle.put([object(kind, "p", "view", "first"), user_metadata(kind, "p", "view", kind.label())]).await;
    }
    for &kind in Kind::VIEWS {
        let (view, attached) = (key(kind, "p", "view"), user_metadata_key(kind, "p", "view"));
        let note = kind.label().as_bytes();
        handle.put([object_at(kind, "p", "view", "second", AT + 1)]).await;
        let found = handle.get(&attached).await;
        assert_value("a view that is written again keeps its user metadata", &attached, Some(note), found.as_deref());
        handle.write(vec![Write::Delete(attached.clone())]).await;
        let found = handle.get(&attached).await;
        assert_value("user metadata is deleted alone", &attached, None, found.as_deref());
        let value = object_at(kind, "p", "view", "second", AT + 1).value;
        let found = handle.get(&view).await;
        assert_value("a view whose user metadata is deleted", &view, Some(&value), found.as_deref());
        handle.put([user_metadata(kind, "p", "view", "again")]).await;
        let found = handle.get(&attached).await;
        assert_value("user metadata is put again", &attached, Some(b"again"), found.as_deref());
    }
    for (index, kind) in Kind::VIEWS.iter().copied().enumerate() {
        handle.write(vec![Write::Delete(key(kind, "p", "view"))]).await;
        handle.put([object(kind, "p", "view", "third")]).await;
        for (other_index, other) in Kind::VIEWS.iter().copied().enumerate() {
            let attached = user_metadata_key(other, "p", "view");
            let expected = (other_index > index).then_some(b"again".as_slice());
            let property = format!("user metadata goes with its {kind}, and does not come back with a new one");
            assert_value(&property, &attached, expected, handle.get(&attached).await.as_deref());
        }
    }
}

pub(crate) async fn deleting_what_is_not_there_is_no_error(setup: Setup) {
    let handle = setup.store().await.handle().await;
    handle.put(whole_project("p", "note")).await;
    let before = handle.everything(&[]).await;
    let mut writes: Vec<Write> = Kind::ALL
        .iter()
        .copied()
        .map(|kind| key(kind, if kind == Kind::Infra { "absent" } else { "p" }, "absent"))
        .chain(Kind::VIEWS.iter().copied().map(|kind| user_metadata_key(kind, "p", "absent")))
        .chain([version_key("p", "feature_views", 9), version_key("p", "absent", 0), identity("q", 0).key])
        .chain([last_updated("", 0).key])
        .map(Write::Delete)
        .collect();
    let (project, view) = ("p".to_owned(), "absent".to_owned());
    writes.push(Write::DeleteVersions { project, view });
    writes.extend(["q", "", "%", "P"].map(|project| Write::DeleteProject { project: project.to_owned() }));
    for write in writes.iter().map(|write| vec![write.clone()]).chain([writes.clone()]) {
        let property = format!("deletions of what is not there ({} in a commit)", write.len());
        handle.write(write).await;
        assert_unchanged(&property, &before, &handle.everything(&[]).await);
    }
}

pub(crate) async fn a_history_is_deleted_whole_and_alone(setup: Setup) {
    let handle = setup.store().await.handle().await;
    for project in ["p", "P", "pp"] {
        handle.put(whole_project(project, "note")).await;
        handle.put(["view", "View", "vie", "view ", "vie_", "vie%"].map(|view| version(project, view, 12, view))).await;
    }
    let histories = ["p", "P", "pp"]
        .into_iter()
        .flat_map(|project| ["view", "View", "vie", "view ", "vie_", "vie%"].map(|view| (project, view)))
        .collect::<Vec<_>>();
    let mut before = handle.everything(&histories).await;
    let stream = view_name(Kind::StreamFeatureView);
    for (project, view) in [("p", stream.as_str()), ("p", "view"), ("p", "vie_"), ("p", "vie%"), ("P", "View")] {
        before.retain(|key, _| !matches!(key, Key::Version { project: p, view: v, .. } if p == project && v == view));
        handle.write(vec![Write::DeleteVersions { project: project.to_owned(), view: view.to_owned() }]).await;
        let property = format!("the deletion of the history of `{view}` in `{project}`, its view and others untouched");
        assert_unchanged(&property, &before, &handle.everything(&histories).await);
    }
}

pub(crate) async fn deleting_a_project_touches_no_other(setup: Setup) {
    let store = setup.store().await;
    let (handle, other) = (store.handle().await, store.handle().await);
    let projects = ["p", "P", "pp", "p ", " p", "p_", "p%", "%", "_", "p/p", "p\u{301}", "\u{1d5c9}"];
    for project in projects {
        handle.put(whole_project(project, project)).await;
        // A history whose view is gone is its project's too.
        handle.put([version(project, "gone", 1, project)]).await;
    }
    let histories = projects.map(|project| (project, "gone"));
    let mut before: Everything = handle.everything(&histories).await;
    for project in projects {
        let whole = whole_project(project, project).len() + 1;
        assert_eq!(of_project(&before, project).len(), whole, "project {project:?} is whole before its turn");
        handle.write(vec![Write::DeleteProject { project: project.to_owned() }]).await;
        before = not_of_project(&before, project);
        let property = format!("the deletion of project {project:?}: all of it, and nothing of another");
        assert_unchanged(&property, &before, &other.everything(&histories).await);
    }
    // A new project of an old name finds nothing of the old one.
    handle.put([object(Kind::Project, "p", "p", ""), object(Kind::FeatureView, "p", "feature_views", "")]).await;
    let after = other.everything(&histories).await;
    let keys: Vec<&Key> = after.keys().collect();
    assert_eq!(
        keys.len(),
        2,
        "a new project of an old name has only what was stored since, and here is {}",
        shown(&keys)
    );
}
