//! Calls per second, memory and start of both servers.

use anyhow::Result;

use crate::load::{self, Throughput};
use crate::operation::Operation;
use crate::report::{Pair, Report, both};
use crate::server::Server;
use crate::setup::{Setup, VIEWS, turns};

/// So many callers at once.
const CALLERS: [usize; 2] = [1, 16];

/// Starts both servers anew in each round, so that writes of one round are not in the way of the next.
pub(crate) async fn measure(setup: &Setup, report: &mut Report) -> Result<()> {
    let cells: Vec<(Operation, usize)> =
        Operation::ALL.into_iter().flat_map(|operation| CALLERS.map(|callers| (operation, callers))).collect();
    let mut rates = vec![Pair::default(); cells.len()];
    let mut costs = rates.clone();
    let [mut start_up, mut idle, mut read, mut written] = std::array::from_fn(|_| Pair::default());
    for round in 0..setup.rounds {
        let servers = setup.start_both(VIEWS).await?;
        start_up.add([0, 1].map(|of| Some(servers[of].start_up.as_secs_f64() * 1e3)));
        idle.add(memory(&servers)?);
        for (index, &(operation, callers)) in cells.iter().enumerate() {
            if index > 0 && operation.is_write() && !cells[index - 1].0.is_write() {
                read.add(memory(&servers)?);
            }
            let mut work: [Option<Throughput>; 2] = [None; 2];
            for of in turns(round) {
                let measured = load::measure(&servers[of], &setup.sample, operation, callers, setup.cell).await;
                work[of] = report.take(measured);
            }
            let rate = work.map(|work| work.map(|work| work.rate));
            rates[index].add(rate);
            costs[index].add(work.map(|work| work.and_then(|work| work.cost)));
            let [feast, ours] = both(rate);
            eprintln!("round {}: {operation}, callers: {callers}: Feast {feast}/s, ours {ours}/s", round + 1);
        }
        written.add(memory(&servers)?);
        for server in servers {
            server.stop().await?;
        }
    }

    report.heading("Calls per second");
    let table = |figures: &[Pair], ratio: fn(&Pair) -> String| -> Vec<Vec<String>> {
        let row = |((operation, callers), pair): (&(Operation, usize), &Pair)| {
            vec![operation.to_string(), callers.to_string(), pair.figure(0), pair.figure(1), ratio(pair)]
        };
        cells.iter().zip(figures).map(row).collect()
    };
    report.table(&["call", "callers", "Feast", "ours", "ours / Feast"], &table(&rates, Pair::times));
    if costs.iter().any(|cost| cost.median(1).is_some()) {
        report.heading("Processor time that a call costs the server, µs");
        report.table(&["call", "callers", "Feast", "ours", "Feast / ours"], &table(&costs, Pair::inverse_times));
    }

    report.heading("Memory and start");
    let row = |what: &str, pair: &Pair| vec![what.to_owned(), pair.figure(0), pair.figure(1), pair.inverse_times()];
    report.table(
        &["", "Feast", "ours", "Feast / ours"],
        &[
            row("memory (RSS) after the start, MB", &idle),
            row("memory (RSS) after the reads, MB", &read),
            row("memory (RSS) after the writes, MB", &written),
            row("start until the first answer, ms", &start_up),
        ],
    );
    Ok(())
}

fn memory(servers: &[Server; 2]) -> Result<[Option<f64>; 2]> {
    Ok([Some(servers[0].memory()?), Some(servers[1].memory()?)])
}
