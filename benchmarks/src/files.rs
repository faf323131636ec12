//! Applies to a registry in one local file of 5 MB: Feast's `Registry` class in Python, and the Rust API. Both sync the file
//! to the disk before they acknowledge.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use feast_registry::{
    ApplyOptions, FileBackend, Freshness, Kind, ListFilter, Object, Registry, RegistryOptions, SchemaMode,
};

use crate::report::{Pair, Report, both, number};
use crate::sample::{PROJECT, entity};
use crate::setup::{Setup, read, turns};

/// So many writers at once.
const WRITERS: [usize; 2] = [1, 64];

/// How large the registry is, in bytes.
const SIZE: u64 = 5_000_000;

/// What became of the applies of one cell.
#[derive(Debug, Clone, Copy)]
struct Applies {
    acknowledged: f64,
    kept: f64,
    seconds: f64,
}

/// A copy of the same file for each side and cell.
pub(crate) async fn measure(setup: &Setup, report: &mut Report) -> Result<()> {
    let seed = setup.registry(0)?;
    fill(setup, &seed).await?;
    let mut rates = vec![Pair::default(); WRITERS.len()];
    let mut kept = rates.clone();
    let mut writes = Vec::new();
    for round in 0..setup.rounds {
        for (cell, &writers) in WRITERS.iter().enumerate() {
            let mut applies = [None; 2];
            for of in turns(round) {
                let file = setup.registry(0)?;
                std::fs::copy(&seed, &file)?;
                let measured = match of {
                    0 => feast(setup, &file, writers).await,
                    _ => ours(setup, &file, writers).await.map(|(applies, per_apply)| {
                        writes.push((writers, per_apply));
                        applies
                    }),
                };
                applies[of] = report.take(measured);
            }
            let rate = applies.map(|applies| applies.map(|applies| applies.acknowledged / applies.seconds));
            rates[cell].add(rate);
            kept[cell].add(applies.map(|applies| applies.map(|applies| 100.0 * applies.kept / applies.acknowledged)));
            let [feast, ours] = both(rate);
            eprintln!("round {}: file, writers: {writers}: Feast {feast}/s, ours {ours}/s", round + 1);
        }
    }
    let size = std::fs::metadata(&seed)?.len() as f64 / 1e6;
    report.heading(&format!("Applies to a registry file of {} MB, acknowledged per second", number(size)));
    let row = |(cell, &writers): (usize, &usize)| {
        let per_apply = writes.iter().filter(|(of, _)| *of == writers).map(|(_, per_apply)| *per_apply).collect();
        vec![
            writers.to_string(),
            rates[cell].figure(0),
            rates[cell].figure(1),
            rates[cell].times(),
            format!("{} %", kept[cell].figure(0)),
            format!("{} %", kept[cell].figure(1)),
            crate::report::median(per_apply).map_or_else(String::new, number),
        ]
    };
    let columns = ["writers", "Feast", "ours", "ours / Feast", "kept, Feast", "kept, ours", "writes per apply, ours"];
    report.table(&columns, &WRITERS.iter().enumerate().map(row).collect::<Vec<_>>());
    Ok(())
}

/// Makes the file that both start from.
async fn fill(setup: &Setup, file: &Path) -> Result<()> {
    let registry =
        Registry::open(Arc::new(FileBackend::local(file, SchemaMode::Auto)), RegistryOptions::default()).await?;
    for copy in 0.. {
        let views = setup.sample.views.iter().map(|view| Object::from(view.named(format!("{}_{copy:03}", view.name))));
        registry.apply_all(PROJECT, views.collect(), ApplyOptions::default()).await?;
        if std::fs::metadata(file)?.len() > SIZE {
            break;
        }
    }
    Ok(())
}

async fn feast(setup: &Setup, file: &Path, writers: usize) -> Result<Applies> {
    let mut command = setup.feast.command("file-applies");
    command.arg(file).arg(writers.to_string()).arg(setup.cell.as_secs_f64().to_string());
    let answer = read(command).await?;
    let last = answer.lines().last().unwrap_or_default();
    let numbers: Vec<f64> = last.split(' ').filter_map(|word| word.parse().ok()).collect();
    let &[acknowledged, kept, seconds] = &numbers[..] else { anyhow::bail!("Feast's side answered `{last}`") };
    ensure!(acknowledged > 0.0, "Feast acknowledged no apply");
    Ok(Applies { acknowledged, kept, seconds })
}

/// Also how often the file was written for each apply.
async fn ours(setup: &Setup, file: &Path, writers: usize) -> Result<(Applies, f64)> {
    let backend = Arc::new(FileBackend::local(file, SchemaMode::Auto));
    let registry = Registry::open(Arc::clone(&backend) as Arc<_>, RegistryOptions::default()).await?;
    let before = backend.statistics();
    let (began, numbers) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (registry, numbers, cell) = (registry.clone(), Arc::clone(&numbers), setup.cell);
            tokio::spawn(async move {
                while began.elapsed() < cell {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    registry.apply(PROJECT, entity(number as i64)).await?;
                }
                Ok::<(), feast_registry::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.context("a writer")??;
    }
    let seconds = began.elapsed().as_secs_f64();
    let acknowledged = numbers.load(Ordering::Relaxed) as f64;
    let after = backend.statistics();
    // As another process finds it.
    let anew = Registry::open(Arc::new(FileBackend::local(file, SchemaMode::Auto)), RegistryOptions::default()).await?;
    let kept = anew.list(Kind::Entity, Some(PROJECT), &ListFilter::default(), Freshness::Stored).await?.len() as f64;
    Ok((Applies { acknowledged, kept, seconds }, (after.writes - before.writes) as f64 / acknowledged))
}
