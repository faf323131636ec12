//! Whether a history keeps the contract, and if not, what is broken.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use feast_registry_core::{Expected, Key, Write};

use super::check::{Budget, Found, Problem, Start, Stuck, search};
use super::clients::NOBODYS;
use super::explain::Explanation;
use super::operation::{Answer, Call, History, NEVER, Operation};

/// What a whole history may cost: many times what the longest one does.
const CONFIGURATIONS: usize = 1_000_000;
const TIME: Duration = Duration::from_secs(30);

fn budget() -> Budget {
    Budget { configurations: CONFIGURATIONS, until: Instant::now() + TIME }
}

/// What is wrong with a history.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is said here.
    Said(String),
    /// These operations have no order.
    NoOrder(Box<Problem>, Stuck),
}

impl Fault {
    /// Which promise is broken, and why that is so. This may take some seconds.
    pub(crate) fn explained(&self) -> String {
        match self {
            Fault::Said(text) => text.clone(),
            Fault::NoOrder(problem, stuck) => Explanation::of(problem, stuck).to_string(),
        }
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Fault::Said(text)
    }
}

/// What the order of the journal has to do with the order of the operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Any will do.
    Any,
    /// The commits must have that of the journal.
    OfJournal,
}

/// Checks a history.
pub(crate) fn check(history: &History, order: Order) -> Result<(), Fault> {
    let mut problem = problem_of(history);
    let mut fault = None;
    if let Some(journal) = &history.journal {
        match check_answers(history).and_then(|()| check_journal(history, journal)) {
            Err(text) => fault = Some(Fault::Said(text)),
            Ok(()) => {
                // An order that the journal says is soon found, since it says also what became of what is pending.
                let ordered = in_order_of_journal(problem, journal);
                if let Found::Order = search(&ordered, budget()) {
                    return Ok(());
                }
                if order == Order::OfJournal {
                    let commits = without_what_overlaps(&ordered);
                    fault = match search(&commits, budget()) {
                        Found::Order => None,
                        Found::None(stuck) => Some(Fault::NoOrder(Box::new(commits), stuck)),
                        Found::GaveUp => return Err(gave_up(history).into()),
                    };
                }
                problem = Problem { places: None, ..ordered };
            }
        }
    }
    match (any_order(&problem), fault) {
        (Found::None(stuck), _) => Err(Fault::NoOrder(Box::new(problem), stuck)),
        (_, Some(fault)) => Err(fault),
        (Found::Order, None) => Ok(()),
        (Found::GaveUp, None) => Err(gave_up(history).into()),
    }
}

/// Leaves out the reads and refusals that overlapped a commit. The journal may have two commits that touch nothing in common
/// in either order, and who reads meanwhile may see the one without the other.
fn without_what_overlaps(problem: &Problem) -> Problem {
    let commits: Vec<(u64, u64)> = problem
        .operations
        .iter()
        .filter(|operation| matches!(&operation.call, Call::Commit(_, Answer::Committed(_) | Answer::Unknown)))
        .map(|operation| (operation.began, operation.ended))
        .collect();
    let mut less = problem.clone();
    less.operations.retain(|operation| match &operation.call {
        Call::Commit(_, Answer::Committed(_) | Answer::Unknown) => true,
        _ => commits.iter().all(|(began, ended)| *ended < operation.began || operation.ended < *began),
    });
    less
}

fn gave_up(history: &History) -> String {
    format!(
        "nothing is proved: whether the {} operations have an order was not found out in {} s",
        history.operations.len(),
        TIME.as_secs()
    )
}

/// Searches without what is pending and was never seen, and then with it: it is seldom needed, and costs the most.
fn any_order(problem: &Problem) -> Found {
    let mut seen = problem.clone();
    seen.operations.retain(|operation| !matches!(&operation.call, Call::Commit(_, Answer::Unknown)));
    match search(&seen, budget()) {
        Found::None(stuck) if seen.operations.len() == problem.operations.len() => Found::None(stuck),
        Found::Order => Found::Order,
        _ => search(problem, budget()),
    }
}

/// The operations of a history, from an empty storage on.
pub(crate) fn problem_of(history: &History) -> Problem {
    let mut operations = history.operations.clone();
    bound_what_was_seen(&mut operations);
    Problem { operations, starts: vec![Start::default()], keeps_order: history.keeps_order, places: None }
}

