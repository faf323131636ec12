//! The Rust API on SQLite without a server, beside the same statements given to SQLite's driver ([`crate::raw`]): what
//! the registry's own layers cost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use feast_registry::{Freshness, Kind, Registry, RegistryConfig};

use crate::operation::hour;
use crate::raw::Raw;
use crate::report::{Pair, Report, both};
use crate::sample::PROJECT;
use crate::setup::{Setup, VIEWS, turns};

#[derive(Debug, Clone, Copy)]
enum Call {
    GetCached,
    Get,
    ApplyMaterialization,
}

impl Call {
    const ALL: [Self; 3] = [Self::GetCached, Self::Get, Self::ApplyMaterialization];

    fn name(self) -> &'static str {
        match self {
            Self::GetCached => "get of a feature view, cached",
            Self::Get => "get of a feature view",
            Self::ApplyMaterialization => "apply_materialization",
        }
    }
}

/// One caller, a copy of the registry for each side.
pub(crate) async fn measure(setup: &Setup, report: &mut Report) -> Result<()> {
    let config = RegistryConfig::new(format!("sqlite:///{}", setup.registry(VIEWS)?.display()).parse()?);
    let registry = feast_registry::open(&config).await?;
    let mut raw = Raw::open(&setup.registry(VIEWS)?)?;
    let mut times = vec![Pair::default(); Call::ALL.len()];
    for round in 0..setup.rounds {
        for (call, times) in Call::ALL.into_iter().zip(&mut times) {
            let mut pair = [None; 2];
            for of in turns(round) {
                let time = match of {
                    0 => through_driver(setup, &mut raw, call),
                    _ => through_api(setup, &registry, call).await,
                };
                pair[of] = report.take(time);
            }
            times.add(pair);
            let [raw, ours] = both(pair);
            eprintln!("round {}: {}: driver {raw} µs, ours {ours} µs", round + 1, call.name());
        }
    }
    report.heading("The Rust API on SQLite, without a server, and the SQLite driver alone (1 caller)");
    let rows: Vec<Vec<String>> = Call::ALL
        .iter()
        .zip(&times)
        .map(|(call, pair)| vec![call.name().to_owned(), pair.figure(0), pair.figure(1), pair.times()])
        .collect();
    report.table(&["", "same statements, rusqlite alone, µs", "registry, µs", "registry / driver"], &rows);
    Ok(())
}

/// Microseconds for each call through the registry.
async fn through_api(setup: &Setup, registry: &Registry, call: Call) -> Result<f64> {
    let mut clock = Clock::start(setup.cell / 2);
    while let Some(view) = clock.next(setup) {
        match call {
            Call::GetCached => {
                registry.get(Kind::FeatureView, PROJECT, view, Freshness::Cached).await?;
            }
            Call::Get => {
                registry.get(Kind::FeatureView, PROJECT, view, Freshness::Stored).await?;
            }
            Call::ApplyMaterialization => {
                let number = setup.sample.serial();
                registry.apply_materialization(PROJECT, view, Some(hour(number)), Some(hour(number + 1))).await?;
            }
        }
    }
    clock.stop()
}

/// Microseconds for each call through the driver. It has no cache: for a cached read it reads.
fn through_driver(setup: &Setup, raw: &mut Raw, call: Call) -> Result<f64> {
    let mut clock = Clock::start(setup.cell / 2);
    while let Some(view) = clock.next(setup) {
        match call {
            Call::GetCached | Call::Get => drop(raw.get(view)?),
            Call::ApplyMaterialization => raw.apply_materialization(view, setup.sample.serial())?,
        }
    }
    clock.stop()
}

/// Counts calls until the time is over.
struct Clock {
    began: Instant,
    duration: Duration,
    calls: usize,
}

impl Clock {
    fn start(duration: Duration) -> Self {
        Self { began: Instant::now(), duration, calls: 0 }
    }

    /// The view for the next call, in turn.
    fn next<'a>(&mut self, setup: &'a Setup) -> Option<&'a str> {
        if self.began.elapsed() >= self.duration {
            return None;
        }
        let views = &setup.sample.views;
        let view = &views[self.calls % views.len()];
        self.calls += 1;
        Some(&view.name)
    }

    fn stop(self) -> Result<f64> {
        ensure!(self.calls > 0, "no call was made");
        Ok(self.began.elapsed().as_secs_f64() * 1e6 / self.calls as f64)
    }
}
