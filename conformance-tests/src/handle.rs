//! A backend whose calls fail the test, in words, when they fail; and comparisons that say what differs.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use feast_registry_core::{
    Backend, Commit, CommitId, Deadline, Error, ErrorKind, Expected, JournalEntry, JournalQuery, Key, Kind, Outcome,
    Query, Record, Result, Revision, Write,
};

use crate::shown::{difference, shown};

/// The value, or a failure of the test that says what was attempted and the whole chain of causes.
#[track_caller]
pub(crate) fn or_fail<T>(attempt: &str, result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{attempt} failed: {}", chain(&error)))
}

/// An error with its kind and causes.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = format!("{error} ({:?})", error.kind());
    let mut source = error.source();
    while let Some(cause) = source {
        write!(text, ": {cause}").expect("writing to a string");
        source = cause.source();
    }
    text
}

/// The deadline of calls that are to be answered: longer than any of them takes.
pub(crate) fn patience() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// What became of a commit, for tests that do not ask where the journal has it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All is written.
    Committed,
    /// What was expected of this key did not hold; nothing is written.
    Conflict(Key),
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Committed => f.write_str("committed"),
            Verdict::Conflict(key) => write!(f, "a conflict at {}", shown(key)),
        }
    }
}

/// Everything that is stored, by key.
pub(crate) type Everything = BTreeMap<Key, Record>;

/// A prepared backend.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) Arc<dyn Backend>);

impl Handle {
    /// The answers to queries.
    pub(crate) async fn read(&self, queries: &[Query]) -> Vec<Vec<Record>> {
        let answers = or_fail("a read", self.0.read(queries, &patience()).await);
        assert_eq!(answers.len(), queries.len(), "a read of {} queries has as many answers", queries.len());
        answers
    }

    /// The answer to one query.
    pub(crate) async fn ask(&self, query: Query) -> Vec<Record> {
        self.read(&[query]).await.remove(0)
    }

    /// The value under a key.
    pub(crate) async fn get(&self, key: &Key) -> Option<Bytes> {
        let mut found = self.ask(Query::Keys(vec![key.clone()])).await;
        assert!(found.len() <= 1, "a query for one key, {}, has {} answers", shown(key), found.len());
        let record = found.pop()?;
        assert!(record.key == *key, "a query for {} is answered with {}", shown(key), shown(&record.key));
        Some(record.value)
    }

    /// The objects of a kind in a project, or in all.
    pub(crate) async fn objects(&self, kind: Kind, project: Option<&str>) -> Vec<Record> {
        self.ask(Query::objects(kind, project)).await
    }

    /// What is expected of a list, in the order that the backend's lists have; it comes in that of first storing.
    pub(crate) fn in_order<T, K: Ord>(&self, mut expected: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
        if !self.0.limits().keeps_order {
            expected.sort_by_key(key);
        }
        expected
    }

    /// The history of a view.
    pub(crate) async fn versions(&self, project: &str, view: &str) -> Vec<Record> {
        let (project, view) = (project.to_owned(), view.to_owned());
        self.ask(Query::Versions { project, view, latest_only: false }).await
    }

    /// Commits, and says what became of it.
    pub(crate) async fn commit(&self, expectations: Vec<(Key, Expected)>, writes: Vec<Write>) -> Verdict {
        match self.send(Commit::new(expectations, writes)).await {
            Outcome::Committed { .. } => Verdict::Committed,
            Outcome::Conflict(key) => Verdict::Conflict(key),
            other => panic!("an outcome that this suite does not know: {}", shown(&other)),
        }
    }

    /// Gives the storage this very commit, whether or not it has had it before.
    pub(crate) async fn send(&self, commit: Commit) -> Outcome {
        or_fail("a commit", self.0.commit(commit, &patience()).await)
    }

    /// The entries of the journal that come after a revision, at most so many.
    pub(crate) async fn journal(&self, after: Option<Revision>, limit: usize) -> Vec<JournalEntry> {
        let entries =
            or_fail("a look at the journal", self.0.journal(&JournalQuery::after(after, limit), &patience()).await);
        assert!(entries.len() <= limit, "{} entries of the journal, where {limit} were asked for", entries.len());
        entries
    }

    /// The whole journal.
    pub(crate) async fn whole_journal(&self) -> Vec<JournalEntry> {
        let mut journal: Vec<JournalEntry> = Vec::new();
        loop {
            let more = self.journal(journal.last().map(|entry| entry.revision), 1000).await;
            if more.is_empty() {
                return journal;
            }
            journal.extend(more);
        }
    }

