//! A commit takes place once, however often the storage is given it, and whatever others have written since.

use feast_registry_core::{Commit, Expected, Kind, Outcome, Record, Write};

use crate::handle::{Handle, Verdict, assert_unchanged, or_fail, patience};
use crate::race::{RACERS, Rounds, race};
use crate::run::Setup;
use crate::sample::{
    AT, identity, key, last_updated, object, object_at, user_metadata, user_metadata_key, version, whole_project,
};
use crate::shown::shown;

/// A commit, what must be there before it, and what others then do: after that, all that it expects holds again.
pub(crate) struct Deed {
    pub(crate) what: &'static str,
    pub(crate) needs: Vec<Record>,
    pub(crate) commit: Commit,
    pub(crate) undo: Vec<Write>,
}

/// Commits of every sort, each in a project of its own, whose name begins with this.
pub(crate) fn deeds(prefix: &str) -> Vec<Deed> {
    let project = |number: usize| format!("{prefix}p{number}");
    let mut deeds = Vec::new();
    let mut add = |what, needs: Vec<Record>, expectations, writes, undo| {
        deeds.push(Deed { what, needs, commit: Commit::new(expectations, writes), undo });
    };
    let absent = |record: &Record| vec![(record.key.clone(), Expected::Absent)];
    let present = |record: &Record| vec![(record.key.clone(), Expected::Present)];
    let is = |record: &Record| vec![(record.key.clone(), Expected::Value(record.value.clone()))];
    let put = |record: &Record| vec![Write::Put(record.clone())];
    let delete = |record: &Record| vec![Write::Delete(record.key.clone())];
    let put_all = |records: Vec<Record>| records.into_iter().map(Write::Put).collect::<Vec<_>>();

    let p = project(0);
    let made = object(Kind::Project, &p, &p, "made");
    let removal = |p: &str| vec![Write::DeleteProject { project: p.to_owned() }];
    add("a project is made", vec![], absent(&made), put(&made), removal(&p));
    let p = project(1);
    let there = object(Kind::Project, &p, &p, "note");
    let anew = put_all(whole_project(&p, "anew"));
    add("a project is deleted", whole_project(&p, "note"), present(&there), removal(&p), anew);

    let (p, q, r) = (project(2), project(3), project(4));
    let entity = |p: &str, note: &str| object(Kind::Entity, p, "driver", note);
    let made = entity(&p, "made");
    add("an entity is made", vec![], absent(&made), put(&made), delete(&made));
    let there = entity(&q, "there");
    let anew = put(&object_at(Kind::Entity, &q, "driver", "anew", AT + 1));
    add("an entity is deleted", vec![there.clone()], present(&there), delete(&there), anew);
    let (old, new) = (entity(&r, "old"), entity(&r, "new"));
    add("an entity is changed", vec![old.clone()], is(&old), put(&new), put(&old));

    let (p, q) = (project(5), project(6));
    let view = |p: &str| object(Kind::FeatureView, p, "view", "");
    let attached = |p: &str, note: &str| user_metadata(Kind::FeatureView, p, "view", note);
    let note = attached(&p, "note");
    add("user metadata is put", vec![view(&p)], absent(&note), put(&note), delete(&note));
    let note = attached(&q, "note");
    let anew = put(&attached(&q, "anew"));
    add("user metadata is deleted", vec![view(&q), note.clone()], present(&note), delete(&note), anew);

    let (p, q) = (project(7), project(8));
    let history = |p: &str| vec![Write::DeleteVersions { project: p.to_owned(), view: "view".to_owned() }];
    let made = version(&p, "view", 0, "made");
    add("a version is made", vec![], absent(&made), put(&made), history(&p));
    let there = version(&q, "view", 0, "there");
    let anew = put(&version(&q, "view", 0, "anew"));
    add("a history is deleted", vec![there.clone()], present(&there), history(&q), anew);

    let (p, q) = (project(9), project(10));
    let (old, new) = (last_updated(&p, AT), last_updated(&p, AT + 1));
    add("a fact is changed", vec![old.clone()], is(&old), put(&new), put(&old));
    add("a write without expectations", vec![], vec![], put(&identity(&q, 1)), put(&identity(&q, 2)));
    deeds
}

