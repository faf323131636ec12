//! Why operations have no order: as few of them as possible, in a table, and the promise that they break.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use feast_registry_core::{Key, Query, Write};

use super::check::{Budget, Found, Problem, Start, search};
use super::operation::{Answer, Call, NEVER, Operation, Seen, looks_at, touches};
use super::text;

/// What all attempts to leave something out may take.
const TIME: Duration = Duration::from_secs(10);
/// What one of them may.
const CONFIGURATIONS: usize = 20_000;

/// Operations that have no order, of which as few are left as could be found.
#[derive(Debug)]
pub(crate) struct Explanation {
    promise: &'static str,
    pub(crate) problem: Problem,
}

impl Explanation {
    /// Shrinks operations that have no order.
    pub(crate) fn of(problem: Problem) -> Self {
        let until = Instant::now() + TIME;
        let problem = shrunk(problem, until);
        Self { promise: promise_of(&problem), problem }
    }
}

fn fails(problem: &Problem, until: Instant) -> bool {
    matches!(search(problem, Budget { configurations: CONFIGURATIONS, until }), Found::None(_))
}

/// Leaves out what is not needed, as long as there is no order.
fn shrunk(mut best: Problem, until: Instant) -> Problem {
    // The state before is one of several only where something is pending.
    let relevant = without_the_irrelevant(best.clone());
    if fails(&relevant, until) {
        best = relevant;
    }
    loop {
        let before = size(&best);
        let clients: BTreeSet<u32> = best.operations.iter().map(|operation| operation.client).collect();
        for client in clients {
            attempt(&mut best, until, |operation| operation.client == client);
        }
        // Reads and refusals first: without them, most commits matter to nobody.
        for is_commit in [false, true] {
            for index in (0..best.operations.len()).rev() {
                if let Some(operation) = best.operations.get(index).cloned()
                    && matches!(&operation.call, Call::Commit(_, Answer::Committed(_))) == is_commit
                {
                    attempt(&mut best, until, |other| *other == operation);
                }
            }
            shrink_reads(&mut best, until);
        }
        if size(&best) == before || Instant::now() > until {
            return best;
        }
    }
}

/// How much there is to look at.
fn size(problem: &Problem) -> usize {
    let of_call = |call: &Call| match call {
        Call::Read(queries) => 10 + queries.iter().map(|(query, _)| parts(query)).sum::<usize>(),
        Call::Commit(_, Answer::Unknown) => 1,
        Call::Commit(..) => 10,
    };
    problem.operations.iter().map(|operation| of_call(&operation.call)).sum()
}

fn parts(query: &Query) -> usize {
    if let Query::Keys(keys) = query { keys.len() } else { 1 }
}

/// Keeps nothing of the answers of some operations, if there is still no order: a read is left out, and what a commit
/// wrote may be there or not, from its beginning on.
fn attempt(best: &mut Problem, until: Instant, of: impl Fn(&Operation) -> bool) {
    let mut weaker = best.clone();
    weaker.operations.retain_mut(|operation| {
        if !of(operation) {
            return true;
        }
        match &mut operation.call {
            Call::Read(_) | Call::Commit(_, Answer::Conflict(_) | Answer::NotDone) => return false,
            Call::Commit(_, answer) => *answer = Answer::Unknown,
        }
        operation.ended = NEVER;
        true
    });
    let weaker = without_the_irrelevant(weaker);
    if weaker.operations != best.operations && fails(&weaker, until) {
        *best = weaker;
    }
}

/// Leaves out queries, and keys of queries.
fn shrink_reads(best: &mut Problem, until: Instant) {
    for index in 0..best.operations.len() {
        let mut query = 0;
        while let Some(Operation { call: Call::Read(queries), .. }) = best.operations.get(index)
            && query < queries.len()
        {
            let count = queries.len();
            let parts = parts(&queries[query].0);
            let without = |best: &Problem, key: Option<usize>| {
                let mut weaker = best.clone();
                if let Call::Read(queries) = &mut weaker.operations[index].call {
                    match (key, &mut queries[query]) {
                        (Some(key), (Query::Keys(keys), found)) => {
                            let key = keys.remove(key);
                            found.retain(|(of, _)| *of != key);
                        }
                        _ => drop(queries.remove(query)),
                    }
                }
                weaker
            };
            if count > 1 {
                let weaker = without(best, None);
                if fails(&weaker, until) {
                    *best = weaker;
                    continue;
                }
            }
            for key in (0..parts).rev().filter(|_| parts > 1) {
                let weaker = without(best, Some(key));
                if fails(&weaker, until) {
                    *best = weaker;
                }
            }
            query += 1;
        }
    }
    *best = without_the_irrelevant(best.clone());
}

