//! Taking back what commits did.

use proptest::collection::vec;
use proptest::prelude::*;

use super::simulation::{NAMES, ops};
use super::*;
use crate::journal::{Change, Image, JournalEntry, JournalQuery, Target};
use crate::rules::{Goals, Refusal, UndoOptions, Undone, fetch_for_undo};

const PLAIN: UndoOptions = UndoOptions { force: false, with_materializations: false };
const FORCED: UndoOptions = UndoOptions { force: true, ..PLAIN };
const WITH_MATERIALIZATIONS: UndoOptions = UndoOptions { with_materializations: true, ..PLAIN };

impl World {
    /// The journal, newest entry first.
    fn journal(&self) -> Vec<JournalEntry> {
        ready(self.backend.journal(&JournalQuery::before(None, usize::MAX), &deadline())).expect("memory does not fail")
    }

    /// Commits what an undo drafts, unless something is refused. The clock goes on.
    fn undo(&mut self, goals: &Goals, options: UndoOptions) -> Undone {
        let step = Step { now: self.now, seed: self.steps, keeps_metadata: self.keeps_metadata };
        self.steps += 1;
        self.now.seconds += 1;
        let decided = decide_with(&self.backend, step, &fetch_for_undo(goals), |draft, ctx| {
            crate::rules::undo(draft, ctx, goals, options)
        });
        let (commit, undone) = decided.expect("nothing that is a defect");
        if undone.refusals.is_empty() && !commit.writes.is_empty() {
            let outcome = ready(self.backend.commit(commit, &deadline())).expect("memory does not fail");
            assert!(outcome.is_committed(), "nobody else writes here");
        }
        undone
    }

    /// Reverts the newest commit but so many.
    fn revert(&mut self, but: usize, options: UndoOptions) -> Undone {
        let mut goals = Goals::default();
        goals.take_back(&self.journal()[but].changes, |_| true);
        self.undo(&goals, options)
    }

    /// Reverts as [`revert`](Self::revert), and nothing may be against it.
    fn reverted(&mut self, but: usize, options: UndoOptions) -> Vec<String> {
        let undone = self.revert(but, options);
        assert_eq!(undone.refusals, [], "what can be reverted");
        undone.remarks.into_iter().map(|(_, remark)| remark).collect()
    }

    /// Takes back everything after the oldest commits, so many.
    fn restore(&mut self, stay: usize, options: UndoOptions) -> Undone {
        let mut goals = Goals::of_projects();
        let journal = self.journal();
        for entry in &journal[..journal.len() - stay] {
            goals.take_back(&entry.changes, |_| true);
        }
        self.undo(&goals, options)
    }
}

/// What is stored, but for when the project was last changed.
fn lasting(world: &World, views: &[&str]) -> BTreeMap<Key, Bytes> {
    let mut dump = world.dump(views);
    dump.remove(&Key::metadata(PROJECT, Key::LAST_UPDATED));
    dump
}

fn told(refusals: &[Refusal]) -> Vec<(ErrorKind, &str)> {
    refusals.iter().map(|refusal| (refusal.kind, refusal.reason.as_str())).collect()
}

#[test]
fn a_definition_goes_back_and_what_was_materialized_stays() {
    for kind in [Kind::FeatureView, Kind::StreamFeatureView] {
        let mut world = World::with([view(kind, "trips", &["a"])]);
        world.run(&Op::Materialize("trips".to_owned(), interval_of(1))).expect("recorded");
        let before = world.find(kind, "trips").expect("a view");
        world.apply(&view(kind, "trips", &["a", "b"])).expect("applied");
        world.run(&Op::Materialize("trips".to_owned(), interval_of(2))).expect("recorded");
        assert!(world.reverted(1, PLAIN).is_empty());
        let after = world.find(kind, "trips").expect("a view");
        assert_eq!(definition_of(&after), definition_of(&before));
        assert_eq!(intervals(&after), intervals_of(&[1, 2]), "{kind}");
        let (before, after) = (meta_of(&before), meta_of(&after));
        assert_eq!((after.state, after.created_timestamp), (before.state, before.created_timestamp));
        assert_eq!(after.current_version_number, 2, "a version of its own");
        assert_eq!(world.version_numbers("trips"), [0, 1, 2]);
    }
}

