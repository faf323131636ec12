//! Feast's registry server and this one, side by side, on equal data: `cargo xtask bench` runs it.
//!
//! Both serve a copy of one SQLite file that Feast's own SDK has filled, from the same feature_store.yaml. They are
//! measured in turns, one cell of a table after the other, in several rounds; a figure is the median of the rounds, and a
//! ratio is the median of the rounds' own ratios. So a busy machine shifts both, and hardly the ratio.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command line tool")]

mod cells;
mod databases;
mod direct;
mod files;
mod following;
mod growth;
mod load;
mod machine;
mod operation;
mod permissions;
mod raw;
mod report;
mod rest;
mod sample;
mod server;
mod setup;
mod side_by_side;
mod sizes;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::report::Report;
use crate::setup::Setup;

/// Measures Feast's registry server and this one, side by side, and prints Markdown.
#[derive(Debug, Parser)]
#[command(name = "benchmarks", max_term_width = 100)]
pub(crate) struct Arguments {
    /// A Python interpreter that has Feast.
    #[arg(long)]
    python: PathBuf,

    /// The binary `feast-registry`.
    #[arg(long)]
    server: PathBuf,

    /// Where the registries are put while this runs. Writes are as fast as this folder's disk.
    #[arg(long)]
    folder: PathBuf,

    /// About a minute: one round of short cells, and no large registries.
    #[arg(long)]
    quick: bool,

    /// How often each cell is measured [default: 3; 1 with --quick].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// How long a cell is measured, in seconds [default: 2; 0.5 with --quick].
    #[arg(long)]
    seconds: Option<f64>,

    /// Only these parts [default: all; databases if --database names one].
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,

    /// A database server to measure on too: the URL of a database whose user may create others. May be repeated.
    #[arg(long, value_name = "URL")]
    database: Vec<String>,
}

/// A part of the benchmark, which makes a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Calls per second of both servers, their memory and their start.
    Servers,
    /// What an apply costs while a registry grows.
    Growth,
    /// What an apply costs in registries of different sizes.
    Sizes,
    /// Applies to a registry file of 5 MB: Feast's Registry class and the Rust API.
    Files,
    /// The Rust API on SQLite, and the same statements given to SQLite's driver.
    Direct,
    /// What it costs a server that another one has written, and when it shows there.
    Following,
    /// What it costs to ask callers who they are, and what they may.
    Permissions,
    /// Calls per second of both REST servers, and of ours beside 10,000 feature views.
    Rest,
    /// Calls per second on database servers, and what an apply costs beside 10 and 10,000 feature views.
    Databases,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures until done, or until told to stop. What is dropped then kills the servers and removes their files.
async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt()).context("Ctrl-C cannot be caught")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?;
    let report = tokio::select! {
        report = measure(arguments) => report?,
        _ = interrupt.recv() => return Ok(interrupted()),
        _ = terminate.recv() => return Ok(interrupted()),
    };
    println!("{}", report.text());
    if report.failures().is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: calls failed, which makes the figures of their cells worthless:");
    report.failures().iter().for_each(|failure| eprintln!("  {failure}"));
    Ok(ExitCode::FAILURE)
}

fn interrupted() -> ExitCode {
    eprintln!("interrupted");
    ExitCode::from(130)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let setup = Setup::make(arguments, wanted(Part::Sizes)).await?;
    let mut report = Report::new(&setup);
    if wanted(Part::Servers) {
        side_by_side::measure(&setup, &mut report).await?;
    }
    if wanted(Part::Growth) {
        growth::measure(&setup, &mut report).await?;
    }
    if wanted(Part::Sizes) {
        sizes::measure(&setup, &mut report).await?;
    }
    if wanted(Part::Files) {
        files::measure(&setup, &mut report).await?;
    }
    if wanted(Part::Following) {
        following::measure(&setup, &mut report).await?;
    }
    if wanted(Part::Permissions) {
        permissions::measure(&setup, &mut report).await?;
    }
    if wanted(Part::Rest) {
        rest::measure(&setup, &mut report).await?;
    }
    if wanted(Part::Direct) {
        direct::measure(&setup, &mut report).await?;
    }
    if arguments.only.contains(&Part::Databases) || (arguments.only.is_empty() && !arguments.database.is_empty()) {
        databases::measure(&setup, &arguments.database, &mut report).await?;
    }
    Ok(report)
}
