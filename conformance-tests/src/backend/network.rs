//! What lies between a handle and its storage breaks: answers are lost, nothing answers, sessions end.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feast_registry_core::config::SchemaMode;
use feast_registry_core::{
    Commit, Deadline, Error, ErrorKind, Expected, JournalQuery, Kind, Outcome, Query, Record, Result, Revision, Write,
};
use tokio::task::JoinHandle;

use super::exactly_once::{Deed, deeds};
use crate::handle::{Handle, assert_unchanged, chain, or_fail, patience};
use crate::link::Link;
use crate::race::joined;
use crate::run::Setup;
use crate::sample::object;
use crate::shown::shown;
use crate::store::Store;

/// A handle, and the way from it to the storage.
struct Linked {
    handle: Handle,
    link: Arc<dyn Link>,
}

impl Deref for Linked {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

/// A handle on a way that can be interrupted, prepared, with connections that are warm.
async fn linked(store: &Store) -> Linked {
    let opened = store.storage.open_with_link(SchemaMode::Auto).await;
    let (backend, link) = or_fail("opening a handle with a link", opened).unwrap_or_else(|| {
        panic!(
            "the storage has no way to it that could be interrupted; a factory of such storages lists `network` among its \
             exceptions, with the reason"
        )
    });
    or_fail("preparing the storage (auto)", backend.prepare(&patience()).await);
    let linked = Linked { handle: Handle(backend), link };
    linked.put([object(Kind::Entity, "warm", "warm", "")]).await;
    linked.get(&object(Kind::Entity, "warm", "warm", "").key).await;
    linked
}

fn sent(handle: &Handle, commit: Commit, deadline: Deadline) -> JoinHandle<Result<Outcome>> {
    let handle = handle.clone();
    tokio::spawn(async move { handle.0.commit(commit, &deadline).await })
}

/// Stores records; the place in the journal from which on what comes next is found.
async fn stored(other: &Handle, records: Vec<Record>) -> Revision {
    match other.send(Commit::new(Vec::new(), records.into_iter().map(Write::Put).collect())).await {
        Outcome::Committed { revision: Some(revision) } => revision,
        outcome => panic!("a storage behind a link has a journal, and answers {}", shown(&outcome)),
    }
}

/// Whether the journal has a commit after a place; fails when it has it twice.
async fn took_place(other: &Handle, since: Revision, commit: &Commit) -> bool {
    let entries = other.journal(Some(since), usize::MAX).await;
    let times = entries.iter().filter(|entry| entry.id == commit.id).count();
    assert!(times <= 1, "a commit is in the journal {times} times");
    times == 1
}

/// Waits for a commit to take place while its answer is held. `false`: it was answered, or waits for an earlier answer.
async fn takes_place_unanswered(
    other: &Handle,
    since: Revision,
    commit: &Commit,
    call: &JoinHandle<Result<Outcome>>,
) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) && !call.is_finished() {
        if took_place(other, since, commit).await {
            // An answer that is not held is on its way now.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return !call.is_finished();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

/// The more answers a backend wants before it commits, the more attempts to hold the one to the commit.
const MOST_ATTEMPTS: usize = 24;

/// A commit takes place and its answer is lost; others write what makes all that it expects hold again. Who then looks
/// at that, and not for its identity, does it a second time.
pub(crate) async fn a_commit_whose_answer_is_lost_is_not_done_again(setup: Setup) {
    /// More than a storage remembers that remembers the last few.
    const OTHERS: usize = 20;
    let store = setup.store().await;
    let (linked, other) = (linked(&store).await, store.handle().await);
    let mut answers = 0;
    for case in 0..deeds("").len() {
        let mut attempt = 0;
        let (deed, since, call) = loop {
            let deed = deeds(&format!("attempt {attempt} ")).swap_remove(case);
            let since = stored(&other, deed.needs.clone()).await;
            linked.link.hold_answers(answers);
            let call = sent(&linked, deed.commit.clone(), patience());
            if takes_place_unanswered(&other, since, &deed.commit, &call).await {
                break (deed, since, call);
            }
            // How many answers a commit wants may change from one to the next.
            answers = if call.is_finished() { answers.saturating_sub(1) } else { answers + 1 };
            linked.link.resume();
            or_fail("a commit whose answer is late", joined(call).await);
            attempt += 1;
            assert!(attempt <= MOST_ATTEMPTS, "{}: in {attempt} attempts, never its answer alone was held", deed.what);
        };
        other.write(deed.undo.clone()).await;
        // Once is enough to push it out of a short memory.
        for number in 0..if case == 1 { OTHERS } else { 1 } {
            other.put([object(Kind::Entity, "others", "driver", number.to_string())]).await;
        }
        let before = other.everything(&deed.histories()).await;
        linked.link.cut();
        let outcome = or_fail(&format!("{}, and the answer is lost", deed.what), joined(call).await);
        assert!(
            outcome.is_committed(),
            "{}, and the answer is lost: it took place, and is answered {}",
            deed.what,
            shown(&outcome)
        );
        let after = other.everything(&deed.histories()).await;
        assert_unchanged(&format!("{}, and the answer is lost: what others did since", deed.what), &before, &after);
        assert!(took_place(&other, since, &deed.commit).await, "{}: it is in the journal once", deed.what);
        assert_eq!(linked.send(deed.commit).await, outcome, "{}, and is sent again", deed.what);
    }
}

pub(crate) async fn a_commit_that_is_lost_on_its_way_is_done(setup: Setup) {
    let store = setup.store().await;
    let (linked, other) = (linked(&store).await, store.handle().await);
    for case in 0..deeds("").len() {
        let Deed { what, needs, commit, .. } = deeds("").swap_remove(case);
        let since = stored(&other, needs).await;
        linked.link.stall();
        let call = sent(&linked, commit.clone(), patience());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(
            !call.is_finished() && !took_place(&other, since, &commit).await,
            "{what}: nothing passes on a stalled way"
        );
        linked.link.cut();
        let outcome = or_fail(&format!("{what}, and is lost on its way"), joined(call).await);
        assert!(outcome.is_committed(), "{what}, and is lost on its way: {}", shown(&outcome));
        assert!(
            took_place(&other, since, &commit).await,
            "{what}, and is lost on its way: it is answered as done, and is"
        );
    }
}

/// The longest that a call may go on after its deadline, to learn what became of what it sent.
const MOMENT: Duration = Duration::from_secs(8);

/// The answer to a call; fails when it does not come soon after its deadline.
async fn in_time<T>(property: &str, deadline: Deadline, call: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = tokio::time::timeout_at(deadline.instant() + MOMENT, call).await;
    answer.unwrap_or_else(|_| panic!("{property}: its deadline was over {} s ago, and it is not", MOMENT.as_secs()))
}

/// Checks the error of a call that nothing answers.
#[track_caller]
fn assert_given_up(property: &str, error: &Error) {
    let is_right = error.is_retryable() || error.is_outcome_unknown();
    assert!(is_right && error.kind() != ErrorKind::Conflict, "{property}: {}", chain(error));
}

pub(crate) async fn calls_end_with_their_deadline_though_nothing_answers(setup: Setup) {
    /// More of each sort than there are connections.
    const CALLS: usize = 6;
    let store = setup.store().await;
    let (linked, other) = (linked(&store).await, store.handle().await);
    for way in ["nothing passes", "no answer passes"] {
        let entity = |number: usize, note: &str| object(Kind::Entity, way, &format!("driver {number}"), note);
        let since = stored(&other, Vec::new()).await;
        match way {
            "nothing passes" => linked.link.stall(),
            _ => linked.link.hold_answers(0),
        }
        let mut commits = Vec::new();
        let mut tasks = Vec::new();
        let mut others = Vec::new();
        for number in 0..CALLS {
            let deadline = Deadline::after(Duration::from_millis(200 + 50 * number as u64));
            let commit = Commit::new(Vec::new(), vec![Write::Put(entity(number, "given up"))]);
            commits.push(commit.clone());
            let (handle, property) = (linked.handle.clone(), format!("{way}: commit {number}"));
            let until = deadline.clone();
            tasks.push(tokio::spawn(async move {
                in_time(&property, until.clone(), handle.0.commit(commit, &until)).await
            }));
            let (handle, property) = (linked.handle.clone(), format!("{way}: read and journal {number}"));
            others.push(tokio::spawn(async move {
                let queries = [Query::objects(Kind::Entity, None)];
                let read = in_time(&property, deadline.clone(), handle.0.read(&queries, &deadline)).await;
                let journal =
                    in_time(&property, deadline.clone(), handle.0.journal(&JournalQuery::after(None, 10), &deadline))
                        .await;
                for error in [read.expect_err(&property), journal.expect_err(&property)] {
                    assert_given_up(&property, &error);
                    assert!(!error.is_outcome_unknown(), "{property}: a read has no effect");
                }
            }));
        }
        let mut is_unknown = Vec::new();
        for task in tasks {
            let error = joined(task).await.expect_err("a commit that nothing answers");
            assert_given_up(&format!("{way}: a commit"), &error);
            is_unknown.push(error.is_outcome_unknown());
        }
        for task in others {
            joined(task).await;
        }
        // Somebody else, who is not cut off, has the last word; then what was held arrives.
        other.put((0..CALLS).map(|number| entity(number, "newer"))).await;
        linked.link.resume();
        linked.put([object(Kind::Entity, way, "after all of it", "")]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (number, (commit, is_unknown)) in commits.into_iter().zip(is_unknown).enumerate() {
            let newer = entity(number, "newer");
            if !is_unknown {
                assert!(
                    !took_place(&other, since, &commit).await,
                    "{way}: commit {number} was said not to be done, and was"
                );
                let found = other.get(&newer.key).await;
                assert_eq!(found, Some(newer.value), "{way}: commit {number} undid what is newer");
            }
            // Its caller asks again; whatever became of it, it takes place once.
            assert!(linked.send(commit.clone()).await.is_committed(), "{way}: commit {number}, sent again");
            assert!(
                took_place(&other, since, &commit).await,
                "{way}: commit {number}, sent again, is in the journal once"
            );
        }
    }
}

pub(crate) async fn a_handle_goes_on_after_its_sessions_were_ended(setup: Setup) {
    let store = setup.store().await;
    let (linked, other) = (linked(&store).await, store.handle().await);
    let entity = |number: usize| object(Kind::Entity, "p", &format!("driver {number}"), "");
    for number in 0..6 {
        // All the connections of a pool are in use, and then lost.
        let reads = (0..6).map(|_| {
            let handle = linked.handle.clone();
            tokio::spawn(async move { handle.objects(Kind::Entity, None).await.len() })
        });
        for read in reads.collect::<Vec<_>>() {
            joined(read).await;
        }
        linked.link.cut();
        if number % 2 == 0 {
            let read = linked.0.read(&[Query::objects(Kind::Entity, Some("p"))], &patience()).await;
            assert_eq!(or_fail("a read after the sessions were ended", read)[0].len(), number, "what it answers");
        }
        let created = vec![(entity(number).key, Expected::Absent)];
        let commit = Commit::new(created, vec![Write::Put(entity(number))]);
        let outcome = or_fail("a commit after the sessions were ended", linked.0.commit(commit, &patience()).await);
        assert!(outcome.is_committed(), "a commit after the sessions were ended: {}", shown(&outcome));
        assert_eq!(other.objects(Kind::Entity, Some("p")).await.len(), number + 1, "what another sees");
    }
}
