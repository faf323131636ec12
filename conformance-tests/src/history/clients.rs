//! Clients that do what they plan, and write down what they did and when.

use feast_registry_core::{Deadline, ErrorKind, JournalEntry, JournalQuery, Outcome, Query, Record};

use super::operation::{Answer, Call, NEVER, Operation, Seen, Sent, identity_of};
use super::plan::{Patience, Plan, Step};
use crate::handle::{Handle, chain, patience};

/// Nanoseconds by a clock that all processes of a machine share and that never goes back.
#[cfg(unix)]
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Nanoseconds by a clock of this process that never goes back.
#[cfg(not(unix))]
pub(crate) fn now() -> u64 {
    static BEGAN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    u64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(NEVER - 1)
}

/// Does so many steps of a plan. `tell` is told of each commit before it begins, as one that never ended, and of each
/// operation when it has.
pub(crate) async fn play(
    plan: &mut Plan,
    client: u32,
    handle: &Handle,
    steps: usize,
    tell: impl Fn(&Operation),
) -> Vec<Operation> {
    let mut done = Vec::with_capacity(steps);
    for _ in 0..steps {
        match plan.pause() {
            // Shorter than a timer can be set.
            Some(pause) if pause.as_micros() < 20 => {
                let began = std::time::Instant::now();
                while began.elapsed() < pause {
                    std::hint::spin_loop();
                }
            }
            Some(pause) => tokio::time::sleep(pause).await,
            None => tokio::task::yield_now().await,
        }
        match plan.step() {
            Step::Read(queries) => {
                let operation = read(client, handle, queries).await;
                plan.learn(&operation);
                tell(&operation);
                done.push(operation);
            }
            Step::Commit(sent, patience) => {
                let mut operation =
                    Operation { client, began: now(), ended: NEVER, call: Call::Commit(sent.clone(), Answer::Unknown) };
                tell(&operation);
                let answer = commit(handle, &sent, patience).await;
                if answer != Answer::Unknown {
                    operation.ended = now();
                }
                operation.call = Call::Commit(sent, answer);
                plan.learn(&operation);
                tell(&operation);
                done.push(operation);
            }
        }
    }
    done
}

/// Reads.
pub(crate) async fn read(client: u32, handle: &Handle, queries: Vec<Query>) -> Operation {
    let began = now();
    let answers = handle.read(&queries).await;
    let ended = now();
    let seen =
        |records: Vec<Record>| records.into_iter().map(|record| (record.key, record.value)).collect::<Vec<Seen>>();
    Operation {
        client,
        began,
        ended,
        call: Call::Read(queries.into_iter().zip(answers.into_iter().map(seen)).collect()),
    }
}

async fn commit(handle: &Handle, sent: &Sent, waits: Patience) -> Answer {
    let commit = sent.to_commit();
    let answer = match waits {
        Patience::Long => handle.0.commit(commit, &patience()).await,
        Patience::Deadline(time) => handle.0.commit(commit, &Deadline::after(time)).await,
        Patience::Leaves(time) => match tokio::time::timeout(time, handle.0.commit(commit, &patience())).await {
            Ok(answer) => answer,
            Err(_) => return Answer::Unknown,
        },
    };
    match answer {
        Ok(Outcome::Committed { revision }) => Answer::Committed(revision.map(|revision| revision.number())),
        Ok(Outcome::Conflict(key)) => Answer::Conflict(key),
        Ok(other) => panic!("an outcome that this suite does not know: {other:?}"),
        Err(error) if error.kind() == ErrorKind::UnknownOutcome => Answer::Unknown,
        Err(error) if matches!(waits, Patience::Deadline(_)) && error.is_retryable() => Answer::NotDone,
        Err(error) => panic!("a commit failed: {}", chain(&error)),
    }
}

/// The commits in the order of the journal, by their numbers and revisions; `None` where there is no journal.
pub(crate) async fn journal(handle: &Handle, operations: &[Operation]) -> Option<Vec<(u32, u64)>> {
    if let Err(error) = handle.0.journal(&JournalQuery::after(None, 1), &patience()).await
        && error.kind() == ErrorKind::Unsupported
    {
        return None;
    }
    let numbers: std::collections::HashMap<_, u32> = operations
        .iter()
        .filter_map(|operation| match &operation.call {
            Call::Commit(sent, _) => Some((identity_of(sent.number), sent.number)),
            Call::Read(_) => None,
        })
        .collect();
    let number_of = |entry: &JournalEntry| numbers.get(&entry.id).copied().unwrap_or(NOBODYS);
    Some(handle.whole_journal().await.iter().map(|entry| (number_of(entry), entry.revision.number())).collect())
}

/// The number of commits that no client made.
pub(crate) const NOBODYS: u32 = 0;