#[test]
fn tags_go_back_without_a_new_version() {
    let mut world = World::with([thing(Kind::FeatureView)]);
    let before = world.find(Kind::FeatureView, "thing").expect("a view");
    let retagged = object(Kind::FeatureView, json!({ "tags": { "team": "shop" } }), json!({}));
    world.apply(&retagged).expect("applied");
    assert!(world.reverted(0, PLAIN).is_empty());
    let after = world.find(Kind::FeatureView, "thing").expect("a view");
    assert_eq!(definition_of(&after), definition_of(&before));
    assert_eq!(world.version_numbers("thing"), [0]);
}

#[test]
fn a_materialization_is_taken_back_only_if_that_is_asked_for_and_then_exactly_it() {
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"])]);
    for number in [1, 2, 1, 3] {
        world.run(&Op::Materialize("trips".to_owned(), interval_of(number))).expect("recorded");
    }
    let before = world.dump(&["trips"]);
    let remarks = world.reverted(1, PLAIN);
    assert!(remarks.len() == 1 && remarks[0].contains("materialization stays"), "{remarks:?}");
    assert_eq!(world.dump(&["trips"]), before, "there was nothing to revert");
    world.reverted(1, WITH_MATERIALIZATIONS);
    let kept = |world: &World| intervals(&world.find(Kind::FeatureView, "trips").expect("a view"));
    assert_eq!(kept(&world), intervals_of(&[1, 2, 3]), "the second of two that are equal");
    // The first one ever goes with the state that it brought.
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"])]);
    let before = meta_of(&world.find(Kind::FeatureView, "trips").expect("a view"));
    world.run(&Op::Materialize("trips".to_owned(), interval_of(1))).expect("recorded");
    world.reverted(0, WITH_MATERIALIZATIONS);
    let after = meta_of(&world.find(Kind::FeatureView, "trips").expect("a view"));
    assert_eq!((after.state, after.intervals), (before.state, before.intervals));
}

#[test]
fn intervals_that_were_removed_do_not_come_back_with_a_definition() {
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"])]);
    world.run(&Op::Materialize("trips".to_owned(), interval_of(1))).expect("recorded");
    world.apply(&view(Kind::FeatureView, "trips", &["b"])).expect("applied");
    world.run(&Op::Unmaterialize("trips".to_owned(), interval_of(1))).expect("removed");
    world.reverted(1, PLAIN);
    assert_eq!(intervals(&world.find(Kind::FeatureView, "trips").expect("a view")), []);
    world.restore(2, WITH_MATERIALIZATIONS);
    assert_eq!(intervals(&world.find(Kind::FeatureView, "trips").expect("a view")), intervals_of(&[1]));
}

#[test]
fn what_a_commit_created_goes_with_its_history() {
    for &kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Project) {
        let mut world = World::with([object(Kind::Entity, json!({ "name": "other" }), json!({}))]);
        let before = lasting(&world, &["thing"]);
        world.apply(&thing(kind)).expect("applied");
        assert!(world.reverted(0, PLAIN).is_empty(), "{kind}");
        assert_eq!(lasting(&world, &["thing"]), before, "{kind}");
    }
}

#[test]
fn what_was_deleted_comes_back_byte_for_byte() {
    for &kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Project) {
        let mut world =
            World::with([view(Kind::FeatureView, "trips", &["a"]), view(Kind::FeatureView, "cars", &["c"])]);
        world.apply(&thing(kind)).expect("applied");
        if kind.is_view() {
            world.apply(&view(kind, "thing", &["x"])).expect("applied");
            let metadata = Op::UserMetadata(kind, "thing".to_owned(), Some(Bytes::from_static(b"mine")));
            world.run(&metadata).expect("attached");
        }
        let before = lasting(&world, &["thing"]);
        let name = if kind == Kind::Infra { INFRA_NAME } else { "thing" };
        world.run(&Op::Delete(kind, name.to_owned())).expect("deleted");
        assert_ne!(lasting(&world, &["thing"]), before, "{kind}");
        assert!(world.reverted(0, PLAIN).is_empty(), "{kind}");
        assert_eq!(lasting(&world, &["thing"]), before, "{kind}");
        assert_eq!(world.fact(Key::LAST_UPDATED), Some(world.last().seconds.to_string()), "{kind}");
    }
}