/// Does a commit, and returns what is answered.
async fn done(handle: &Handle, deed: &Deed) -> Outcome {
    handle.put(deed.needs.clone()).await;
    let first = handle.send(deed.commit.clone()).await;
    match &first {
        Outcome::Committed { revision: Some(_) } => {}
        Outcome::Committed { revision: None } => {
            let unkept = handle.0.limits().unkept;
            assert!(!unkept.is_empty(), "a storage without revisions says so in `Limits::unkept`");
        }
        other => panic!("{}: its expectations hold, and it is answered {}", deed.what, shown(other)),
    }
    first
}

/// Sends a commit again, and checks that it is answered as it was and that nothing changes.
async fn sent_again(property: &str, handles: &[Handle], deed: &Deed, first: &Outcome) {
    let before = handles[0].everything(&deed.histories()).await;
    for (index, handle) in handles.iter().enumerate() {
        let property = format!("{}, and is sent again {property}, by handle {index}", deed.what);
        assert_eq!(handle.send(deed.commit.clone()).await, *first, "{property}: it is answered as the first time");
    }
    let property = format!("{}, and is sent again {property}", deed.what);
    assert_unchanged(&property, &before, &handles[0].everything(&deed.histories()).await);
    if let Some(times) = handles[0].times_in_journal(deed.commit.id).await {
        assert_eq!(times, 1, "{property}: how often the journal has it");
    }
}

impl Deed {
    /// The history that is looked at besides what is found by itself.
    pub(crate) fn histories(&self) -> [(&str, &str); 1] {
        let project = match &self.commit.writes[0] {
            Write::Put(record) => record.key.project(),
            Write::Delete(key) => key.project(),
            Write::DeleteVersions { project, .. } | Write::DeleteProject { project } => project,
        };
        [(project, "view")]
    }
}

pub(crate) async fn a_commit_that_is_sent_again_is_answered_as_before(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(3).await;
    for deed in deeds("") {
        let first = done(&handles[0], &deed).await;
        sent_again("at once", &handles, &deed, &first).await;
    }
    let nothing = Commit::new(Vec::new(), Vec::new());
    let first = handles[0].send(nothing.clone()).await;
    assert_eq!(handles[1].send(nothing).await, first, "a commit of nothing has its place in the journal too");
}

pub(crate) async fn what_others_did_since_is_not_undone(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(3).await;
    for deed in deeds("") {
        let first = done(&handles[0], &deed).await;
        handles[1].write(deed.undo.clone()).await;
        sent_again("after another did the opposite", &handles, &deed, &first).await;
    }
}

pub(crate) async fn a_hundred_commits_by_others_make_nothing_forgotten(setup: Setup) {
    const OTHERS: usize = 120;
    let store = setup.store().await;
    let mut handles = store.handles(3).await;
    let mut sent = Vec::new();
    for deed in deeds("") {
        let first = done(&handles[0], &deed).await;
        sent.push((deed, first));
    }
    let undone = sent.iter().flat_map(|(deed, _)| deed.undo.clone()).collect();
    handles[1].write(undone).await;
    for number in 0..OTHERS {
        let record = object(Kind::Entity, "others", &format!("number {}", number % 10), number.to_string());
        handles[1 + number % 2].put([record]).await;
    }
    // One that was not there when it was done.
    handles.push(store.handle().await);
    for (deed, first) in &sent {
        sent_again(&format!("after {OTHERS} commits by others"), &handles, deed, first).await;
    }
}

