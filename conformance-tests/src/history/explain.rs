//! Why operations have no order: as few of them as possible, in a table, and the promise that they break.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use feast_registry_core::{Key, Query, Write};

use super::check::{Budget, Found, Problem, Stuck, search};
use super::operation::{Answer, Call, NEVER, Operation, Seen, looks_at, touches};
use super::text;

/// What all attempts to leave something out may take.
const TIME: Duration = Duration::from_secs(10);
/// What one of them may.
const CONFIGURATIONS: usize = 20_000;

/// Operations that have no order, of which as few are left as could be found.
#[derive(Debug)]
pub(crate) struct Explanation {
    promise: Option<Promise>,
    problem: Problem,
}

impl Explanation {
    /// Explains why a problem has no order: by what was done since all orders met last, or if that shows no promise that is
    /// broken, since earlier and earlier.
    pub(crate) fn of(problem: &Problem, stuck: &Stuck) -> Self {
        let until = Instant::now() + TIME;
        let mut first = None;
        let backs = std::iter::successors(Some(0), |back| Some(back * 2 + 1));
        for part in backs.map_while(|back| stuck.part_of(problem, back)) {
            let explanation = Self::of_part(part, until);
            if explanation.promise.is_some() {
                return explanation;
            }
            first.get_or_insert(explanation);
            if Instant::now() > until {
                break;
            }
        }
        first.unwrap_or(Self { promise: None, problem: problem.clone() })
    }

    fn of_part(part: Problem, until: Instant) -> Self {
        let promise = promise_of(&part, until);
        let problem = Shrinking { promise, until, best: part }.shrunk();
        Self { promise: promise.or_else(|| promise_of(&problem, until)), problem }
    }
}

fn found(problem: &Problem, until: Instant) -> Found {
    search(problem, Budget { configurations: CONFIGURATIONS, until })
}

/// Operations that have no order, but would have one without a promise, if it is known which.
struct Shrinking {
    promise: Option<Promise>,
    until: Instant,
    best: Problem,
}

impl Shrinking {
    /// Takes what is less, if it shows the same.
    fn attempt(&mut self, less: Problem) -> bool {
        let less = without_the_irrelevant(less);
        let is_less = less.operations != self.best.operations && self.shows(&less);
        if is_less {
            self.best = less;
        }
        is_less
    }

    fn shows(&self, problem: &Problem) -> bool {
        let is_broken = |promise: Promise| matches!(found(&promise.without(problem), self.until), Found::Order);
        matches!(found(problem, self.until), Found::None(_)) && self.promise.is_none_or(is_broken)
    }

    /// Leaves out what is not needed.
    fn shrunk(mut self) -> Problem {
        self.attempt(self.best.clone());
        loop {
            let before = size(&self.best);
            let clients: BTreeSet<u32> = self.best.operations.iter().map(|operation| operation.client).collect();
            for client in clients {
                self.attempt(weakened(&self.best, |operation| operation.client == client));
            }
            // Reads and refusals first: without them, most commits matter to nobody.
            for is_commit in [false, true] {
                for index in (0..self.best.operations.len()).rev() {
                    if let Some(operation) = self.best.operations.get(index).cloned()
                        && matches!(&operation.call, Call::Commit(_, Answer::Committed(_))) == is_commit
                    {
                        self.attempt(weakened(&self.best, |other| *other == operation));
                    }
                }
                self.shrink_reads();
            }
            if size(&self.best) == before || Instant::now() > self.until {
                return self.best;
            }
        }
    }

    /// Leaves out queries, and keys of queries.
    fn shrink_reads(&mut self) {
        let mut index = 0;
        while index < self.best.operations.len() {
            let mut query = 0;
            while let Some(Operation { call: Call::Read(queries), .. }) = self.best.operations.get(index)
                && query < queries.len()
            {
                let parts = parts(&queries[query].0);
                if queries.len() > 1 && self.attempt(without_query(&self.best, index, query)) {
                    continue;
                }
                for key in (0..parts).rev().filter(|_| parts > 1) {
                    if let Some(less) = without_key(&self.best, index, query, key) {
                        self.attempt(less);
                    }
                }
                query += 1;
            }
            index += 1;
        }
    }
}

fn without_query(problem: &Problem, index: usize, query: usize) -> Problem {
    let mut less = problem.clone();
    if let Some(Operation { call: Call::Read(queries), .. }) = less.operations.get_mut(index) {
        queries.remove(query);
    }
    less
}

/// `None` where the query has no such key, or only one.
fn without_key(problem: &Problem, index: usize, query: usize, key: usize) -> Option<Problem> {
    let mut less = problem.clone();
    let Call::Read(queries) = &mut less.operations.get_mut(index)?.call else { return None };
    let (Query::Keys(keys), found) = queries.get_mut(query)? else { return None };
    if key >= keys.len() || keys.len() == 1 {
        return None;
    }
    let key = keys.remove(key);
    found.retain(|(of, _)| *of != key);
    Some(less)
}

/// The same, but that nothing is known of the answers of some operations: a read is left out, and what a commit writes may
/// be there or not, from its beginning on.
fn weakened(problem: &Problem, of: impl Fn(&Operation) -> bool) -> Problem {
    let mut less = problem.clone();
    less.operations.retain_mut(|operation| {
        if !of(operation) {
            return true;
        }
        match &mut operation.call {
            Call::Read(_) | Call::Commit(_, Answer::Conflict(_) | Answer::NotDone) => return false,
            // Nothing is done again.
            Call::Commit(sent, _) if problem.starts.iter().all(|start| start.done.contains(&sent.number)) => {
                return false;
            }
            Call::Commit(_, answer) => *answer = Answer::Unknown,
        }
        operation.ended = NEVER;
        true
    });
    less
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

/// What the contract promises, each as what would be possible without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Journal,
    Once,
    Refusal,
    Snapshot,
    Atomic,
    Serializable,
    Kept,
    Lasting,
}