#[test]
fn a_deleted_project_comes_back_whole_and_once() {
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"]), view(Kind::FeatureView, "cars", &["c"])]);
    for &kind in Kind::ALL {
        let name = if kind.is_view() { kind.plural() } else { "thing" };
        let named = if kind == Kind::Project { json!({}) } else { json!({ "name": name }) };
        world.apply(&object(kind, if kind == Kind::Infra { json!({}) } else { named }, json!({}))).expect("applied");
    }
    let names = ["trips", "cars", "feature_views", "stream_feature_views", "on_demand_feature_views", "label_views"];
    // A service over a view that was gone already.
    world.run(&Op::DeleteView("cars".to_owned())).expect("deleted");
    let before = lasting(&world, &names);
    world.run(&Op::DeleteProject).expect("deleted");
    assert!(world.dump(&names).is_empty());
    assert!(world.reverted(0, PLAIN).is_empty());
    assert_eq!(lasting(&world, &names), before);
    let entries = world.journal().len();
    let again = world.reverted(1, PLAIN);
    assert!(!again.is_empty() && again.iter().all(|remark| remark == "it is as it was already"), "{again:?}");
    assert_eq!(world.journal().len(), entries, "and nothing was committed");
    // Reverting the revert is deleting the project.
    world.reverted(0, PLAIN);
    assert!(world.dump(&names).is_empty());
}

#[test]
fn a_project_that_was_made_anew_has_its_first_identity_again() {
    let mut world = World::with([thing(Kind::Entity)]);
    let identity = world.fact(Key::PROJECT_UUID);
    world.run(&Op::DeleteProject).expect("deleted");
    world.apply(&thing(Kind::DataSource)).expect("applied");
    assert_ne!(world.fact(Key::PROJECT_UUID), identity);
    assert_eq!(world.restore(1, PLAIN).refusals, []);
    assert_eq!(world.fact(Key::PROJECT_UUID), identity);
    assert!(world.find(Kind::Entity, "thing").is_some() && world.find(Kind::DataSource, "thing").is_none());
}

#[test]
fn a_project_that_is_purged_of_its_facts_comes_back_without() {
    let mut world = World::with([thing(Kind::Entity)]);
    world.run(&Op::DeleteProject).expect("deleted");
    world.keeps_metadata = false;
    world.reverted(0, PLAIN);
    assert_eq!(world.fact(Key::PROJECT_UUID), None);
    assert!(world.find(Kind::Entity, "thing").is_some());
}

#[test]
fn a_project_goes_with_the_commit_that_made_it_unless_others_are_in_it() {
    let mut world = World::with([thing(Kind::Entity)]);
    world.apply(&thing(Kind::DataSource)).expect("applied");
    let remarks = world.reverted(1, PLAIN);
    assert!(remarks.len() == 1 && remarks[0].contains("other objects"), "{remarks:?}");
    assert!(world.find(Kind::Entity, "thing").is_none() && world.find(Kind::DataSource, "thing").is_some());
    assert!(world.find(Kind::Project, PROJECT).is_some() && world.fact(Key::PROJECT_UUID).is_some());
    let mut world = World::with([thing(Kind::Entity)]);
    assert!(world.reverted(0, PLAIN).is_empty());
    assert!(world.dump(&[]).is_empty());
}

