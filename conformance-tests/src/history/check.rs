//! The checker: whether the operations of a history have an order in which each, done at one moment between its beginning
//! and its end, is answered as it was. That is strict serializability, of the whole map.
//!
//! It is the search of Wing and Gong, with the memory of Lowe: operation after operation is put into the order, a choice
//! that leads nowhere is taken back, and no configuration (which operations are done, and what is stored then) is looked at
//! twice. What writes nothing is put where it first fits, which loses no order. Where all clients are idle, all orders meet;
//! what is stored there is all that the rest depends on, and where the last such moment is that any order reaches, the
//! explanation begins.
//!
//! `todc-utils` knows no pending operations, and `stateright`'s tester keeps no memory of what it has tried: hence our own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use bytes::Bytes;
use feast_registry_core::{Contents, Key, Query};

use super::operation::{Answer, Call, NEVER, Operation, Seen, Sent};

/// Operations, what is stored before them, and how their order is bound.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) operations: Vec<Operation>,
    /// One of these is the state before.
    pub(crate) starts: Vec<Start>,
    pub(crate) keeps_order: bool,
    /// The places of commits in an order that they must have, if there is one.
    pub(crate) places: Option<HashMap<u32, u64>>,
}

/// A state that a search begins in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Start {
    pub(crate) contents: Contents,
    /// The commits that have taken place, of those that may be sent again.
    pub(crate) done: Vec<u32>,
    /// The place of the last of them, where there are places.
    pub(crate) last: Option<u64>,
}

/// What a search came to.
#[derive(Debug)]
pub(crate) enum Found {
    /// There is an order.
    Order,
    /// There is none.
    None(Stuck),
    /// It would have taken too long to find out.
    GaveUp,
}

/// How far orders come.
#[derive(Debug)]
pub(crate) struct Stuck {
    /// The moments with all clients idle that an order reaches, last first, and what may be stored then.
    moments: Vec<(u64, Vec<Start>)>,
    /// The moment like these that none reaches.
    until: u64,
}

impl Stuck {
    /// The part of a problem that has no order by itself: what was done since a moment that orders reach, so many of them
    /// before the last. `None` if there are not so many.
    pub(crate) fn part_of(&self, problem: &Problem, back: usize) -> Option<Problem> {
        let (began, starts) = self.moments.get(back)?;
        let is_in = |operation: &&Operation| {
            operation.began < self.until && (operation.ended == NEVER || *began <= operation.began)
        };
        let operations = problem.operations.iter().filter(is_in).cloned().collect();
        Some(Problem { operations, starts: starts.clone(), ..problem.clone() })
    }
}

/// How much a search may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) configurations: usize,
    pub(crate) until: Instant,
}

/// Which operations are done, and what is stored then.
#[derive(Debug, Clone)]
struct Configuration {
    /// How many operations of each lane.
    at: Vec<u16>,
    /// The commits that have taken place, of those that matter for others of their number.
    done: Vec<u32>,
    contents: usize,
    last: Option<u64>,
}

/// What an operation does in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// It would not be answered as it was.
    No,
    /// It changes nothing.
    Stays,
    /// It takes place.
    Moves(usize),
}

/// The states that occur, each once.
#[derive(Debug, Default)]
struct States {
    all: Vec<Contents>,
    numbers: HashMap<Vec<Seen>, usize>,
}

impl States {
    fn number_of(&mut self, contents: Contents) -> usize {
        let mut canonical: Vec<Seen> =
            contents.records().into_iter().map(|record| (record.key.clone(), record.value.clone())).collect();
        // Only objects of one kind have an order among each other.
        canonical.sort_by(|(one, _), (other, _)| match (one, other) {
            (Key::Object { kind: one, .. }, Key::Object { kind: other, .. }) => one.cmp(other),
            _ => one.cmp(other),
        });
        *self.numbers.entry(canonical).or_insert_with(|| {
            self.all.push(contents);
            self.all.len() - 1
        })
    }
}