/// Leaves out what may have taken place or not and that nothing which is left can tell.
fn without_the_irrelevant(mut problem: Problem) -> Problem {
    let keys = keys_of(&problem);
    let mut watched: BTreeSet<&Key> = BTreeSet::new();
    let mut is_kept: Vec<bool> = Vec::new();
    for operation in &problem.operations {
        let is_optional = matches!(&operation.call, Call::Commit(_, Answer::Unknown | Answer::NotDone));
        is_kept.push(!is_optional);
        if !is_optional {
            watched.extend(keys.iter().filter(|key| watches(&operation.call, key)));
        }
    }
    loop {
        let before = watched.len();
        for (operation, is_kept) in problem.operations.iter().zip(&mut is_kept) {
            let Call::Commit(sent, answer) = &operation.call else { continue };
            let matters = sent.writes.iter().any(|write| watched.iter().any(|key| touches(write, key)));
            let is_a_copy = is_kept_copy(&problem.operations, sent.number);
            *is_kept |= (matters || is_a_copy) && *answer != Answer::NotDone;
            if *is_kept {
                watched.extend(keys.iter().filter(|key| watches(&operation.call, key)));
            }
        }
        if watched.len() == before {
            break;
        }
    }
    let mut is_kept = is_kept.into_iter();
    problem.operations.retain(|_| is_kept.next().unwrap_or(true));
    problem
}

/// Whether a commit of this number is among those that must be answered as they were.
fn is_kept_copy(operations: &[Operation], number: u32) -> bool {
    operations.iter().any(|operation| match &operation.call {
        Call::Commit(sent, answer) => {
            sent.number == number && matches!(answer, Answer::Committed(_) | Answer::Conflict(_))
        }
        Call::Read(_) => false,
    })
}

/// Whether what a call does, or how it is answered, depends on a key.
fn watches(call: &Call, key: &Key) -> bool {
    match call {
        Call::Read(queries) => queries.iter().any(|(query, _)| looks_at(query, key)),
        Call::Commit(sent, _) => {
            let is_view_of_put = |write: &Write| match (write, key) {
                (Write::Put(put), Key::Object { kind, project, name }) => matches!(
                    &put.key,
                    Key::UserMetadata { kind: k, project: p, view } if k == kind && p == project && view == name
                ),
                _ => false,
            };
            sent.expectations.iter().any(|(of, _)| of == key) || sent.writes.iter().any(is_view_of_put)
        }
    }
}

/// All keys that occur.
fn keys_of(problem: &Problem) -> BTreeSet<Key> {
    let mut keys: BTreeSet<Key> = BTreeSet::new();
    for operation in &problem.operations {
        match &operation.call {
            Call::Read(queries) => {
                for (query, found) in queries {
                    keys.extend(found.iter().map(|(key, _)| key.clone()));
                    if let Query::Keys(of) = query {
                        keys.extend(of.iter().cloned());
                    }
                }
            }
            Call::Commit(sent, _) => {
                keys.extend(sent.expectations.iter().map(|(key, _)| key.clone()));
                keys.extend(sent.writes.iter().filter_map(|write| match write {
                    Write::Put(put) => Some(put.key.clone()),
                    Write::Delete(key) => Some(key.clone()),
                    _ => None,
                }));
            }
        }
    }
    for start in &problem.starts {
        keys.extend(start.contents.records().into_iter().map(|record| record.key.clone()));
    }
    keys
}

/// The promise that is broken: the one without which there would be an order.
fn promise_of(problem: &Problem) -> &'static str {
    let until = Instant::now() + TIME;
    let is_it =
        |without: Problem| matches!(search(&without, Budget { configurations: CONFIGURATIONS, until }), Found::Order);
    let mapped = |change: &dyn Fn(&Operation, &mut Vec<Operation>)| {
        let mut operations = Vec::new();
        problem.operations.iter().for_each(|operation| change(operation, &mut operations));
        Problem { operations, ..problem.clone() }
    };
    if problem.places.is_some() && is_it(Problem { places: None, ..problem.clone() }) {
        return "the order of the journal is that in which commits took place";
    }
    let once = mapped(&|operation, all| {
        let mut other = operation.clone();
        if let Call::Commit(sent, _) = &mut other.call {
            sent.number = 1_000_000 + all.len() as u32;
        }
        all.push(other);
    });
    if problem.places.is_none() && is_it(Problem { starts: without_done(&problem.starts), ..once }) {
        return "a commit happens once: who sends it again is answered as the first time";
    }
    let is_conflict = |operation: &Operation| matches!(&operation.call, Call::Commit(_, Answer::Conflict(_)));
    if is_it(mapped(&|operation, all| all.extend((!is_conflict(operation)).then(|| operation.clone())))) {
        return "a commit is refused only if what it expects of the key that is named does not hold";
    }
    if is_it(mapped(&split_reads)) {
        return "a read is of one state, in which every commit is whole";
    }
    if is_it(mapped(&|operation, all| split_writes(operation, all, problem.places.is_some()))) {
        return "a commit is atomic: at one moment everything is written";
    }
    let unconditional = mapped(&|operation, all| {
        let mut other = operation.clone();
        if let Call::Commit(sent, Answer::Committed(_)) = &mut other.call {
            sent.expectations.clear();
        }
        all.push(other);
    });
    if is_it(unconditional) {
        return "a commit is serializable: all that it expects holds at the moment at which it is written";
    }
    let any_time = mapped(&|operation, all| {
        let ended = if operation.ended == NEVER { NEVER } else { NEVER - 1 };
        all.push(Operation { began: 0, ended, ..operation.clone() });
    });
    if is_it(any_time) {
        return "what was acknowledged is there, and is seen by whoever asks later";
    }
    let forgotten = mapped(&|operation, all| {
        let mut other = operation.clone();
        if let Call::Commit(_, answer @ Answer::Committed(_)) = &mut other.call {
            *answer = Answer::Unknown;
            other.ended = NEVER;
        }
        all.push(other);
    });
    if is_it(forgotten) {
        return "what was acknowledged is done, and stays so";
    }
    "every answer is that of some order of all commits and reads"
}

