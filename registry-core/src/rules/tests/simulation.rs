//! Two writers at once: whatever the order in which they read and commit, what is stored is as if they had taken turns.

use std::cell::Cell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// What views are called.
pub(super) const NAMES: [&str; 2] = ["trips", "cars"];

/// What a writer does, and the time on its clock.
#[derive(Debug, Clone)]
struct Task {
    op: Op,
    clock: i64,
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(&NAMES[..]).prop_map(str::to_owned)
}

/// A view of any kind in one of few forms, so that writers often mean the same one and often the same form of it.
fn views() -> impl Strategy<Value = Object> {
    let forms = prop::sample::select(vec![&["a"][..], &["a", "b"], &["a", "b", "c"]]);
    let kinds = prop_oneof![3 => Just(Kind::FeatureView), 1 => prop::sample::select(Kind::VIEWS)];
    let version = prop_oneof![4 => Just(""), 1 => prop::sample::select(vec!["v0", "v1", "v5"])];
    let seen = vec(0..4_i64, 0..3);
    (kinds, names(), forms, prop::bool::ANY, version, seen).prop_map(
        |(kind, name, features, described, version, seen)| {
            let description = if described { "d" } else { "" };
            let spec = json!({ "name": name, "features": integers(features), "description": description });
            let view = object(kind, spec, json!({}));
            let view = if kind == Kind::LabelView { view } else { pin(&view, version) };
            let is_materialized = matches!(kind, Kind::FeatureView | Kind::StreamFeatureView);
            if is_materialized { materialized(&view, &seen, 0) } else { view }
        },
    )
}

/// Anything that may be done, so that much of it meets.
pub(super) fn ops() -> impl Strategy<Value = Op> {
    let service = prop::sample::select(&NAMES[..]).prop_map(|name| {
        let projections = json!([{ "feature_view_name": name }]);
        object(Kind::FeatureService, json!({ "features": projections }), json!({}))
    });
    let owner = |owner: &str| object(Kind::Entity, json!({ "owner": owner }), json!({}));
    let entity = prop::sample::select(vec![owner("me"), owner("you")]);
    let description = |text: &str| object(Kind::Project, json!({ "description": text }), json!({}));
    let project = prop::sample::select(vec![description("mine"), description("yours")]);
    let any = prop_oneof![6 => views(), 1 => service, 1 => entity, 1 => project];
    let apply = (vec(any, 1..3), prop::bool::weighted(0.2))
        .prop_map(|(objects, no_promote)| Op::Apply(objects, ApplyOptions { no_promote }));
    let kinds = || prop::sample::select(Kind::VIEWS);
    let metadata = prop::option::of(prop::sample::select(vec![Bytes::from_static(b"1"), Bytes::from_static(b"2")]));
    prop_oneof![
        10 => apply,
        5 => (names(), 0..4_i64).prop_map(|(name, number)| Op::Materialize(name, interval_of(number))),
        1 => (names(), 0..4_i64).prop_map(|(name, number)| Op::Unmaterialize(name, interval_of(number))),
        1 => (kinds(), names()).prop_map(|(kind, name)| Op::Delete(kind, name)),
        1 => Just(Op::Delete(Kind::Entity, "thing".to_owned())),
        2 => names().prop_map(Op::DeleteView),
        1 => Just(Op::DeleteProject),
        1 => (kinds(), names(), metadata).prop_map(|(kind, name, bytes)| Op::UserMetadata(kind, name, bytes)),
    ]
}

fn tasks(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Task>> {
    vec((ops(), 0..3_i64).prop_map(|(op, clock)| Task { op, clock: START + clock }), count)
}

/// The same operation decides the same when it decides again: its clock and its UUIDs are its own.
fn attempt(backend: &MemoryBackend, seed: u64, task: &Task) -> Result<Commit> {
    let now = Timestamp { seconds: task.clock, nanos: START_NANOS };
    decide(backend, Step { now, seed, keeps_metadata: true }, PROJECT, &task.op)
}

/// What became of an operation: the kind of its error, or nothing.
type Answer = std::result::Result<(), ErrorKind>;

/// An operation's place in the order in which they took effect, as its writer and its number, and its answer.
type Effect = (u64, Answer);

/// A writer, at work on the first of its tasks; with a commit, when it has decided and not committed yet.
struct Writer<'a> {
    tasks: std::slice::Iter<'a, Task>,
    current: Option<&'a Task>,
    seed: u64,
    commit: Option<Commit>,
}

impl<'a> Writer<'a> {
    fn new(seed: u64, tasks: &'a [Task]) -> Self {
        let mut tasks = tasks.iter();
        Self { current: tasks.next(), tasks, seed, commit: None }
    }

    /// Decides, or commits what was decided; on a conflict it will decide again. Returns what took effect.
    ///
    /// What is refused and what writes nothing takes effect at the moment of its read, all else when it is committed.
    fn step(&mut self, backend: &MemoryBackend, conflicts: &Cell<usize>) -> Option<Effect> {
        let task = self.current?;
        let answer = match self.commit.take() {
            None => match attempt(backend, self.seed, task) {
                Ok(commit) if commit.writes.is_empty() => Ok(()),
                Ok(commit) => {
                    self.commit = Some(commit);
                    return None;
                }
                Err(error) => Err(error.kind()),
            },
            Some(commit) => match ready(backend.commit(commit, &deadline())).expect("memory does not fail") {
                Outcome::Committed { .. } => Ok(()),
                Outcome::Conflict(_) => {
                    conflicts.set(conflicts.get() + 1);
                    return None;
                }
            },
        };
        let effect = (self.seed, answer);
        self.current = self.tasks.next();
        self.seed += 1;
        Some(effect)
    }