struct Search<'p> {
    problem: &'p Problem,
    /// The operations of each client, and each that never ended and must take place: what is to be put into the order.
    lanes: Vec<Vec<usize>>,
    /// How many of the lanes are those of clients.
    clients: usize,
    /// What may take place or not.
    pending: Vec<usize>,
    /// The numbers that more than one operation has, a pending one, or one that was done before; when the last of them
    /// begins.
    shared: HashMap<u32, u64>,
    /// By the number of operations that are done: the moments with all clients idle, and when the next one begins.
    idle: HashMap<usize, u64>,
    /// The places of commits that must take place, in order.
    due: BTreeSet<u64>,
    states: States,
    fits: HashMap<(usize, usize), Fit>,
    seen: HashSet<(Vec<u16>, Vec<u32>, usize)>,
    /// The configurations at moments with all clients idle, by the number of operations that are done.
    reached: BTreeMap<usize, Vec<Configuration>>,
}

/// Searches for an order.
pub(crate) fn search(problem: &Problem, budget: Budget) -> Found {
    Search::new(problem).run(budget)
}

fn must_take_place(call: &Call) -> Option<&Sent> {
    match call {
        Call::Commit(sent, Answer::Committed(_)) => Some(sent),
        _ => None,
    }
}

impl<'p> Search<'p> {
    fn new(problem: &'p Problem) -> Self {
        let mut lanes: HashMap<u32, Vec<usize>> = HashMap::new();
        let (mut endless, mut pending) = (Vec::new(), Vec::new());
        let mut shared: HashMap<u32, (usize, u64)> = HashMap::new();
        for (index, operation) in problem.operations.iter().enumerate() {
            if let Call::Commit(sent, _) = &operation.call {
                let (count, last) = shared.entry(sent.number).or_default();
                let is_endless = operation.ended == NEVER;
                let was_done = problem.starts.iter().any(|start| start.done.contains(&sent.number));
                *count += if is_endless || was_done { 2 } else { 1 };
                *last = (*last).max(if is_endless { NEVER } else { operation.began });
            }
            match &operation.call {
                Call::Commit(_, Answer::NotDone) => {}
                Call::Commit(_, Answer::Unknown) => pending.push(index),
                _ if operation.ended == NEVER => endless.push(vec![index]),
                _ => lanes.entry(operation.client).or_default().push(index),
            }
        }
        let mut lanes: Vec<Vec<usize>> = lanes.into_values().collect();
        lanes.iter_mut().for_each(|lane| lane.sort_by_key(|index| problem.operations[*index].began));
        lanes.sort();
        let clients = lanes.len();
        let mut ended: Vec<&Operation> = lanes.iter().flatten().map(|index| &problem.operations[*index]).collect();
        ended.sort_by_key(|operation| operation.began);
        let mut idle = HashMap::from([(0, ended.first().map_or(NEVER, |operation| operation.began))]);
        let mut last = 0;
        for (count, operation) in ended.iter().enumerate() {
            if last < operation.began {
                idle.insert(count, operation.began);
            }
            last = last.max(operation.ended);
        }
        idle.insert(ended.len(), NEVER);
        lanes.append(&mut endless);
        let due = problem.operations.iter().filter_map(|operation| must_take_place(&operation.call));
        let due = due.filter_map(|sent| problem.places.as_ref()?.get(&sent.number).copied()).collect();
        let shared = shared.into_iter().filter(|(_, (count, _))| *count > 1);
        Self {
            problem,
            lanes,
            clients,
            pending,
            shared: shared.map(|(number, (_, last))| (number, last)).collect(),
            idle,
            due,
            states: States::default(),
            fits: HashMap::new(),
            seen: HashSet::new(),
            reached: BTreeMap::new(),
        }
    }

