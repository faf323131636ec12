//! Calls per second, memory and start of both servers.

use anyhow::Result;

use crate::load;
use crate::operation::Operation;
use crate::report::{Pair, Report, number};
use crate::server::Server;
use crate::setup::{Setup, VIEWS, turns};

/// So many callers at once.
const CALLERS: [usize; 2] = [1, 16];

/// Starts both servers anew in each round, so that writes of one round are not in the way of the next.
pub(crate) async fn measure(setup: &Setup, report: &mut Report) -> Result<()> {
    let cells: Vec<(Operation, usize)> =
        Operation::ALL.into_iter().flat_map(|operation| CALLERS.map(|callers| (operation, callers))).collect();
    let mut rates = vec![Pair::default(); cells.len()];
    let [mut start_up, mut idle, mut read, mut written] = std::array::from_fn(|_| Pair::default());
    for round in 0..setup.rounds {
        let servers = setup.start_both(VIEWS).await?;
        start_up.add([0, 1].map(|of| Some(servers[of].start_up.as_secs_f64() * 1e3)));
        idle.add(memory(&servers)?);
        for (index, &(operation, callers)) in cells.iter().enumerate() {
            if index > 0 && operation.is_write() && !cells[index - 1].0.is_write() {
                read.add(memory(&servers)?);
            }
            let mut pair = [None; 2];
            for of in turns(round) {
                let rate = load::rate(&servers[of], &setup.sample, operation, callers, setup.cell).await;
                pair[of] = report.take(rate);
            }
            rates[index].add(pair);
            let [feast, ours] = pair.map(|rate| rate.map_or_else(|| "failed".to_owned(), number));
            eprintln!("round {}: {operation}, callers: {callers}: Feast {feast}/s, ours {ours}/s", round + 1);
        }
        written.add(memory(&servers)?);
        for server in servers {
            server.stop().await?;
        }
    }

    report.heading("Calls per second");
    let rows: Vec<Vec<String>> = cells
        .iter()
        .zip(&rates)
        .map(|((operation, callers), pair)| {
            vec![operation.to_string(), callers.to_string(), pair.figure(0), pair.figure(1), pair.times()]
        })
        .collect();
    report.table(&["call", "callers", "Feast", "ours", "ours / Feast"], &rows);

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