#[test]
fn what_has_been_changed_since_is_named_and_nothing_is_done() {
    let mut world = World::with([thing(Kind::Entity)]);
    let named = |name: &str, text: &str| object(Kind::Entity, json!({ "name": name, "description": text }), json!({}));
    world.apply_all(&["a", "b", "c", "d"].map(|name| named(name, "old"))).expect("applied");
    world.apply_all(&["a", "b", "c", "d"].map(|name| named(name, "new"))).expect("applied");
    world.apply(&named("b", "newer")).expect("applied");
    world.run(&Op::Delete(Kind::Entity, "c".to_owned())).expect("deleted");
    let before = world.dump(&[]);
    let refusals = world.revert(2, PLAIN).refusals;
    let changed = ErrorKind::Changed;
    let expected = [
        (changed, "entity `b` of project `rides` has been changed since"),
        (changed, "entity `c` of project `rides` has been deleted since"),
    ];
    assert_eq!(told(&refusals), expected);
    assert_eq!(world.dump(&[]), before);
    world.reverted(2, FORCED);
    for name in ["a", "b", "c", "d"] {
        let entity: core::Entity = world.find(Kind::Entity, name).expect("an entity").decode().expect("an entity");
        assert_eq!(entity.spec.expect("a spec").description, "old", "{name}");
    }
    // What was deleted and is there again is not overwritten.
    world.run(&Op::Delete(Kind::Entity, "a".to_owned())).expect("deleted");
    world.apply(&named("a", "another")).expect("applied");
    let refusals = world.revert(1, PLAIN).refusals;
    assert_eq!(told(&refusals), [(changed, "entity `a` of project `rides` has been made anew since")]);
}

#[test]
fn user_metadata_goes_back_and_is_not_overwritten() {
    let attach = |bytes: Option<&'static [u8]>| {
        Op::UserMetadata(Kind::FeatureView, "thing".to_owned(), bytes.map(Bytes::from_static))
    };
    let mut world = World::with([thing(Kind::FeatureView)]);
    let key = user_metadata_key(Kind::FeatureView, PROJECT, "thing");
    world.run(&attach(Some(b"1"))).expect("attached");
    world.run(&attach(Some(b"2"))).expect("attached");
    world.reverted(0, PLAIN);
    assert_eq!(world.value(key.clone()).as_deref(), Some(&b"1"[..]));
    let refusals = world.revert(2, PLAIN).refusals;
    assert_eq!(refusals, [], "it is what the first one left");
    assert_eq!(world.value(key.clone()), None);
    let refusals = world.revert(2, PLAIN).refusals;
    assert_eq!(refusals.iter().map(|refusal| refusal.kind).collect::<Vec<_>>(), [ErrorKind::Changed]);
}

#[test]
fn what_the_journal_does_not_keep_is_named() {
    let mut world = World::with([thing(Kind::Entity), thing(Kind::DataSource)]);
    let of =
        |kind: Kind, before: Image, after: Image| Change::of_key(Key::object(kind, PROJECT, "thing"), before, after);
    let mut goals = Goals::default();
    let changes = [
        of(Kind::Entity, Image::NotKept, Image::NotKept),
        of(Kind::DataSource, Image::Absent, Image::NotKept),
        of(Kind::Permission, Image::NotKept, Image::Absent),
    ];
    goals.take_back(&changes, |_| true);
    let refusals = world.undo(&goals, PLAIN).refusals;
    let unsupported = ErrorKind::Unsupported;
    let unknown = [
        (unsupported, "the journal does not keep what entity `thing` of project `rides` was"),
        (
            unsupported,
            "whether data source `thing` of project `rides` has been changed since is not known: the journal does not \
             keep its bytes",
        ),
        (unsupported, "the journal does not keep what permission `thing` of project `rides` was"),
    ];
    assert_eq!(told(&refusals), unknown);
    assert_eq!(told(&world.undo(&goals, FORCED).refusals), [unknown[0], unknown[2]]);
    // A removal of which nothing says what went with it.
    let mut goals = Goals::default();
    goals.take_back(&[Change::removal(Target::Project { project: "gone".to_owned() })], |_| true);
    let unknown = [(unsupported, "the journal does not keep what project `gone` was")];
    assert_eq!(told(&world.undo(&goals, FORCED).refusals), unknown);
}

#[test]
fn a_view_that_asked_for_a_version_is_at_that_version_again() {
    let mut world =
        World::with([view(Kind::FeatureView, "trips", &["a"]), view(Kind::FeatureView, "trips", &["a", "b"])]);
    world.apply(&pin(&view(Kind::FeatureView, "trips", &["a", "b"]), "v0")).expect("pinned");
    let pinned = world.find(Kind::FeatureView, "trips").expect("a view");
    world.apply(&view(Kind::FeatureView, "trips", &["c"])).expect("applied");
    assert!(world.reverted(0, PLAIN).is_empty());
    let after = world.find(Kind::FeatureView, "trips").expect("a view");
    assert_eq!(definition_of(&after), definition_of(&pinned));
    assert_eq!(meta_of(&after).current_version_number, 0);
    assert_eq!(world.version_numbers("trips"), [0, 1, 2], "the history has it already");
}