    fn is_done(&self) -> bool {
        self.current.is_none()
    }
}

/// Runs tasks one by one, and says what became of each.
fn in_turn<'a>(backend: &MemoryBackend, tasks: impl IntoIterator<Item = (u64, &'a Task)>) -> Vec<Effect> {
    let mut run = |(seed, task): (u64, &Task)| {
        let answer = attempt(backend, seed, task).map_err(|error| error.kind()).map(|commit| {
            let outcome = ready(backend.commit(commit, &deadline())).expect("memory does not fail");
            assert!(outcome.is_committed(), "nobody else writes here");
        });
        (seed, answer)
    };
    tasks.into_iter().map(&mut run).collect()
}

/// All that is stored but the note of the last change, which may be that of any writer at work.
fn state(backend: &MemoryBackend) -> BTreeMap<Key, Bytes> {
    let mut state = dump(backend, &NAMES);
    state.remove(&Key::metadata(PROJECT, Key::LAST_UPDATED));
    state
}

/// Where the numbers of the two writers' operations begin.
const FIRST: u64 = 1000;
const SECOND: u64 = 2000;

#[test]
fn two_writers_leave_what_they_would_leave_in_some_order_one_after_another() {
    let config = ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() };
    let conflicts = Cell::new(0);
    let strategy = (tasks(0..5), tasks(1..5), tasks(1..5), vec(any::<bool>(), 0..40));
    let result = TestRunner::new(config).run(&strategy, |(before, one, other, turns)| {
        let backend = MemoryBackend::new();
        in_turn(&backend, (0..).zip(&before));
        let mut writers = [Writer::new(FIRST, &one), Writer::new(SECOND, &other)];
        let mut effects = Vec::new();
        for turn in turns {
            effects.extend(writers[usize::from(turn)].step(&backend, &conflicts));
        }
        for writer in &mut writers {
            while !writer.is_done() {
                effects.extend(writer.step(&backend, &conflicts));
            }
        }
        let serial = MemoryBackend::new();
        in_turn(&serial, (0..).zip(&before));
        let task = |seed: u64| match seed {
            SECOND.. => &other[(seed - SECOND) as usize],
            _ => &one[(seed - FIRST) as usize],
        };
        let replayed = in_turn(&serial, effects.iter().map(|(seed, _)| (*seed, task(*seed))));
        prop_assert_eq!(&replayed, &effects, "the answers");
        prop_assert_eq!(state(&serial), state(&backend), "what is stored, after {:?}", effects);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(conflicts.get() > 100, "the writers hardly ever met: {} conflicts", conflicts.get());
}

/// As found by the test above: what an apply of many left alone, since the latest version says the same, is as it was when the
/// others of it are committed.
#[test]
fn a_version_that_is_recorded_already_is_still_the_latest_at_the_commit() {
    let unpromoted =
        |objects: Vec<Object>| Task { op: Op::Apply(objects, ApplyOptions { no_promote: true }), clock: START };
    let trips = |features: &[&str]| view(Kind::FeatureView, "trips", features);
    let service = object(Kind::FeatureService, json!({ "features": [{ "feature_view_name": "trips" }] }), json!({}));
    let backend = MemoryBackend::new();
    let before = [unpromoted(vec![trips(&["a"])]), unpromoted(vec![trips(&["a", "b"])])];
    in_turn(&backend, (0..).zip(&before));
    let decided = attempt(&backend, FIRST, &unpromoted(vec![service, trips(&["a", "b"])])).expect("a commit");
    in_turn(&backend, [(SECOND, &unpromoted(vec![trips(&["a", "b", "c"])]))]);
    let outcome = ready(backend.commit(decided, &deadline())).expect("memory does not fail");
    assert!(matches!(outcome, Outcome::Conflict(Key::Version { number: 2, .. })), "{outcome:?}");
}

/// Every interval that was acknowledged is there, once for each time it was recorded.
#[test]
fn two_writers_lose_no_interval_whatever_they_apply_meanwhile() {
    let config = ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() };
    let conflicts = Cell::new(0);
    let trips = || view(Kind::FeatureView, "trips", &["a"]);
    let apply = vec(0..4_i64, 0..3)
        .prop_map(move |seen| Op::Apply(vec![materialized(&trips(), &seen, 3)], ApplyOptions::default()));
    let record = (0..4_i64).prop_map(|number| Op::Materialize("trips".to_owned(), interval_of(number)));
    let ops = || prop_oneof![1 => apply.clone(), 2 => record.clone()];
    let tasks = || vec(ops().prop_map(|op| Task { op, clock: START }), 1..8);
    let strategy = (tasks(), tasks(), vec(any::<bool>(), 0..40));
    let result = TestRunner::new(config).run(&strategy, |(one, other, turns)| {
        let world = World::with([trips()]);
        let mut writers = [Writer::new(FIRST, &one), Writer::new(SECOND, &other)];
        for turn in turns {
            writers[usize::from(turn)].step(&world.backend, &conflicts);
        }
        for writer in &mut writers {
            while !writer.is_done() {
                writer.step(&world.backend, &conflicts);
            }
        }
        let stored = intervals(&world.stored(&trips()));
        for number in 0..4 {
            let interval = interval_of(number);
            let recorded = one.iter().chain(&other).filter(|task| match &task.op {
                Op::Materialize(_, recorded) => *recorded == interval,
                _ => false,
            });
            let (recorded, found) = (recorded.count(), stored.iter().filter(|stored| **stored == interval).count());
            // An apply may have brought it first; it never adds what is there.
            prop_assert!(found == recorded || found == recorded + 1, "{}: {} of {}", number, found, recorded);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(conflicts.get() > 100, "the writers hardly ever met: {} conflicts", conflicts.get());
}
