//! Deadlines: what has no effect yet when its deadline is over never has one, and its caller is told so.

use std::time::Duration;

use feast_registry_core::{Commit, Deadline, ErrorKind, JournalQuery, Kind, Outcome, Query, Result, Write};

use crate::handle::{Handle, chain, patience};
use crate::race::joined_all;
use crate::run::Setup;
use crate::sample::{object, whole_project};

/// Deadlines that are over: their time has come, or their caller is gone.
fn over() -> [Deadline; 2] {
    let (gone, caller) = Deadline::after(Duration::from_secs(60)).tied_to_caller();
    drop(caller);
    [Deadline::after(Duration::ZERO), gone]
}

#[track_caller]
fn assert_exceeded<T: std::fmt::Debug>(property: &str, answer: Result<T>) {
    match answer {
        Ok(value) => panic!("{property} says that its deadline was over, and not {value:?}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{property}: {}", chain(&error)),
    }
}

pub(crate) async fn nothing_is_done_whose_deadline_is_over(setup: Setup) {
    let store = setup.store().await;
    let unprepared = store.backend().await;
    for deadline in over() {
        assert_exceeded("a preparation", unprepared.prepare(&deadline).await);
    }
    let (handle, other) = (store.handle().await, store.handle().await);
    let mut ids = Vec::new();
    for deadline in over() {
        assert_exceeded("a read", handle.0.read(&[Query::objects(Kind::Entity, None)], &deadline).await);
        assert_exceeded("a look at the journal", handle.0.journal(&JournalQuery::after(None, 10), &deadline).await);
        let commit = Commit::new(Vec::new(), whole_project("never", "").into_iter().map(Write::Put).collect());
        ids.push(commit.id);
        assert_exceeded("a commit", handle.0.commit(commit, &deadline).await);
        assert_exceeded("a removal of the storage", handle.0.remove_if_empty(&deadline).await);
    }
    // What comes after it on the same handle would come after it in any queue, too.
    handle.put([object(Kind::Entity, "p", "driver", "")]).await;
    for id in ids {
        let times = other.times_in_journal(id).await;
        assert!(times.is_none_or(|times| times == 0), "a commit whose deadline was over is in the journal");
    }
    assert_eq!(other.everything(&[]).await.len(), 1, "what is stored, after a commit whose deadline was over");
}

/// What became of a commit whose deadline was short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitStatus {
    Done,
    NotDone,
    Unknown,
}

async fn status_of(handle: &Handle, commit: Commit, deadline: Deadline) -> CommitStatus {
    match handle.0.commit(commit, &deadline).await {
        Ok(Outcome::Committed { .. }) => CommitStatus::Done,
        Ok(other) => panic!("a commit that expects nothing is answered {other:?}"),
        Err(error) => match error.kind() {
            ErrorKind::DeadlineExceeded | ErrorKind::Overloaded => CommitStatus::NotDone,
            ErrorKind::UnknownOutcome => CommitStatus::Unknown,
            _ => panic!("a commit with a short deadline: {}", chain(&error)),
        },
    }
}

/// More commits at once than there are connections, so that most of them wait in a queue when their deadline is over.
pub(crate) async fn what_is_given_up_in_a_queue_is_never_done(setup: Setup) {
    const COMMITS: usize = 96;
    let store = setup.store().await;
    let (handle, other) = (store.handle().await, store.handle().await);
    let project = |number: usize| format!("p{number}");
    let mut fates = Vec::new();
    for round in 0..3 {
        let tasks = (0..COMMITS).map(|of| {
            let (handle, number) = (handle.clone(), round * COMMITS + of);
            // The first are over at once; those behind them in the queue have hardly longer.
            let deadline = Deadline::after(Duration::from_micros(100 * (of as u64 / 8)));
            let records = (0..8).map(|view| object(Kind::FeatureView, &project(number), &format!("view {view}"), ""));
            let commit = Commit::new(Vec::new(), records.map(Write::Put).collect());
            tokio::spawn(async move { (commit.id, status_of(&handle, commit, deadline).await) })
        });
        fates.extend(joined_all(tasks).await);
    }
    let given_up = fates.iter().filter(|(_, fate)| *fate == CommitStatus::NotDone).count();
    assert!(
        given_up >= 8,
        "of {} commits with short deadlines, {given_up} were given up: nothing was tested",
        fates.len()
    );
    // What another then writes is the last word.
    let newer = |number: usize| object(Kind::FeatureView, &project(number), "view 0", "newer");
    other.put((0..fates.len()).map(newer)).await;
    handle.put([object(Kind::Entity, "p", "behind all of them", "")]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let journal = other.0.journal(&JournalQuery::after(None, usize::MAX), &patience()).await;
    let journal = journal.map(|entries| entries.into_iter().map(|entry| entry.id).collect::<Vec<_>>()).ok();
    for (number, (id, fate)) in fates.iter().enumerate() {
        let found = other.objects(Kind::FeatureView, Some(&project(number))).await.len();
        let times = journal.as_ref().map(|ids| ids.iter().filter(|found| *found == id).count());
        let expected = match fate {
            CommitStatus::Done => [(8, 1), (8, 1)],
            CommitStatus::NotDone => [(1, 0), (1, 0)],
            CommitStatus::Unknown => [(8, 1), (1, 0)],
        };
        let is_as = |(views, entries): &(usize, usize)| found == *views && times.is_none_or(|times| times == *entries);
        assert!(
            expected.iter().any(is_as),
            "commit {number} was answered {fate:?}, and there are {found} of its 8 views and {times:?} entries of the journal"
        );
        if *fate != CommitStatus::Unknown {
            let found = other.get(&newer(number).key).await.unwrap_or_default();
            assert!(
                found == newer(number).value,
                "commit {number} was answered {fate:?}, and later undid what is newer"
            );
        }
    }
}