pub(crate) async fn a_storage_that_was_removed_remembers(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(3).await;
    let project = object(Kind::Project, "p", "p", "");
    let creation = Commit::new(vec![(project.key.clone(), Expected::Absent)], vec![Write::Put(project.clone())]);
    let deletion = Commit::new(
        vec![(project.key.clone(), Expected::Present)],
        vec![Write::DeleteProject { project: "p".to_owned() }],
    );
    let created = handles[0].send(creation.clone()).await;
    let deleted = handles[0].send(deletion.clone()).await;
    assert!(or_fail("remove_if_empty", handles[1].0.remove_if_empty(&patience()).await), "no project is left");
    for handle in &handles {
        assert_eq!(
            handle.send(creation.clone()).await,
            created,
            "a creation, sent again to a storage that was removed"
        );
        assert_eq!(handle.get(&project.key).await, None, "a creation that was undone is not done again");
    }
    handles[1].put(whole_project("p", "anew")).await;
    let before = handles[2].everything(&[]).await;
    for handle in &handles {
        let answer = handle.send(deletion.clone()).await;
        assert_eq!(answer, deleted, "a deletion, sent again to a storage that was removed and made anew");
    }
    assert_unchanged("a deletion that was done is not done again", &before, &handles[2].everything(&[]).await);
}

pub(crate) async fn copies_that_race_take_effect_once(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(3).await;
    let mut rounds = Rounds::new("copies of one commit", 12);
    while let Some(round) = rounds.next() {
        // The expectations hold for the first alone, or always.
        let record = object(Kind::Entity, "p", &format!("driver {round}"), "");
        let expectations = if round % 2 == 0 { vec![(record.key.clone(), Expected::Absent)] } else { Vec::new() };
        let commit = Commit::new(expectations, vec![Write::Put(record.clone())]);
        let racers = (0..RACERS).map(|racer| {
            let (handle, commit) = (handles[racer % handles.len()].clone(), commit.clone());
            async move { handle.send(commit).await }
        });
        let (outcomes, raced) = race(racers).await;
        rounds.saw(raced);
        assert!(
            outcomes[0].is_committed(),
            "round {round}: its expectations held, and it is answered {}",
            shown(&outcomes)
        );
        assert!(
            outcomes.iter().all(|outcome| *outcome == outcomes[0]),
            "round {round}: {RACERS} copies of one commit are answered alike, and not {}",
            shown(&outcomes)
        );
        if let Some(times) = handles[1].times_in_journal(commit.id).await {
            assert_eq!(times, 1, "round {round}: how often the journal has a commit of which {RACERS} copies raced");
        }
    }
}

pub(crate) async fn a_commit_that_was_refused_may_be_sent_again(setup: Setup) {
    let store = setup.store().await;
    let handles = store.handles(2).await;
    let there = object(Kind::Project, "p", "p", "");
    let entity = key(Kind::Entity, "p", "driver");
    let note = user_metadata_key(Kind::FeatureView, "p", "view");
    for (number, of) in [there.key.clone(), entity, note].into_iter().enumerate() {
        let marker = object(Kind::SavedDataset, "marker", &number.to_string(), "");
        let commit = Commit::new(vec![(of.clone(), Expected::Present)], vec![Write::Put(marker.clone())]);
        for handle in &handles {
            let outcome = handle.send(commit.clone()).await;
            assert_eq!(outcome, Outcome::Conflict(of.clone()), "a commit whose expectation does not hold");
        }
        handles[1].put(whole_project("p", "note")).await;
        handles[1].put([object(Kind::Entity, "p", "driver", ""), object(Kind::FeatureView, "p", "view", "")]).await;
        handles[1].put([user_metadata(Kind::FeatureView, "p", "view", "note")]).await;
        let outcome = handles[0].send(commit.clone()).await;
        assert!(outcome.is_committed(), "the same commit once its expectation holds: {}", shown(&outcome));
        assert!(handles[1].get(&marker.key).await.is_some(), "and what it writes is there");
        let deletion = vec![Write::Delete(of.clone())];
        assert_eq!(handles[1].commit(Vec::new(), deletion).await, Verdict::Committed, "a deletion");
        assert_eq!(handles[0].send(commit).await, outcome, "and again, once its expectation no longer holds");
        handles[1].write(vec![Write::DeleteProject { project: "p".to_owned() }]).await;
    }
}