    fn run(mut self, budget: Budget) -> Found {
        let mut stack: Vec<Configuration> = Vec::new();
        for start in &self.problem.starts {
            let contents = self.states.number_of(start.contents.clone());
            let done = start.done.iter().copied().filter(|number| self.is_known(*number)).collect();
            stack.push(Configuration { at: vec![0; self.lanes.len()], done, contents, last: start.last });
        }
        while let Some(mut configuration) = stack.pop() {
            let until = self.take_what_stays(&mut configuration);
            let Configuration { at, done, contents, .. } = &configuration;
            if !self.seen.insert((at.clone(), done.clone(), *contents)) {
                continue;
            }
            if at.iter().zip(&self.lanes).all(|(at, lane)| usize::from(*at) == lane.len()) {
                return Found::Order;
            }
            if self.seen.len() > budget.configurations
                || (self.seen.len().is_multiple_of(64) && Instant::now() > budget.until)
            {
                return Found::GaveUp;
            }
            self.push_choices(&configuration, until, &mut stack);
        }
        Found::None(self.stuck())
    }

    /// Whether anything here is of a commit's number.
    fn is_known(&self, number: u32) -> bool {
        self.problem.operations.iter().any(|of| matches!(&of.call, Call::Commit(sent, _) if sent.number == number))
    }

    fn head(&self, configuration: &Configuration, lane: usize) -> Option<usize> {
        self.lanes[lane].get(usize::from(configuration.at[lane])).copied()
    }

    /// The moment before which the next operation must have begun: when the first of those ends that are not done.
    fn first_end(&self, configuration: &Configuration) -> u64 {
        let heads = (0..self.lanes.len()).filter_map(|lane| self.head(configuration, lane));
        heads.map(|index| self.problem.operations[index].ended).min().unwrap_or(NEVER)
    }

    /// Does all that can be done without changing anything; returns the moment before which what is next must have begun.
    fn take_what_stays(&mut self, configuration: &mut Configuration) -> u64 {
        loop {
            self.note_if_idle(configuration);
            let until = self.first_end(configuration);
            let fitting = (0..self.lanes.len()).find(|lane| {
                self.head(configuration, *lane).is_some_and(|index| {
                    self.problem.operations[index].began <= until && self.fit(configuration, index) == Fit::Stays
                })
            });
            match fitting {
                Some(lane) => configuration.at[lane] += 1,
                None => return until,
            }
        }
    }

    /// Notes how far the search has come, and forgets the commits that nothing later is about.
    fn note_if_idle(&mut self, configuration: &mut Configuration) {
        let count = configuration.at[..self.clients].iter().map(|at| usize::from(*at)).sum();
        let Some(next) = self.idle.get(&count) else { return };
        configuration.done.retain(|number| self.shared.get(number).is_some_and(|last| last >= next));
        let reached = self.reached.entry(count).or_default();
        let is_known = |other: &Configuration| {
            (other.contents, &other.done, &other.at) == (configuration.contents, &configuration.done, &configuration.at)
        };
        if !reached.iter().any(is_known) {
            reached.push(configuration.clone());
        }
    }

    /// Adds what may be next: the commits that take place. What ends first is tried first, and what is pending last.
    fn push_choices(&mut self, configuration: &Configuration, until: u64, stack: &mut Vec<Configuration>) {
        let mut choices: Vec<(u64, Option<usize>, usize)> = Vec::new();
        for lane in 0..self.lanes.len() {
            let head = self.head(configuration, lane);
            choices.extend(head.map(|index| (self.problem.operations[index].ended, Some(lane), index)));
        }
        choices.extend(self.pending.iter().map(|index| (NEVER, None, *index)));
        choices.retain(|(.., index)| self.problem.operations[*index].began <= until);
        choices.sort_by_key(|(ended, lane, _)| std::cmp::Reverse((*ended, lane.is_none())));
        for (_, lane, index) in choices {
            let Fit::Moves(contents) = self.fit(configuration, index) else { continue };
            let Call::Commit(Sent { number, .. }, _) = &self.problem.operations[index].call else { continue };
            let mut next = Configuration { contents, ..configuration.clone() };
            if let Some(lane) = lane {
                next.at[lane] += 1;
            }
            if self.shared.contains_key(number)
                && let Err(place) = next.done.binary_search(number)
            {
                next.done.insert(place, *number);
            }
            next.last = self.place(*number).or(next.last);
            stack.push(next);
        }
    }