#[test]
fn a_view_asks_no_more_for_a_version_that_is_of_another_view_by_now() {
    let asking = pin(&view(Kind::FeatureView, "trips", &["a"]), "v0");
    let mut world = World::with([thing(Kind::Entity), asking.clone()]);
    world.run(&Op::DeleteView("trips".to_owned())).expect("deleted");
    world.apply(&view(Kind::FeatureView, "trips", &["b"])).expect("applied");
    let undone = world.restore(2, PLAIN);
    assert_eq!(undone.refusals, []);
    assert!(undone.remarks.len() == 1 && undone.remarks[0].1.contains("asked for v0"), "{:?}", undone.remarks);
    let after = world.find(Kind::FeatureView, "trips").expect("a view");
    assert!(definition::is_same(&after, &pin(&asking, ""), Closeness::Exact).expect("well-formed"));
    assert_eq!((meta_of(&after).current_version_number, world.version_numbers("trips")), (1, vec![0, 1]));
}

#[test]
fn a_service_does_not_come_back_without_its_views() {
    let views = [view(Kind::FeatureView, "trips", &["a", "b"]), view(Kind::FeatureView, "cars", &["c"])];
    let mut world = World::with(views.clone());
    world.apply(&thing(Kind::FeatureService)).expect("applied");
    let before = lasting(&world, &["trips", "cars"]);
    world.run(&Op::Delete(Kind::FeatureService, "thing".to_owned())).expect("deleted");
    world.run(&Op::DeleteView("trips".to_owned())).expect("deleted");
    let refusals = world.revert(1, PLAIN).refusals;
    assert_eq!(
        told(&refusals),
        [(
            ErrorKind::FeatureNotFound,
            "feature service `thing` of project `rides` refers to what project `rides` does not have: view `trips`"
        )]
    );
    // Together with them it does.
    assert_eq!(world.restore(3, PLAIN).refusals, []);
    assert_eq!(lasting(&world, &["trips", "cars"]), before);
}

#[test]
fn a_view_does_not_come_back_beside_one_of_another_kind() {
    let mut world = World::with([view(Kind::FeatureView, "trips", &["a"])]);
    let before = lasting(&world, &["trips"]);
    world.run(&Op::DeleteView("trips".to_owned())).expect("deleted");
    world.apply(&view(Kind::LabelView, "trips", &["a"])).expect("applied");
    for options in [PLAIN, FORCED] {
        let refusals = world.revert(1, options).refusals;
        assert_eq!(refusals.iter().map(|of| of.kind).collect::<Vec<_>>(), [ErrorKind::ConflictingFeatureViewNames]);
    }
    // In its place it does: the history is the old one again.
    assert_eq!(world.restore(1, PLAIN).refusals, []);
    assert_eq!(lasting(&world, &["trips"]), before);
}

