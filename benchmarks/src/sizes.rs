//! What an apply costs in registries of different sizes.

use anyhow::Result;

use crate::load;
use crate::operation::Operation;
use crate::report::{Pair, Report, both};
use crate::setup::{Setup, turns};

/// All sizes are served at once, and measured in turns.
pub(crate) async fn measure(setup: &Setup, report: &mut Report) -> Result<()> {
    let mut servers = Vec::new();
    for &views in &setup.sizes {
        servers.push((views, setup.start_both(views).await?));
    }
    let mut rates = vec![Pair::default(); servers.len()];
    for round in 0..setup.rounds {
        for ((views, servers), rates) in servers.iter().zip(&mut rates) {
            let mut pair = [None; 2];
            for of in turns(round) {
                let measured =
                    load::measure(&servers[of], &setup.sample, Operation::ApplyEntity, 1, setup.cell / 2).await;
                pair[of] = report.take(measured).map(|work| work.rate);
            }
            rates.add(pair);
            let [feast, ours] = both(pair);
            eprintln!("round {}: ApplyEntity beside {views} views: Feast {feast}/s, ours {ours}/s", round + 1);
        }
    }
    report.heading("ApplyEntity per second, by the size of the registry (1 caller)");
    let rows: Vec<Vec<String>> = servers
        .iter()
        .zip(&rates)
        .map(|((views, _), pair)| vec![format!("{views} feature views"), pair.figure(0), pair.figure(1), pair.times()])
        .collect();
    report.table(&["", "Feast", "ours", "ours / Feast"], &rows);
    for server in servers.into_iter().flat_map(|(_, servers)| servers) {
        server.stop().await?;
    }
    Ok(())
}
