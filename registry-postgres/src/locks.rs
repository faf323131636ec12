//! Advisory locks of a transaction, by which commits of several processes wait for one another instead of failing.
//!
//! A commit locks the keys that it depends on or writes, whether they are there or not: so what it expects to be absent
//! stays absent until it is done. It shares the projects and the histories that these are of; who removes all of one has it
//! alone, since a `DELETE` passes over the rows that others insert while it waits for one (the conformance suite's
//! `histories`). Locks are taken in the order of their numbers, so no two commits wait for each other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use feast_registry_core::{Commit, Key, Kind, Record, Write};
use feast_registry_sql::{Statement, Value, keys_of};

/// The most keys that are locked one by one. PostgreSQL keeps all locks in a table of fixed size (some 6,400 by default);
/// who has more to lock has the whole registry.
const MAX_KEYS: usize = 64;

/// The most locks in all: histories and projects that are removed are no keys, and a statement returns 1,664 columns at the
/// most.
const MAX_LOCKS: usize = 5 * MAX_KEYS;

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Shared,
    Exclusive,
}

/// Locks what a commit depends on and writes. No lock is waited for longer than `timeout` (milliseconds), these and those
/// of the statements that follow.
pub(crate) fn of_commit(commit: &Commit, timeout: i64) -> Statement {
    let keys = keys_of(commit);
    if keys.len() > MAX_KEYS {
        return of_registry(timeout);
    }
    let mut locks = BTreeMap::from([(number(REGISTRY), Mode::Shared)]);
    let mut lock = |number: i64, mode: Mode| {
        let held = locks.entry(number).or_insert(mode);
        *held = mode.max(*held);
    };
    let mode = |key: &Key| if is_written(commit, key) { Mode::Exclusive } else { Mode::Shared };
    let keys = keys.into_iter().map(|key| (mode(&key), key));
    for (mode, key) in keys.chain(commit.writes.iter().filter_map(touched)) {
        lock(number(&all_of_project(key.project())), Mode::Shared);
        if let Key::Version { project, view, .. } = &key {
            lock(number(&all_versions(project, view)), Mode::Shared);
        }
        numbers(&key).for_each(|number| lock(number, mode));
    }
    for write in &commit.writes {
        match write {
            Write::DeleteVersions { project, view } => {
                lock(number(&all_of_project(project)), Mode::Shared);
                lock(number(&all_versions(project, view)), Mode::Exclusive);
            }
            Write::DeleteProject { project } => {
                lock(number(&all_of_project(project)), Mode::Exclusive);
                // A server of a version that knows no lock of all that a project has shares the project itself, at least.
                numbers(&Key::project_object(project)).for_each(|number| lock(number, Mode::Exclusive));
            }
            Write::Put(_) | Write::Delete(_) => {}
        }
    }
    if locks.len() > MAX_LOCKS {
        return of_registry(timeout);
    }
    statement(&locks, timeout)
}

/// What a write depends on or changes besides its own key: user metadata is only put where its view is, and goes with it.
/// (the conformance suite's `histories`)
fn touched(write: &Write) -> Option<(Mode, Key)> {
    match write {
        Write::Put(Record { key: Key::UserMetadata { kind, project, view }, .. }) => {
            Some((Mode::Shared, Key::object(*kind, project, view)))
        }
        Write::Delete(Key::Object { kind, project, name }) if kind.is_view() => {
            let (project, view) = (project.clone(), name.clone());
            Some((Mode::Exclusive, Key::UserMetadata { kind: *kind, project, view }))
        }
        _ => None,
    }
}

/// Locks the whole registry.
pub(crate) fn of_registry(timeout: i64) -> Statement {
    statement(&BTreeMap::from([(number(REGISTRY), Mode::Exclusive)]), timeout)
}

/// Locks nothing: `timeout` is for the statements that follow.
pub(crate) fn only_timeout(timeout: i64) -> Statement {
    statement(&BTreeMap::new(), timeout)
}

fn is_written(commit: &Commit, key: &Key) -> bool {
    commit.writes.iter().any(|write| match write {
        Write::Put(record) => record.key == *key,
        Write::Delete(deleted) => deleted == key,
        // Who removes all of something has all of it alone.
        Write::DeleteVersions { .. } | Write::DeleteProject { .. } => false,
    })
}

/// One text for so many locks, whichever way each is held.
fn statement(locks: &BTreeMap<i64, Mode>, timeout: i64) -> Statement {
    let call = |index: usize| {
        let (number, mode) = (2 * index + 2, 2 * index + 3);
        // Cast, since the functions return nothing, which is no type that a driver reads.
        format!(
            ", CASE ${mode} WHEN 1 THEN pg_advisory_xact_lock(${number})::text \
             ELSE pg_advisory_xact_lock_shared(${number})::text END"
        )
    };
    // As a value, so that it is one statement to those who count statements.
    let mut text = "SELECT set_config('lock_timeout', $1, true)".to_owned();
    text.extend((0..locks.len()).map(call));
    let value = |(number, mode): (&i64, &Mode)| {
        [Value::BigInteger(*number), Value::Integer(i32::from(*mode == Mode::Exclusive))]
    };
    let timeout = Value::Text(timeout.to_string());
    Statement { text, values: [timeout].into_iter().chain(locks.iter().flat_map(value)).collect() }
}

