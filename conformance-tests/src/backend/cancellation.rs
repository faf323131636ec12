//! Callers who leave: a call may be dropped wherever it waits. What it held is given back, and a commit is done whole or not
//! at all.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use feast_registry_core::{Commit, JournalQuery, Key, Kind, Query, Record, Write};

use crate::handle::{Handle, or_fail, patience};
use crate::race::joined_all;
use crate::run::Setup;
use crate::sample::{AT, last_updated, object, version, whole_project};

/// So many calls are dropped by each test.
const DROPS: usize = 60;

/// More calls at once than any pool of a test has connections.
const AT_ONCE: usize = 24;

/// When a call is dropped: after it was polled so many times, and a moment in which what it began may go on.
#[derive(Debug, Clone, Copy)]
struct Moment {
    polls: usize,
    wait: Duration,
}

impl Moment {
    /// The value of a call that is dropped at this moment; `None` if it was not ready before.
    async fn drop<T>(self, call: impl Future<Output = T>) -> Option<T> {
        let mut call = pin!(call);
        let mut polls = 0;
        let value = poll_fn(|context| {
            if polls == self.polls {
                return Poll::Ready(None);
            }
            polls += 1;
            match call.as_mut().poll(context) {
                Poll::Ready(value) => Poll::Ready(Some(value)),
                // The last time that it may: nothing wakes it again.
                Poll::Pending if polls == self.polls => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        if value.is_none() && !self.wait.is_zero() {
            tokio::time::sleep(self.wait).await;
        }
        value
    }
}

/// The moments at which calls are dropped: at every await, one after the other, until a call comes to its end before; and
/// from the start again, until enough were dropped.
struct Moments {
    next: usize,
    dropped: usize,
}

impl Moments {
    /// How long what was begun may go on before its caller leaves: not at all, or as long as an answer takes.
    const WAITS: [Duration; 4] =
        [Duration::ZERO, Duration::from_micros(50), Duration::from_micros(300), Duration::from_millis(2)];

    fn new() -> Self {
        Self { next: 0, dropped: 0 }
    }

    fn next(&mut self) -> Option<Moment> {
        if self.dropped >= DROPS && self.next == 0 {
            return None;
        }
        self.next += 1;
        let waits = Self::WAITS.len();
        Some(Moment { polls: (self.next - 1) / waits, wait: Self::WAITS[(self.next - 1) % waits] })
    }

    /// Notes whether the call at the last moment was dropped before it came to its end.
    fn saw(&mut self, was_dropped: bool) {
        if was_dropped {
            self.dropped += 1;
        } else {
            self.next = 0;
        }
    }
}

/// Checks that many calls at once succeed: nothing that they need is held by one that was dropped.
async fn is_well(property: &str, handle: &Handle) {
    let calls = (0..AT_ONCE).map(|number| {
        let (handle, property) = (handle.clone(), property.to_owned());
        tokio::spawn(async move {
            let record = object(Kind::SavedDataset, "well", &format!("number {number}"), "");
            let commit = Commit::new(Vec::new(), vec![Write::Put(record.clone())]);
            or_fail(&format!("a commit {property}"), handle.0.commit(commit, &patience()).await);
            let read = handle.0.read(&[Query::Keys(vec![record.key])], &patience()).await;
            assert_eq!(or_fail(&format!("a read {property}"), read)[0].len(), 1, "a write {property} is there");
        })
    });
    joined_all(calls).await;
}

pub(crate) async fn dropped_reads_leave_nothing_behind(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    let records = whole_project("p", "note");
    handle.put(records.clone()).await;
    let queries = [
        Query::Keys(records.iter().map(|record| record.key.clone()).collect()),
        Query::objects(Kind::FeatureView, None),
        Query::Metadata { project: None },
    ];
    let deadline = patience();
    let mut moments = Moments::new();
    while let Some(moment) = moments.next() {
        let answer = moment.drop(handle.0.read(&queries, &deadline)).await;
        moments.saw(answer.is_none());
        if let Some(answer) = answer {
            assert_eq!(or_fail("a read that nobody dropped", answer)[0].len(), records.len(), "what it answers");
        }
    }
    is_well(&format!("after {} reads were dropped", moments.dropped), &handle).await;
    assert_eq!(handle.read(&queries).await[0].len(), records.len(), "a read after others were dropped");
}

pub(crate) async fn dropped_looks_at_the_journal_leave_nothing_behind(setup: Setup) {
    let store = setup.store().await;
    let handle = store.handle().await;
    for number in 0..5 {
        handle.put([last_updated("p", number)]).await;
    }
    let deadline = patience();
    let mut moments = Moments::new();
    while let Some(moment) = moments.next() {
        let answer = moment.drop(handle.0.journal(&JournalQuery::after(None, 10), &deadline)).await;
        moments.saw(answer.is_none());
        if let Some(answer) = answer {
            assert_eq!(or_fail("a look at the journal that nobody dropped", answer).len(), 5, "the journal");
        }
    }
    is_well(&format!("after {} looks at the journal were dropped", moments.dropped), &handle).await;
}

/// What a commit of [`dropped_commits_are_done_whole_or_not_at_all`] writes.
fn records(number: usize) -> [Record; 3] {
    let project = format!("p{number}");
    [object(Kind::FeatureView, &project, "view", ""), version(&project, "view", 0, ""), last_updated(&project, AT)]
}

async fn how_many_are_there(handle: &Handle, number: usize) -> usize {
    handle.ask(Query::Keys(records(number).map(|record| record.key).into())).await.len()
}

pub(crate) async fn dropped_commits_are_done_whole_or_not_at_all(setup: Setup) {
    let store = setup.store().await;
    let (handle, other) = (store.handle().await, store.handle().await);
    let deadline = patience();
    let mut moments = Moments::new();
    let mut commits = Vec::new();
    while let Some(moment) = moments.next() {
        let number = commits.len();
        let commit = Commit::new(Vec::new(), records(number).map(Write::Put).into());
        commits.push(commit.clone());
        let answer = moment.drop(handle.0.commit(commit.clone(), &deadline)).await;
        moments.saw(answer.is_none());
        match answer {
            Some(answer) => {
                assert!(or_fail("a commit that nobody dropped", answer).is_committed(), "its expectations hold");
                assert_eq!(how_many_are_there(&other, number).await, 3, "what was acknowledged");
            }
            None => {
                let found = how_many_are_there(&other, number).await;
                assert!(found == 0 || found == 3, "of the 3 writes of a commit that was dropped ({moment:?}), {found}");
            }
        }
        if number % 2 == 0 {
            // Its caller asks again, and another then changes what it wrote: the dropped one must not come late.
            let answer = other.send(commit).await;
            assert!(answer.is_committed(), "a commit that was dropped ({moment:?}), sent again: {answer:?}");
            other.write(vec![Write::Delete(records(number)[1].key.clone())]).await;
        }
    }
    is_well(&format!("after {} commits were dropped", moments.dropped), &handle).await;
    let settled = settle(&other, commits.len()).await;
    let journal = times_in_journal(&other, &commits).await;
    for (number, commit) in commits.iter().enumerate() {
        let times = journal.as_ref().map(|times| times[number]);
        if number % 2 == 0 {
            assert_eq!(
                settled[number], 2,
                "what another deleted is gone: the dropped commit {number} was not done late"
            );
        } else {
            let (found, of) = (settled[number], records(number).len());
            assert!(found == 0 || found == of, "of the {of} writes of the dropped commit {number}, {found}");
            assert!(
                times.is_none_or(|times| times == found / of),
                "{found} writes, and {times:?} entries of the journal"
            );
            assert!(other.send(commit.clone()).await.is_committed(), "the dropped commit {number}, sent again");
        }
    }
    let stored = settle(&other, commits.len()).await;
    let expected: Vec<usize> = (0..commits.len()).map(|number| 2 + number % 2).collect();
    assert_eq!(stored, expected, "what is there of each commit, once all were sent again");
    if let Some(times) = times_in_journal(&other, &commits).await {
        assert!(times.iter().all(|times| *times == 1), "each commit is in the journal once, and not {times:?}");
    }
}

/// How often the journal has each of these; `None` where the storage has no journal.
async fn times_in_journal(handle: &Handle, commits: &[Commit]) -> Option<Vec<usize>> {
    handle.times_in_journal(commits[0].id).await?;
    let journal = handle.whole_journal().await;
    let times = |commit: &Commit| journal.iter().filter(|entry| entry.id == commit.id).count();
    Some(commits.iter().map(times).collect())
}

/// What is there of each commit, once what was begun has come to its end.
async fn settle(handle: &Handle, commits: usize) -> Vec<usize> {
    let keys = |number| Query::Keys(records(number).map(|record| record.key).into());
    let queries: Vec<Query> = (0..commits).map(keys).collect();
    let mut before = Vec::new();
    loop {
        let found: Vec<usize> = handle.read(&queries).await.iter().map(Vec::len).collect();
        if found == before {
            return found;
        }
        before = found;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn dropped_preparations_and_removals_may_be_repeated(setup: Setup) {
    let deadline = patience();
    // Each wants a storage of its own, so not every await has its turn.
    for polls in [0, 1, 2, 3, 5, 8, 13] {
        let moment = Moment { polls, wait: Duration::ZERO };
        let store = setup.store().await;
        let backend = store.backend().await;
        moment.drop(backend.prepare(&deadline)).await;
        or_fail("preparing what another left half prepared", store.backend().await.prepare(&deadline).await);
        or_fail("preparing again", backend.prepare(&deadline).await);
        let (handle, other) = (Handle(backend), store.handle().await);
        handle.put(whole_project("p", "note")).await;
        handle.write(vec![Write::DeleteProject { project: "p".to_owned() }]).await;
        moment.drop(handle.0.remove_if_empty(&deadline)).await;
        for (handle, project) in [(&other, "q"), (&handle, "r")] {
            let records = whole_project(project, "note");
            handle.put(records.clone()).await;
            let keys: Vec<Key> = records.iter().map(|record| record.key.clone()).collect();
            let found = other.ask(Query::Keys(keys)).await.len();
            assert_eq!(found, records.len(), "what was written after a removal was dropped ({moment:?})");
        }
        is_well(&format!("after a preparation and a removal were dropped ({moment:?})"), &handle).await;
    }
}

/// Callers who come together and leave together: most of their calls wait behind others of them.
const CROWD: usize = 96;
const CROWDS: usize = 4;

/// Begins as many calls at once as no pool has places for, and leaves them all, again and again; how many were left.
async fn crowds_leave<T, F>(call: impl Fn(usize) -> F) -> usize
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut left = 0;
    for crowd in 0..CROWDS {
        let calls = (0..CROWD).map(|number| call(crowd * CROWD + number));
        if crowd % 2 == 0 {
            // At one moment, when each has been polled once, and some never.
            let mut calls: Vec<_> = calls.map(|call| Some(Box::pin(call))).collect();
            poll_fn(|context| {
                for call in calls.iter_mut().skip(crowd) {
                    if call.as_mut().is_some_and(|call| call.as_mut().poll(context).is_ready()) {
                        *call = None;
                    }
                }
                Poll::Ready(())
            })
            .await;
            tokio::time::sleep(Moments::WAITS[crowd % Moments::WAITS.len()]).await;
            left += calls.iter().flatten().count();
            if crowd == 0 {
                calls.reverse();
            }
        } else {
            // One after the other, at different awaits, while others go on.
            let leavers = calls.enumerate().map(|(number, call)| {
                let moment = Moment { polls: number % 5, wait: Duration::ZERO };
                tokio::spawn(async move { moment.drop(call).await.is_none() })
            });
            left += joined_all(leavers).await.into_iter().filter(|was_left| *was_left).count();
        }
    }
    left
}

pub(crate) async fn crowds_that_leave_take_nothing_along(setup: Setup) {
    let store = setup.store().await;
    let (handle, other) = (store.handle().await, store.handle().await);
    handle.put(whole_project("p", "note")).await;
    let left = crowds_leave(|_| {
        let handle = handle.clone();
        async move { handle.0.read(&[Query::objects(Kind::Entity, None)], &patience()).await }
    });
    is_well(&format!("after {} reads were left", left.await), &handle).await;
    let left = crowds_leave(|number| {
        let handle = handle.clone();
        let commit = Commit::new(Vec::new(), records(number).map(Write::Put).into());
        async move { handle.0.commit(commit, &patience()).await }
    });
    is_well(&format!("after {} commits were left", left.await), &handle).await;
    for (number, found) in settle(&other, CROWD * CROWDS).await.into_iter().enumerate() {
        assert!(found == 0 || found == 3, "of the 3 writes of commit {number}, whose caller left, {found}");
    }
    let left = crowds_leave(|_| {
        let handle = handle.clone();
        async move { handle.0.journal(&JournalQuery::after(None, 10), &patience()).await }
    });
    is_well(&format!("after {} looks at the journal were left", left.await), &handle).await;
    let left = crowds_leave(|_| {
        let handle = handle.clone();
        async move { handle.0.prepare(&patience()).await }
    });
    is_well(&format!("after {} preparations were left", left.await), &handle).await;
    let left = crowds_leave(|_| {
        let handle = handle.clone();
        async move { handle.0.remove_if_empty(&patience()).await }
    });
    is_well(&format!("after {} removals of the storage were left", left.await), &handle).await;
}