#[test]
fn what_cannot_be_decoded_is_refused_or_comes_back_as_it_was() {
    let mut world = World::with([thing(Kind::Entity)]);
    world.plant(Key::object(Kind::Entity, PROJECT, "thing"), &b"\xff"[..]);
    world.apply(&thing(Kind::Entity)).expect("it is mended");
    let refusals = world.revert(0, PLAIN).refusals;
    assert!(refusals.len() == 1 && refusals[0].kind == ErrorKind::Corrupt, "{refusals:?}");
    world.plant(Key::object(Kind::FeatureService, PROJECT, "thing"), &b"\xff"[..]);
    let before = lasting(&world, &[]);
    world.run(&Op::DeleteProject).expect("deleted");
    world.reverted(0, PLAIN);
    assert_eq!(lasting(&world, &[]), before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Faults: anything that is lost, or comes back as something else.
    #[test]
    fn a_project_is_as_it_was_before_its_deletion_whatever_was_done_in_it(ops in vec(ops(), 1..20)) {
        let mut world = World::with([thing(Kind::Entity)]);
        for op in &ops {
            drop(world.run(op));
        }
        let before = lasting(&world, &NAMES);
        if world.run(&Op::DeleteProject).is_ok() {
            prop_assert!(world.dump(&NAMES).is_empty());
            world.reverted(0, PLAIN);
            prop_assert_eq!(lasting(&world, &NAMES), before);
        }
    }

    #[test]
    fn a_project_goes_back_to_any_moment(ops in vec(ops(), 1..20), at in any::<prop::sample::Index>()) {
        let mut world = World::with([thing(Kind::Entity)]);
        let at = at.index(ops.len());
        for op in &ops[..at] {
            drop(world.run(op));
        }
        let (then, journal) = (world.dump(&NAMES), world.journal().len());
        for op in &ops[at..] {
            drop(world.run(op));
        }
        let now = world.dump(&NAMES);
        let undone = world.restore(journal, PLAIN);
        prop_assert_eq!(&undone.refusals, &[]);
        let after = world.dump(&NAMES);
        let objects = |dump: &BTreeMap<Key, Bytes>| -> Vec<Key> {
            dump.keys().filter(|key| matches!(key, Key::Object { .. } | Key::UserMetadata { .. })).cloned().collect()
        };
        prop_assert_eq!(objects(&after), objects(&then));
        for key in objects(&after) {
            let (was, is) = (&then[&key], &after[&key]);
            let Key::Object { kind, .. } = &key else {
                prop_assert_eq!(is, was);
                continue;
            };
            let of = |bytes: &Bytes| Object::new(*kind, bytes.clone());
            // A version that it asked for may be of a view that was deleted since.
            prop_assert!(definition::is_same(&of(was), &of(is), Closeness::Pinning).expect("well-formed"), "{}", key);
            match now.get(&key) {
                None => prop_assert_eq!(is, was, "it was gone: {}", key),
                Some(now) => prop_assert_eq!(intervals(&of(is)), intervals(&of(now)), "{}", key),
            }
        }
        for key in now.keys().filter(|key| matches!(key, Key::Version { .. })) {
            let Key::Version { view, .. } = key else { continue };
            let is_there = |dump: &BTreeMap<Key, Bytes>| Kind::VIEWS.iter().any(|kind| {
                dump.contains_key(&Key::object(*kind, PROJECT, view.as_str()))
            });
            let same_kind = Kind::VIEWS.iter().any(|kind| {
                let key = Key::object(*kind, PROJECT, view.as_str());
                now.contains_key(&key) && after.contains_key(&key)
            });
            if is_there(&after) && same_kind {
                prop_assert_eq!(after.get(key), now.get(key), "no version of a view that stays is removed");
            }
        }
    }

    /// Faults: what is undone cannot be undone again.
    #[test]
    fn reverting_a_revert_is_doing_it_again(ops in vec(ops(), 1..12)) {
        let mut world = World::with([thing(Kind::Entity)]);
        for op in &ops {
            drop(world.run(op));
        }
        let done = lasting(&world, &NAMES);
        let entries = world.journal().len();
        let undone = world.revert(0, WITH_MATERIALIZATIONS);
        if undone.refusals.is_empty() && world.journal().len() > entries {
            let undone = world.revert(0, WITH_MATERIALIZATIONS);
            prop_assert_eq!(&undone.refusals, &[]);
            let again = lasting(&world, &NAMES);
            let objects = |dump: &BTreeMap<Key, Bytes>| -> Vec<Key> {
                dump.keys().filter(|key| matches!(key, Key::Object { .. } | Key::UserMetadata { .. })).cloned().collect()
            };
            prop_assert_eq!(objects(&again), objects(&done));
            for key in objects(&again) {
                let Key::Object { kind, .. } = &key else { continue };
                let of = |dump: &BTreeMap<Key, Bytes>| Object::new(*kind, dump[&key].clone());
                let (done, again) = (of(&done), of(&again));
                prop_assert!(definition::is_same(&done, &again, Closeness::Exact).expect("well-formed"), "{}", key);
                prop_assert_eq!(intervals(&done), intervals(&again), "{}", key);
            }
        }
    }
}