/// What is pending and was seen has taken place before whoever saw it was answered.
fn bound_what_was_seen(operations: &mut [Operation]) {
    let mut times: HashMap<u32, usize> = HashMap::new();
    for operation in operations.iter() {
        if let Call::Commit(sent, _) = &operation.call {
            *times.entry(sent.number).or_default() += 1;
        }
    }
    let mut pending: HashMap<(Key, Bytes), usize> = HashMap::new();
    for (index, operation) in operations.iter().enumerate() {
        if let Call::Commit(sent, Answer::Unknown) = &operation.call
            && times[&sent.number] == 1
        {
            let puts = sent.writes.iter().filter_map(|write| match write {
                Write::Put(put) => Some((put.key.clone(), put.value.clone())),
                _ => None,
            });
            pending.extend(puts.map(|put| (put, index)));
        }
    }
    if pending.is_empty() {
        return;
    }
    let mut seen_by: HashMap<usize, u64> = HashMap::new();
    for operation in operations.iter() {
        let seen: Vec<(Key, Bytes)> = match &operation.call {
            Call::Read(queries) => queries.iter().flat_map(|(_, found)| found.clone()).collect(),
            Call::Commit(sent, Answer::Committed(_)) => {
                let expected = sent.expectations.iter().filter_map(|(key, expected)| match expected {
                    Expected::Value(value) => Some((key.clone(), value.clone())),
                    _ => None,
                });
                expected.collect()
            }
            Call::Commit(..) => Vec::new(),
        };
        for index in seen.iter().filter_map(|seen| pending.get(seen)) {
            let first = seen_by.entry(*index).or_insert(NEVER);
            *first = (*first).min(operation.ended);
        }
    }
    let mut clients = operations.iter().map(|operation| operation.client).max().unwrap_or(0);
    for (index, ended) in seen_by {
        let operation = &mut operations[index];
        // Seen before it began by what has no order with it: that is for the search to find.
        if operation.began <= ended
            && let Call::Commit(_, answer) = &mut operation.call
        {
            *answer = Answer::Committed(None);
            operation.ended = ended;
            clients += 1;
            operation.client = clients;
        }
    }
}

/// The same operations, with commits in the order of the journal: what is pending has taken place if it is there.
pub(crate) fn in_order_of_journal(mut problem: Problem, journal: &[(u32, u64)]) -> Problem {
    let places: HashMap<u32, u64> = journal.iter().zip(1..).map(|((number, _), place)| (*number, place)).collect();
    problem.operations.retain_mut(|operation| match &mut operation.call {
        Call::Commit(sent, answer @ Answer::Unknown) => {
            let is_there = places.contains_key(&sent.number);
            if is_there {
                *answer = Answer::Committed(None);
            }
            is_there
        }
        _ => true,
    });
    Problem { places: Some(places), ..problem }
}

/// Checks that a commit is answered each time as it was the first time.
fn check_answers(history: &History) -> Result<(), String> {
    let mut revisions: BTreeMap<u32, (u64, &Operation)> = BTreeMap::new();
    for operation in &history.operations {
        if let Call::Commit(sent, Answer::Committed(Some(revision))) = &operation.call {
            let (first, earlier) = revisions.entry(sent.number).or_insert((*revision, operation));
            if first != revision {
                return Err(format!(
                    "a commit that has taken place is answered as it was the first time, and this one has two \
                     revisions:\n{earlier}\n{operation}"
                ));
            }
        }
    }
    Ok(())
}

/// Checks that the journal has every commit that was acknowledged, once, with its revision, and no others.
fn check_journal(history: &History, journal: &[(u32, u64)]) -> Result<(), String> {
    let mut revisions = HashMap::new();
    for (number, revision) in journal {
        if *number == NOBODYS {
            return Err(format!("the journal has an entry for each commit, and revision {revision} is of none"));
        }
        if let Some(other) = revisions.insert(*number, *revision) {
            return Err(format!("the journal has each commit once, and has #{number} at {other} and at {revision}"));
        }
    }
    if !journal.is_sorted_by_key(|(_, revision)| *revision) {
        return Err(format!("revisions grow in the order of the journal, and here they do not: {journal:?}"));
    }
    let mut possible = HashSet::new();
    for operation in &history.operations {
        let Call::Commit(sent, answer) = &operation.call else { continue };
        match answer {
            Answer::Committed(revision) => {
                let found = revisions.get(&sent.number);
                if found.is_none() || revision.is_some_and(|revision| found != Some(&revision)) {
                    let found = found.map_or("nowhere".to_owned(), |revision| format!("at {revision}"));
                    return Err(format!(
                        "a commit is written with an entry of the journal, and the journal has this one {found}:\n\
                         {operation}"
                    ));
                }
                possible.insert(sent.number);
            }
            Answer::Unknown => drop(possible.insert(sent.number)),
            Answer::Conflict(_) | Answer::NotDone => {}
        }
    }
    let refused: BTreeSet<&u32> = revisions.keys().filter(|number| !possible.contains(number)).collect();
    if !refused.is_empty() {
        return Err(format!("what is refused, or given up for certain, is not done, and the journal has {refused:?}"));
    }
    Ok(())
}
