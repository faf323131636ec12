//! What an apply costs while the registry grows: feature views are applied one by one, from the first on.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::operation::apply_view;
use crate::report::{Report, median, number, spread};
use crate::sample::{PROJECT, entity};
use crate::server::{Client, Server};
use crate::setup::{Setup, VIEWS, turns};

/// So many views at the start are compared with so many at the end.
const WINDOW: usize = 20;

/// Views that are applied to our server alone; Feast's would take minutes.
const MANY_VIEWS: usize = 2000;

/// Both servers begin with nothing.
pub(crate) async fn measure(setup: &Setup, report: &mut Report) -> Result<()> {
    let mut rows = Vec::new();
    let views = if setup.is_quick { VIEWS / 2 } else { VIEWS };
    eprintln!("applying {views} feature views one by one, by turns");
    match side_by_side(setup, views).await {
        Ok([feast, ours]) => {
            rows.push(row(setup.feast.name(), views, &[feast])?);
            rows.push(row(setup.ours.name(), views, &[ours])?);
        }
        failed => drop(report.take(failed)),
    }
    let mut runs = Vec::new();
    for round in 0..setup.rounds {
        eprintln!("round {}: applying {MANY_VIEWS} feature views one by one to ours", round + 1);
        runs.extend(report.take(ours_alone(setup).await));
    }
    if !runs.is_empty() {
        rows.push(row(setup.ours.name(), MANY_VIEWS, &runs)?);
    }
    report.heading("What an apply costs as the registry grows");
    let (first, last) = (format!("first {WINDOW}, ms each"), format!("last {WINDOW}, ms each"));
    report.table(&["ApplyFeatureView, one by one", &first, &last, "last / first"], &rows);
    Ok(())
}

/// View after view to the one and to the other, so that both meet the same moments. Milliseconds for each view.
async fn side_by_side(setup: &Setup, views: usize) -> Result<[Vec<f64>; 2]> {
    let servers = setup.start_both(0).await?;
    let mut clients = [prepared(setup, &servers[0]).await?, prepared(setup, &servers[1]).await?];
    let mut times = [Vec::new(), Vec::new()];
    for (round, view) in (0..).zip(0..views) {
        for of in turns(round) {
            times[of].push(apply(setup, &mut clients[of], view).await.context(servers[of].name)?);
        }
    }
    for server in servers {
        server.stop().await?;
    }
    Ok(times)
}

async fn ours_alone(setup: &Setup) -> Result<Vec<f64>> {
    let server = setup.start(&setup.ours, 0).await?;
    let mut client = prepared(setup, &server).await?;
    let mut times = Vec::with_capacity(MANY_VIEWS);
    for view in 0..MANY_VIEWS {
        times.push(apply(setup, &mut client, view).await?);
    }
    server.stop().await?;
    Ok(times)
}

/// A client whose project is there already: the first write makes it.
async fn prepared(setup: &Setup, server: &Server) -> Result<Client> {
    let mut client = server.connect().await?;
    let entity = Some(entity(setup.sample.serial()));
    let request =
        feast_registry_server::proto::ApplyEntityRequest { entity, project: PROJECT.to_owned(), commit: true };
    client.apply_entity(request).await.context(server.name)?;
    Ok(client)
}

async fn apply(setup: &Setup, client: &mut Client, number: usize) -> Result<f64> {
    let views = &setup.sample.views;
    let view = views[number % views.len()].named(format!("growing_{number:05}"));
    let began = Instant::now();
    apply_view(client, view).await?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn row(contender: &str, views: usize, runs: &[Vec<f64>]) -> Result<Vec<String>> {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for times in runs {
        ensure!(times.len() >= 2 * WINDOW, "{} views are too few to compare", times.len());
        first.extend(median(times[..WINDOW].to_vec()));
        last.extend(median(times[times.len() - WINDOW..].to_vec()));
    }
    let ratios = first.iter().zip(&last).map(|(first, last)| last / first).collect();
    let figure = |figures: Vec<f64>| median(figures).map(number).unwrap_or_default();
    Ok(vec![format!("{contender}, {views} views"), figure(first), figure(last), spread(ratios)])
}
