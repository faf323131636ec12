//! Advisory locks of a transaction, by which commits of several processes wait for one another instead of failing.
//!
//! A commit locks the keys that it depends on or writes, whether they are there or not: so what it expects to be absent
//! stays absent until it is done. Locks are taken in the order of their numbers, so no two commits wait for each other.

use std::collections::BTreeMap;

use feast_registry_core::{Commit, Key, Write};
use feast_registry_sql::{Statement, Value, keys_of};

/// The most keys that are locked one by one. PostgreSQL keeps all locks in a table of fixed size (some 6,400 by default);
/// who has more to lock has the whole registry.
const MAX_KEYS: usize = 64;

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Shared,
    Exclusive,
}

/// Locks what a commit depends on and writes.
pub(crate) fn of_commit(commit: &Commit) -> Statement {
    let keys = keys_of(commit);
    if keys.len() > MAX_KEYS {
        return of_registry();
    }
    let mut locks = BTreeMap::from([(number("registry"), Mode::Shared)]);
    for key in &keys {
        let mode = if is_written(commit, key) { Mode::Exclusive } else { Mode::Shared };
        let held = locks.entry(number(&format!("{key:?}"))).or_insert(mode);
        *held = mode.max(*held);
    }
    statement(&locks)
}

/// Locks the whole registry.
pub(crate) fn of_registry() -> Statement {
    statement(&BTreeMap::from([(number("registry"), Mode::Exclusive)]))
}

fn is_written(commit: &Commit, key: &Key) -> bool {
    commit.writes.iter().any(|write| match write {
        Write::Put(record) => record.key == *key,
        Write::Delete(deleted) => deleted == key,
        Write::DeleteVersions { project, view } => match key {
            Key::Version { project: p, view: v, .. } => p == project && v == view,
            _ => false,
        },
        Write::DeleteProject { project } => key.project() == project,
    })
}

/// One text for so many locks, whichever way each is held.
fn statement(locks: &BTreeMap<i64, Mode>) -> Statement {
    let call = |index: usize| {
        let (number, mode) = (2 * index + 1, 2 * index + 2);
        // Cast, since the functions return nothing, which is no type that a driver reads.
        format!(
            "CASE ${mode} WHEN 1 THEN pg_advisory_xact_lock(${number})::text \
             ELSE pg_advisory_xact_lock_shared(${number})::text END"
        )
    };
    let calls: Vec<String> = (0..locks.len()).map(call).collect();
    let value = |(number, mode): (&i64, &Mode)| {
        [Value::BigInteger(*number), Value::Integer(i32::from(*mode == Mode::Exclusive))]
    };
    Statement { text: format!("SELECT {}", calls.join(", ")), values: locks.iter().flat_map(value).collect() }
}

/// The number of a lock: FNV-1a, which is the same in every version of this crate. Two keys of one number wait for each
/// other without need, and that is all.
fn number(of: &str) -> i64 {
    let hash = format!("feast-registry {of}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use feast_registry_core::{Expected, Kind, Record};

    fn entity(name: &str) -> Key {
        Key::object(Kind::Entity, "p", name)
    }

    fn put(key: Key) -> Write {
        Write::Put(Record { key, value: bytes::Bytes::new(), updated: 0 })
    }

    #[test]
    fn what_is_written_is_locked_alone_and_what_is_depended_on_is_shared() {
        let commit = Commit {
            expectations: vec![(entity("a"), Expected::Absent), (entity("b"), Expected::Present)],
            writes: vec![put(entity("a"))],
        };
        let Statement { values, .. } = of_commit(&commit);
        let (numbers, modes): (Vec<_>, Vec<_>) = values.chunks(2).map(|lock| (&lock[0], &lock[1])).unzip();
        assert_eq!(modes.len(), 3, "the registry and two keys");
        assert_eq!(modes.iter().filter(|mode| ***mode == Value::Integer(1)).count(), 1, "{values:?}");
        assert!(numbers.is_sorted_by_key(|value| match value {
            Value::BigInteger(number) => *number,
            other => panic!("{other:?}"),
        }));
    }

    #[test]
    fn a_large_commit_locks_the_registry() {
        let writes = (0..=MAX_KEYS).map(|number| put(entity(&number.to_string()))).collect();
        let commit = Commit { expectations: Vec::new(), writes };
        assert_eq!(of_commit(&commit), of_registry());
    }

    #[test]
    fn numbers_stay_what_they_are() {
        // Two versions of this crate at work on one database must agree.
        assert_eq!(number(&format!("{:?}", entity("driver"))), 8_625_366_724_477_447_740);
    }
}