/// What the lock of the whole registry is a number of.
const REGISTRY: &str = "registry";

/// What the lock of all that a project has is a number of.
fn all_of_project(project: &str) -> String {
    format!("project {project}")
}

/// What the lock of a view's history is a number of.
fn all_versions(project: &str, view: &str) -> String {
    format!("versions {project}/{view}")
}

/// The numbers of the locks of a key: one, or two where its text has characters beyond ASCII.
///
/// Servers of different versions at work on one database must agree on a number. What was first hashed was the text that
/// derives from `Debug`, so that text is written here for good. Of characters beyond ASCII it depends on the version of
/// Unicode that a build of Rust knows which are escaped, so a key that has any is also locked by a text that has them as
/// they are.
fn numbers(key: &Key) -> impl Iterator<Item = i64> {
    let first = number(&text_of(key, false));
    let is_ascii = match key {
        Key::Object { project, name, .. } | Key::Metadata { project, name } => project.is_ascii() && name.is_ascii(),
        Key::Version { project, view, .. } | Key::UserMetadata { project, view, .. } => {
            project.is_ascii() && view.is_ascii()
        }
    };
    let second = (!is_ascii).then(|| number(&text_of(key, true)));
    [first].into_iter().chain(second)
}

/// The text of a key: what `Debug` said of it, or with characters beyond ASCII `as_they_are`.
fn text_of(key: &Key, as_they_are: bool) -> String {
    let quoted = |text: &str| quoted(text, as_they_are);
    match key {
        Key::Object { kind, project, name } => {
            format!("Object {{ kind: {}, project: {}, name: {} }}", kind_name(*kind), quoted(project), quoted(name))
        }
        Key::Version { project, view, number } => {
            format!("Version {{ project: {}, view: {}, number: {number} }}", quoted(project), quoted(view))
        }
        Key::UserMetadata { kind, project, view } => format!(
            "UserMetadata {{ kind: {}, project: {}, view: {} }}",
            kind_name(*kind),
            quoted(project),
            quoted(view)
        ),
        Key::Metadata { project, name } => {
            format!("Metadata {{ project: {}, name: {} }}", quoted(project), quoted(name))
        }
    }
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Project => "Project",
        Kind::Entity => "Entity",
        Kind::DataSource => "DataSource",
        Kind::FeatureView => "FeatureView",
        Kind::StreamFeatureView => "StreamFeatureView",
        Kind::OnDemandFeatureView => "OnDemandFeatureView",
        Kind::LabelView => "LabelView",
        Kind::FeatureService => "FeatureService",
        Kind::SavedDataset => "SavedDataset",
        Kind::ValidationReference => "ValidationReference",
        Kind::Permission => "Permission",
        Kind::Infra => "Infra",
    }
}

fn quoted(text: &str, as_they_are: bool) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '\0' => quoted.push_str("\\0"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\n' => quoted.push_str("\\n"),
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            '\x01'..='\x1f' | '\x7f' => drop(write!(quoted, "\\u{{{:x}}}", u32::from(character))),
            beyond if as_they_are => quoted.push(beyond),
            beyond => quoted.extend(beyond.escape_debug()),
        }
    }
    quoted.push('"');
    quoted
}