/// The promise that is broken: the first without which there would be an order.
fn promise_of(problem: &Problem, until: Instant) -> Option<Promise> {
    let mut promises = Promise::ALL.into_iter().filter(|of| *of != Promise::Journal || problem.places.is_some());
    promises.find(|promise| matches!(found(&promise.without(problem), until), Found::Order))
}

impl Promise {
    const ALL: [Promise; 8] = [
        Promise::Journal,
        Promise::Once,
        Promise::Refusal,
        Promise::Snapshot,
        Promise::Atomic,
        Promise::Serializable,
        Promise::Kept,
        Promise::Lasting,
    ];

    const fn text(self) -> &'static str {
        match self {
            Promise::Journal => "the order of the journal is that in which commits took place",
            Promise::Once => "a commit happens once: who sends it again is answered as the first time",
            Promise::Refusal => "a commit is refused only if what it expects of the key that is named does not hold",
            Promise::Snapshot => "a read is of one state, in which every commit is whole",
            Promise::Atomic => "a commit is atomic: at one moment everything is written",
            Promise::Serializable => {
                "a commit is serializable: all that it expects holds at the moment at which it is written"
            }
            Promise::Kept => "what was acknowledged is there, and is seen by whoever asks later",
            Promise::Lasting => "what was acknowledged is done, and stays so",
        }
    }

    /// What remains of a problem without the promise.
    fn without(self, problem: &Problem) -> Problem {
        let mut weaker = Problem { operations: Vec::new(), ..problem.clone() };
        let has_places = problem.places.is_some();
        if self == Promise::Journal {
            weaker.places = None;
        }
        if self == Promise::Once && !has_places {
            weaker.starts.iter_mut().for_each(|start| start.done.clear());
        }
        for operation in &problem.operations {
            let all = &mut weaker.operations;
            let mut other = operation.clone();
            match (self, &mut other.call) {
                (Promise::Once, Call::Commit(sent, _)) if !has_places => sent.number = number_of_part(all),
                (Promise::Refusal, Call::Commit(_, Answer::Conflict(_))) => continue,
                (Promise::Snapshot, Call::Read(_)) => {
                    split_reads(operation, all);
                    continue;
                }
                (Promise::Atomic, Call::Commit(..)) if !has_places => {
                    split_writes(operation, all);
                    continue;
                }
                (Promise::Serializable, Call::Commit(sent, Answer::Committed(_))) => sent.expectations.clear(),
                (Promise::Kept, _) => {
                    other.began = 0;
                    other.ended = if operation.ended == NEVER { NEVER } else { NEVER - 1 };
                }
                (Promise::Lasting, Call::Commit(_, answer @ Answer::Committed(_))) => {
                    *answer = Answer::Unknown;
                    other.ended = NEVER;
                }
                _ => {}
            }
            all.push(other);
        }
        weaker
    }
}

/// A number for a part of a commit, which nothing else has.
fn number_of_part(all: &[Operation]) -> u32 {
    1_000_000_000 + all.len() as u32
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

fn split_writes(operation: &Operation, all: &mut Vec<Operation>) {
    match &operation.call {
        Call::Commit(sent, answer @ (Answer::Committed(_) | Answer::Unknown)) if sent.writes.len() > 1 => {
            for (part, write) in sent.writes.iter().enumerate() {
                let mut one = sent.clone();
                one.number = number_of_part(all);
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

fn number_of(call: &Call) -> Option<u32> {
    match call {
        Call::Commit(sent, _) => Some(sent.number),
        Call::Read(_) => None,
    }
}

/// The promise, and the operations as a table.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { operations, starts, places, .. } = &self.problem;
        // The order of the journal binds what may have been done, too.
        let is_shown =
            |operation: &&Operation| places.is_some() || !matches!(&operation.call, Call::Commit(_, Answer::Unknown));
        let (shown, others): (Vec<&Operation>, Vec<&Operation>) = operations.iter().partition(is_shown);
        let promise = self.promise.map_or("every answer is that of some order of all operations", Promise::text);
        writeln!(f, "{promise}: these {} operations have no order", shown.len())?;
        let about = shown.iter().copied().cloned().collect();
        let keys = keys_of(&Problem { starts: Vec::new(), operations: about, ..self.problem.clone() });
        let matters = |key: &Key| {
            let is_there = |operation: &Operation| match &operation.call {
                Call::Read(queries) => queries.iter().any(|(query, _)| looks_at(query, key)),
                Call::Commit(..) => false,
            };
            keys.contains(key) || shown.iter().any(|operation| is_there(operation))
        };
        let mut befores: BTreeSet<String> = BTreeSet::new();
        for start in starts {
            let records = start.contents.records().into_iter().filter(|record| matters(&record.key));
            let before: Vec<String> =
                records.map(|record| text::seen(&(record.key.clone(), record.value.clone()))).collect();
            let nothing = "nothing of what they are about".to_owned();
            befores.insert(if before.is_empty() { nothing } else { before.join(" ") });
        }
        writeln!(f, "stored before them: {}", befores.into_iter().collect::<Vec<_>>().join("\n                or: "))?;
        let mut operations = shown.clone();
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
        if !others.is_empty() {
            let numbers: BTreeSet<u32> = others.iter().filter_map(|operation| number_of(&operation.call)).collect();
            let numbers: Vec<String> = numbers.iter().map(|number| format!("#{number}")).collect();
            writeln!(f, "whether these were done or not, at any time since they began: {}", numbers.join(" "))?;
        }
        Ok(())
    }
}
