//! Calls of two servers, compared cell by cell of a table: an operation, and so many callers at once.

use crate::load::{self, Call, Throughput};
use crate::report::{Pair, Report, both};
use crate::server::Server;
use crate::setup::{Setup, turns};

/// So many callers at once, of most calls.
pub(crate) const CALLERS: [usize; 2] = [1, 16];

/// What was measured so far.
pub(crate) struct Cells<C> {
    /// What the servers are called.
    names: [&'static str; 2],
    cells: Vec<(C, usize)>,
    rates: Vec<Pair>,
    costs: Vec<Pair>,
}

impl<C: Call> Cells<C> {
    /// Each operation with each of these numbers of callers.
    pub(crate) fn new(names: [&'static str; 2], operations: &[C], callers: &[usize]) -> Self {
        let cells: Vec<_> =
            operations.iter().flat_map(|operation| callers.iter().map(|callers| (*operation, *callers))).collect();
        Self { names, rates: vec![Pair::default(); cells.len()], costs: vec![Pair::default(); cells.len()], cells }
    }

    /// The operations, in the order in which they are measured.
    pub(crate) fn operations(&self) -> Vec<C> {
        self.cells.iter().map(|(operation, _)| *operation).collect()
    }

    /// Measures one cell of both servers, one after the other.
    pub(crate) async fn measure(
        &mut self,
        index: usize,
        round: u32,
        servers: &[Server; 2],
        setup: &Setup,
        report: &mut Report,
    ) {
        let (operation, callers) = self.cells[index];
        let mut work: [Option<Throughput>; 2] = [None; 2];
        for of in turns(round) {
            let measured = load::measure(&servers[of], &setup.sample, operation, callers, setup.cell).await;
            work[of] = report.take(measured);
        }
        let rate = work.map(|work| work.map(|work| work.rate));
        self.rates[index].add(rate);
        self.costs[index].add(work.map(|work| work.and_then(|work| work.cost)));
        let ([first, second], [one, other]) = (self.names, both(rate));
        eprintln!("round {}: {operation}, callers: {callers}: {first} {one}/s, {second} {other}/s", round + 1);
    }

    /// Adds the tables of calls per second, and of what they cost where the system tells.
    pub(crate) fn report(&self, about: &str, report: &mut Report) {
        let [first, second] = self.names;
        let rows = |figures: &[Pair], ratio: fn(&Pair) -> String| -> Vec<Vec<String>> {
            let row = |((operation, callers), pair): (&(C, usize), &Pair)| {
                vec![operation.to_string(), callers.to_string(), pair.figure(0), pair.figure(1), ratio(pair)]
            };
            self.cells.iter().zip(figures).map(row).collect()
        };
        report.heading(&format!("Calls per second{about}"));
        let ratio = format!("{second} / {first}");
        report.table(&["call", "callers", first, second, &ratio], &rows(&self.rates, Pair::times));
        if self.costs.iter().any(|cost| cost.median(1).is_some()) {
            report.heading(&format!("Processor time that a call costs the server, µs{about}"));
            let ratio = format!("{first} / {second}");
            report.table(&["call", "callers", first, second, &ratio], &rows(&self.costs, Pair::inverse_times));
        }
    }
}