/// The number of a text: FNV-1a. Two texts of one number wait for each other without need, and that is all.
fn number(of: &str) -> i64 {
    let hash = format!("feast-registry {of}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use feast_registry_core::Expected;

    fn entity(name: &str) -> Key {
        Key::object(Kind::Entity, "p", name)
    }

    fn put(key: Key) -> Write {
        Write::Put(Record::new(key, bytes::Bytes::new(), 0))
    }

    /// The locks of a commit of one write: whether each is had alone.
    fn modes(write: Write) -> BTreeMap<i64, bool> {
        let Statement { values, .. } = of_commit(&Commit::new(Vec::new(), vec![write]), 7);
        let lock = |lock: &[Value]| match lock {
            [Value::BigInteger(number), Value::Integer(mode)] => (*number, *mode == 1),
            other => panic!("{other:?}"),
        };
        values[1..].chunks(2).map(lock).collect()
    }

    #[test]
    fn what_is_written_is_locked_alone_and_what_is_depended_on_is_shared() {
        let expectations = vec![(entity("a"), Expected::Absent), (entity("b"), Expected::Present)];
        let commit = Commit::new(expectations, vec![put(entity("a"))]);
        let Statement { values, .. } = of_commit(&commit, 7);
        assert_eq!(values[0], Value::Text("7".to_owned()));
        let (numbers, modes): (Vec<_>, Vec<_>) = values[1..].chunks(2).map(|lock| (&lock[0], &lock[1])).unzip();
        assert_eq!(modes.len(), 4, "the registry, the project and two keys");
        assert_eq!(modes.iter().filter(|mode| ***mode == Value::Integer(1)).count(), 1, "{values:?}");
        assert!(numbers.is_sorted_by_key(|value| match value {
            Value::BigInteger(number) => *number,
            other => panic!("{other:?}"),
        }));
    }

    #[test]
    fn a_view_and_its_user_metadata_are_locked_together() {
        let view = Key::object(Kind::FeatureView, "p", "v");
        let metadata = Key::UserMetadata { kind: Kind::FeatureView, project: "p".to_owned(), view: "v".to_owned() };
        let of = |key: &Key| numbers(key).next().expect("a number");
        let (deletes, puts) = (modes(Write::Delete(view.clone())), modes(put(metadata.clone())));
        assert_eq!((deletes[&of(&view)], deletes[&of(&metadata)]), (true, true));
        assert_eq!((puts[&of(&view)], puts[&of(&metadata)]), (false, true));
        let replaces = modes(put(view.clone()));
        assert!(!replaces.contains_key(&of(&metadata)), "it stays with its view");
    }

    #[test]
    fn a_large_commit_locks_the_registry() {
        let writes = (0..=MAX_KEYS).map(|number| put(entity(&number.to_string()))).collect();
        let commit = Commit::new(Vec::new(), writes);
        assert_eq!(of_commit(&commit, 7), of_registry(7));
        // Histories and projects are no keys, and are locked all the same.
        let (project, view) = ("p".to_owned(), |number: usize| number.to_string());
        let history = |number| Write::DeleteVersions { project: project.clone(), view: view(number) };
        let of_project = |number| Write::DeleteProject { project: view(number) };
        for commit in [(0..2000).map(history).collect(), (0..2000).map(of_project).collect::<Vec<_>>()] {
            assert_eq!(of_commit(&Commit::new(Vec::new(), commit), 7), of_registry(7));
        }
    }

    #[test]
    fn who_removes_all_of_something_has_it_alone_and_nothing_else() {
        let (project, view) = ("p".to_owned(), "v".to_owned());
        let history = modes(Write::DeleteVersions { project: project.clone(), view: view.clone() });
        let of_project = modes(Write::DeleteProject { project: project.clone() });
        let version = modes(put(Key::Version { project, view, number: 3 }));
        let (registry, p, v) = (number(REGISTRY), number(&all_of_project("p")), number(&all_versions("p", "v")));
        let itself = numbers(&Key::project_object("p")).next().expect("a number");
        assert_eq!(history, BTreeMap::from([(registry, false), (p, false), (v, true)]));
        assert_eq!(of_project, BTreeMap::from([(registry, false), (p, true), (itself, true)]));
        assert_eq!((version.len(), version[&p], version[&v]), (4, false, false));
        let other = modes(put(Key::object(Kind::Entity, "q", "a")));
        assert!(!other.contains_key(&p) && !modes(put(entity("a"))).contains_key(&v));
    }

    #[test]
    fn numbers_stay_what_they_are() {
        // Two versions of this crate at work on one database must agree.
        assert_eq!(numbers(&entity("driver")).collect::<Vec<_>>(), [8_625_366_724_477_447_740]);
        assert_eq!(number(REGISTRY), 1_876_579_240_200_724_759);
        assert_eq!(number(&all_of_project("p")), -359_831_033_211_820_627);
        assert_eq!(number(&all_versions("p", "v")), 2_995_163_245_473_633_928);
        let all_of_one = numbers(&entity("dríver")).collect::<Vec<_>>();
        assert_eq!(all_of_one.len(), 2, "what another version of Unicode may escape has a second one");
    }

    #[test]
    fn the_text_of_a_key_is_what_debug_said_of_it() {
        let nasty = [
            "",
            "p",
            "o'clock",
            "\"quoted\"",
            "back\\slash",
            "tab\t",
            "line\r\n",
            "\u{1}\u{1f}\u{7f}",
            "\0",
            "{ } , :",
            "dríver",
            "e\u{301}",
            "\u{301}first",
            "\u{200b}\u{202e}",
            "\u{ad}",
            "日本語",
            "👩‍🚀",
            "\u{e000}",
            "\u{10ffff}",
        ];
        let every_ascii: String = (0..=0x7f_u8).map(char::from).collect();
        for name in nasty.into_iter().chain([every_ascii.as_str()]) {
            let (project, name) = (name.to_owned(), name.to_owned());
            let mut keys: Vec<Key> = vec![
                Key::Metadata { project: project.clone(), name: name.clone() },
                Key::Version { project: project.clone(), view: name.clone(), number: 0 },
                Key::Version { project: project.clone(), view: name.clone(), number: i32::MIN },
            ];
            for &kind in Kind::ALL {
                keys.push(Key::Object { kind, project: project.clone(), name: name.clone() });
                keys.push(Key::UserMetadata { kind, project: project.clone(), view: name.clone() });
            }
            for key in keys {
                assert_eq!(text_of(&key, false), format!("{key:?}"));
            }
        }
    }
}
