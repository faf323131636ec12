//! The load: callers who each make the next call when the answer to the last one is there.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::sample::Sample;
use crate::server::Server;

/// How much longer than planned a cell may take: sixteen callers of a server that needs seconds for a call do.
const PATIENCE: Duration = Duration::from_secs(180);

/// A kind of call.
pub(crate) trait Call: fmt::Display + Copy + Send + 'static {
    /// Who makes it, over a connection of its own.
    type Caller: Send + 'static;

    /// Connects caller `number` of `count`.
    async fn connect(self, server: &Server, sample: &Arc<Sample>, number: usize, count: usize) -> Result<Self::Caller>;

    /// Makes one call and waits for the answer.
    fn make(self, caller: &mut Self::Caller) -> impl Future<Output = Result<()>> + Send;
}

/// What a server did for its callers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Throughput {
    /// Calls that it answered per second.
    pub(crate) rate: f64,
    /// Microseconds of processor time that its process used for each, where the system tells. That hardly depends on
    /// what else the machine does, the callers included.
    pub(crate) cost: Option<f64>,
}

/// Has so many callers call a server. A call that fails is an error.
pub(crate) async fn measure(
    server: &Server,
    sample: &Arc<Sample>,
    operation: impl Call,
    callers: usize,
    duration: Duration,
) -> Result<Throughput> {
    let load = tokio::time::timeout(duration + PATIENCE, load(server, sample, operation, callers, duration));
    load.await
        .context("it takes too long")
        .flatten()
        .with_context(|| format!("{operation}, callers: {callers}, server: {}", server.name))
}

async fn load(
    server: &Server,
    sample: &Arc<Sample>,
    operation: impl Call,
    callers: usize,
    duration: Duration,
) -> Result<Throughput> {
    let mut ready = Vec::with_capacity(callers);
    for number in 0..callers {
        ready.push(operation.connect(server, sample, number, callers).await?);
    }
    // The first call of a kind may find caches cold.
    if let Some(first) = ready.first_mut() {
        operation.make(first).await?;
    }
    let used = server.processor_time();
    let began = Instant::now();
    let mut tasks: JoinSet<Result<u64>> = JoinSet::new();
    for mut caller in ready {
        tasks.spawn(async move {
            let mut calls = 0;
            while began.elapsed() < duration {
                operation.make(&mut caller).await?;
                calls += 1;
            }
            Ok(calls)
        });
    }
    let mut calls = 0;
    while let Some(done) = tasks.join_next().await {
        calls += done??;
    }
    // Until the last answer: calls that began in time are counted, and so is the time that they took.
    let rate = calls as f64 / began.elapsed().as_secs_f64();
    let used = used.zip(server.processor_time()).map(|(before, after)| after.saturating_sub(before));
    Ok(Throughput { rate, cost: used.map(|used| used.as_secs_f64() * 1e6 / calls as f64) })
}