fn without_done(starts: &[Start]) -> Vec<Start> {
    starts.iter().map(|start| Start { done: Vec::new(), ..start.clone() }).collect()
}

/// A client for a part of an operation, which has no order with the other parts.
fn client_of_part(all: &[Operation]) -> u32 {
    1_000 + all.len() as u32
}

fn split_reads(operation: &Operation, all: &mut Vec<Operation>) {
    let Call::Read(queries) = &operation.call else { return all.push(operation.clone()) };
    for (query, found) in queries {
        let parts: Vec<(Query, Vec<Seen>)> = match query {
            Query::Keys(keys) => {
                let part = |key: &Key| {
                    let found = found.iter().filter(|(of, _)| of == key).cloned().collect();
                    (Query::Keys(vec![key.clone()]), found)
                };
                keys.iter().map(part).collect()
            }
            list => vec![(list.clone(), found.clone())],
        };
        for part in parts {
            all.push(Operation { client: client_of_part(all), call: Call::Read(vec![part]), ..operation.clone() });
        }
    }
}

fn split_writes(operation: &Operation, all: &mut Vec<Operation>, has_places: bool) {
    match &operation.call {
        Call::Commit(sent, answer @ (Answer::Committed(_) | Answer::Unknown))
            if sent.writes.len() > 1 && !has_places =>
        {
            for (part, write) in sent.writes.iter().enumerate() {
                let mut one = sent.clone();
                one.number = 1_000_000 + all.len() as u32;
                one.writes = vec![write.clone()];
                if part > 0 {
                    one.expectations.clear();
                }
                let call = Call::Commit(one, answer.clone());
                all.push(Operation { client: client_of_part(all), call, ..operation.clone() });
            }
        }
        _ => all.push(operation.clone()),
    }
}

/// The promise, and the operations as a table.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { operations, starts, places, .. } = &self.problem;
        writeln!(f, "{}: these {} operations have no order", self.promise, operations.len())?;
        let keys = keys_of(&Problem { starts: Vec::new(), ..self.problem.clone() });
        let matters = |key: &Key| {
            let is_there = |operation: &Operation| match &operation.call {
                Call::Read(queries) => queries.iter().any(|(query, _)| looks_at(query, key)),
                Call::Commit(..) => false,
            };
            keys.contains(key) || operations.iter().any(is_there)
        };
        for (number, start) in starts.iter().enumerate() {
            let records = start.contents.records().into_iter().filter(|record| matters(&record.key));
            let before: Vec<String> =
                records.map(|record| text::seen(&(record.key.clone(), record.value.clone()))).collect();
            let before = if before.is_empty() { "nothing of what they are about".to_owned() } else { before.join(" ") };
            let or = if number == 0 { "stored before them: " } else { "or: " };
            writeln!(f, "{or}{before}")?;
        }
        let mut operations: Vec<&Operation> = operations.iter().collect();
        operations.sort_by_key(|operation| operation.began);
        let zero = operations.first().map_or(0, |operation| operation.began);
        let micros = |at: u64| format!("{}.{:03}", (at - zero) / 1000, (at - zero) % 1000);
        let mut rows = vec![["client", "from (µs)", "to", "operation", "answer"].map(str::to_owned)];
        for operation in operations {
            let ended = if operation.ended == NEVER { "-".to_owned() } else { micros(operation.ended) };
            let answer = match &operation.call {
                Call::Commit(_, Answer::Unknown) => "(done at any time, or not at all)".to_owned(),
                call => text::answer(call),
            };
            let place = match (&operation.call, places) {
                (Call::Commit(sent, _), Some(places)) => {
                    places.get(&sent.number).map(|place| format!(" (journal: {place})")).unwrap_or_default()
                }
                _ => String::new(),
            };
            let client = format!("c{}", operation.client);
            rows.push([client, micros(operation.began), ended, text::call(&operation.call), answer + &place]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..4).map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(f, "  {}  {}", cells.collect::<Vec<_>>().join("  "), row[4])?;
        }
        Ok(())
    }
}