    /// How often the journal has a commit; `None` where the storage has no journal, as it has to say.
    pub(crate) async fn times_in_journal(&self, id: CommitId) -> Option<usize> {
        match self.0.journal(&JournalQuery::after(None, 1), &patience()).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                let unkept = self.0.limits().unkept;
                assert!(!unkept.is_empty(), "a storage without a journal says so in `Limits::unkept`");
                None
            }
            _ => Some(self.whole_journal().await.iter().filter(|entry| entry.id == id).count()),
        }
    }

    /// Writes without expectations.
    pub(crate) async fn write(&self, writes: Vec<Write>) {
        let outcome = self.commit(Vec::new(), writes).await;
        assert_eq!(outcome, Verdict::Committed, "a commit that expects nothing is committed");
    }

    /// Stores records, whatever was there.
    pub(crate) async fn put(&self, records: impl IntoIterator<Item = Record>) {
        self.write(records.into_iter().map(Write::Put).collect()).await;
    }

    /// Everything that is stored. The history of a view that is not there cannot be found; `histories` (project and view)
    /// are looked at besides.
    pub(crate) async fn everything(&self, histories: &[(&str, &str)]) -> Everything {
        let mut queries: Vec<Query> = Kind::ALL.iter().copied().map(|kind| Query::objects(kind, None)).collect();
        queries.push(Query::Metadata { project: None });
        let mut records: Vec<Record> = self.read(&queries).await.into_iter().flatten().collect();
        let mut queries = Vec::new();
        let mut user_metadata = Vec::new();
        let views = records.iter().filter_map(|record| match &record.key {
            Key::Object { kind, project, name } if kind.is_view() => Some((*kind, project, name)),
            _ => None,
        });
        for (kind, project, view) in views {
            user_metadata.push(crate::sample::user_metadata_key(kind, project, view));
            queries.push(Query::Versions { project: project.clone(), view: view.clone(), latest_only: false });
        }
        queries.push(Query::Keys(user_metadata));
        queries.extend(histories.iter().map(|(project, view)| Query::Versions {
            project: (*project).to_owned(),
            view: (*view).to_owned(),
            latest_only: false,
        }));
        records.extend(self.read(&queries).await.into_iter().flatten());
        records.into_iter().map(|record| (record.key.clone(), record)).collect()
    }
}

/// Checks records for their keys and values, in order. When they were written is compared where a test is about that.
#[track_caller]
pub(crate) fn assert_records(property: &str, expected: &[Record], found: &[Record]) {
    let is_same = |index: usize| match (expected.get(index), found.get(index)) {
        (Some(one), Some(other)) => one.key == other.key && one.value == other.value,
        _ => false,
    };
    if let Some(index) = (0..expected.len().max(found.len())).find(|index| !is_same(*index)) {
        let (one, other) = (expected.get(index), found.get(index));
        panic!(
            "{property}: {} records were expected and {} found; record {index} should be {}, and is {}{}",
            expected.len(),
            found.len(),
            shown(&one),
            shown(&other),
            one.zip(other).map(|(one, other)| difference(&one.value, &other.value)).unwrap_or_default(),
        );
    }
}

/// Checks the value under a key.
#[track_caller]
pub(crate) fn assert_value(property: &str, key: &Key, expected: Option<&[u8]>, found: Option<&[u8]>) {
    let differs = || expected.zip(found).map(|(one, other)| difference(one, other)).unwrap_or_default();
    assert!(
        expected == found,
        "{property}: {} should have {}, and has {}{}",
        shown(key),
        shown(&expected),
        shown(&found),
        differs()
    );
}

/// Checks that everything is as it was: what is there, its bytes, and when it was written.
#[track_caller]
pub(crate) fn assert_unchanged(property: &str, before: &Everything, after: &Everything) {
    let mut text = String::new();
    for key in before.keys().chain(after.keys().filter(|key| !before.contains_key(key))) {
        let (before, after) = (before.get(key), after.get(key));
        if before != after {
            let differs =
                before.zip(after).map(|(one, other)| difference(&one.value, &other.value)).unwrap_or_default();
            let (key, before, after) = (shown(key), shown(&before), shown(&after));
            write!(text, "\n- {key} was {before}, and is {after}{differs}").expect("writing to a string");
        }
    }
    assert!(text.is_empty(), "{property}: something else changed:{text}");
}

/// The part of everything that is of one project.
pub(crate) fn of_project(everything: &Everything, project: &str) -> Everything {
    everything
        .iter()
        .filter(|(key, _)| key.project() == project)
        .map(|(key, record)| (key.clone(), record.clone()))
        .collect()
}

/// The part of everything that is of other projects.
pub(crate) fn not_of_project(everything: &Everything, project: &str) -> Everything {
    everything
        .iter()
        .filter(|(key, _)| key.project() != project)
        .map(|(key, record)| (key.clone(), record.clone()))
        .collect()
}
