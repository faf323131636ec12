//! Calls per second, memory and start of both servers.

use anyhow::Result;

use crate::cells::{CALLERS, Cells};
use crate::operation::Operation;
use crate::report::{Pair, Report};
use crate::server::Server;
use crate::setup::{Setup, VIEWS};

/// Starts both servers anew in each round, so that writes of one round are not in the way of the next.
pub(crate) async fn measure(setup: &Setup, report: &mut Report) -> Result<()> {
    let mut cells = Cells::new(["Feast", "ours"], &Operation::ALL, &CALLERS);
    let operations = cells.operations();
    let [mut start_up, mut idle, mut read, mut written] = std::array::from_fn(|_| Pair::default());
    for round in 0..setup.rounds {
        let servers = setup.start_both(VIEWS).await?;
        start_up.add([0, 1].map(|of| Some(servers[of].start_up.as_secs_f64() * 1e3)));
        idle.add(memory(&servers)?);
        for index in 0..operations.len() {
            if index > 0 && operations[index].is_write() && !operations[index - 1].is_write() {
                read.add(memory(&servers)?);
            }
            cells.measure(index, round, &servers, setup, report).await;
        }
        written.add(memory(&servers)?);
        for server in servers {
            server.stop().await?;
        }
    }

    cells.report("", report);
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