    fn place(&self, number: u32) -> Option<u64> {
        self.problem.places.as_ref()?.get(&number).copied()
    }

    /// Whether the order that commits must have lets this one be next.
    fn is_in_turn(&self, configuration: &Configuration, number: u32, is_pending: bool) -> bool {
        if self.problem.places.is_none() {
            return true;
        }
        let Some(place) = self.place(number) else { return false };
        let after = configuration.last.map_or(0, |last| last + 1);
        place >= after && (is_pending || self.due.range(after..).next() == Some(&place))
    }

    /// What an operation does in a configuration.
    fn fit(&mut self, configuration: &Configuration, index: usize) -> Fit {
        let problem = self.problem;
        let call = &problem.operations[index].call;
        let fits = match call {
            Call::Read(_) => true,
            Call::Commit(sent, answer) if configuration.done.binary_search(&sent.number).is_ok() => {
                let is_answered_so = matches!(answer, Answer::Committed(_));
                return if is_answered_so { Fit::Stays } else { Fit::No };
            }
            Call::Commit(_, Answer::Conflict(_)) => true,
            Call::Commit(sent, answer) => self.is_in_turn(configuration, sent.number, *answer == Answer::Unknown),
        };
        if !fits {
            return Fit::No;
        }
        let place = (configuration.contents, index);
        if let Some(fit) = self.fits.get(&place) {
            return *fit;
        }
        let fit = self.fit_contents(configuration.contents, call);
        self.fits.insert(place, fit);
        fit
    }

    fn fit_contents(&mut self, number: usize, call: &Call) -> Fit {
        let contents = &self.states.all[number];
        match call {
            Call::Read(queries) => {
                let fits =
                    |(query, found): &(Query, Vec<Seen>)| finds(contents, query, found, self.problem.keeps_order);
                if queries.iter().all(fits) { Fit::Stays } else { Fit::No }
            }
            Call::Commit(sent, Answer::Conflict(of)) => {
                let refuses =
                    sent.expectations.iter().any(|(key, expected)| key == of && !contents.is_as(key, expected));
                if refuses { Fit::Stays } else { Fit::No }
            }
            Call::Commit(sent, _) => {
                if !sent.expectations.iter().all(|(key, expected)| contents.is_as(key, expected)) {
                    return Fit::No;
                }
                let mut after = contents.clone();
                for write in &sent.writes {
                    after.write(write.clone());
                }
                let after = self.states.number_of(after);
                // What changes nothing here might change something later, unless it never writes.
                let has_place = self.problem.places.is_some() || self.shared.contains_key(&sent.number);
                if sent.writes.is_empty() && !has_place { Fit::Stays } else { Fit::Moves(after) }
            }
        }
    }

    fn stuck(&self) -> Stuck {
        let began = |count: &usize| self.idle.get(count).copied().unwrap_or(0);
        let start = |configuration: &Configuration| Start {
            contents: self.states.all[configuration.contents].clone(),
            done: configuration.done.clone(),
            last: configuration.last,
        };
        let moments = self.reached.iter().rev();
        let moments = moments.map(|(count, reached)| (began(count), reached.iter().map(start).collect())).collect();
        let last = self.reached.last_key_value().map_or(0, |(count, _)| began(count));
        let until = self.idle.values().copied().filter(|moment| *moment > last).min().unwrap_or(NEVER);
        Stuck { moments, until }
    }
}

/// Whether a query finds this. When records were written is left aside, and in which order facts come.
fn finds(contents: &Contents, query: &Query, found: &[Seen], keeps_order: bool) -> bool {
    let mut expected: Vec<Seen> =
        contents.read(query).into_iter().map(|record| (record.key, record.value)).collect::<Vec<(Key, Bytes)>>();
    match query {
        Query::Objects { page: None, .. } if !keeps_order => expected.sort(),
        Query::Metadata { .. } => {
            expected.sort();
            let mut found = found.to_vec();
            found.sort();
            return expected == found;
        }
        _ => {}
    }
    expected == found
}
