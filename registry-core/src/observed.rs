//! A backend whose calls are measured and traced.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use metrics::Counter;
use tokio::time::Instant;
use tracing::Instrument;

use crate::backend::{Backend, Commit, Limits, Outcome, Query, Record};
use crate::deadline::Deadline;
use crate::error::{ErrorKind, Result};
use crate::journal::{JournalEntry, JournalQuery, Retention, Revision};
use crate::metrics::{JOURNAL_REVISION, STORAGE_OPERATIONS, STORAGE_SECONDS};

/// The target of the spans of calls to a storage. They are meant for traces, not for the log, and cost next to nothing where
/// nobody subscribes to it.
pub const STORAGE_SPANS: &str = "feast_registry::trace::storage";

const COMMIT: &str = "commit";

/// See the module's documentation.
pub(crate) struct Observed {
    inner: Arc<dyn Backend>,
    /// `primary` or `replica`.
    storage: &'static str,
    highest: AtomicU64,
}

impl Observed {
    pub(crate) fn new(inner: Arc<dyn Backend>, storage: &'static str) -> Self {
        // Whoever is to be alarmed by the first of these needs a series that begins before it.
        for outcome in ["ok", "conflict", name_of(ErrorKind::UnknownOutcome)] {
            operations(COMMIT, storage, outcome).increment(0);
        }
        Self { inner, storage, highest: AtomicU64::new(0) }
    }

    async fn observe<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>>,
        outcome: impl FnOnce(&T) -> &'static str,
    ) -> Result<T> {
        let began = Instant::now();
        let span = tracing::info_span!(
            target: STORAGE_SPANS,
            "storage",
            otel.name = operation,
            otel.kind = "client",
            otel.status_code = tracing::field::Empty,
            db.operation.name = operation,
            feast_registry.storage = self.storage,
            feast_registry.outcome = tracing::field::Empty,
        );
        let result = call.instrument(span.clone()).await;
        let outcome = match &result {
            Ok(value) => outcome(value),
            Err(error) => {
                span.record("otel.status_code", "ERROR");
                name_of(error.kind())
            }
        };
        span.record("feast_registry.outcome", outcome);
        metrics::histogram!(STORAGE_SECONDS.name, "operation" => operation, "storage" => self.storage)
            .record(began.elapsed());
        operations(operation, self.storage, outcome).increment(1);
        result
    }

    fn note_revision(&self, revision: Option<Revision>) {
        if let Some(revision) = revision.map(Revision::number)
            && self.highest.fetch_max(revision, Ordering::Relaxed) < revision
        {
            metrics::gauge!(JOURNAL_REVISION.name).set(revision as f64);
        }
    }
}

fn operations(operation: &'static str, storage: &'static str, outcome: &'static str) -> Counter {
    metrics::counter!(STORAGE_OPERATIONS.name, "operation" => operation, "storage" => storage, "outcome" => outcome)
}

/// A kind of error as the value of a label.
fn name_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Overloaded => "overloaded",
        ErrorKind::DeadlineExceeded => "deadline_exceeded",
        ErrorKind::UnknownOutcome => "unknown_outcome",
        ErrorKind::Conflict => "conflict",
        ErrorKind::ReadOnly => "read_only",
        ErrorKind::SchemaMissing => "schema_missing",
        ErrorKind::Compacted => "compacted",
        ErrorKind::Corrupt => "corrupt",
        _ => "other_error",
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl Backend for Observed {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        self.observe("prepare", self.inner.prepare(deadline), |()| "ok").await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        self.observe("read", self.inner.read(queries, deadline), |_| "ok").await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        let outcome = |outcome: &Outcome| if outcome.is_committed() { "ok" } else { "conflict" };
        let result = self.observe(COMMIT, self.inner.commit(commit, deadline), outcome).await;
        if let Ok(Outcome::Committed { revision }) = &result {
            self.note_revision(*revision);
        }
        result
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        self.observe("journal", self.inner.journal(query, deadline), |_| "ok").await
    }

    async fn newest_revision(&self, deadline: &Deadline) -> Result<Option<Revision>> {
        self.observe("newest_revision", self.inner.newest_revision(deadline), |_| "ok").await
    }

    async fn wait_for_commit(&self, after: Option<Revision>, deadline: &Deadline) {
        // It is no answer of the storage, so there is nothing to measure.
        self.inner.wait_for_commit(after, deadline).await;
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        self.observe("prune", self.inner.prune_journal(retention, deadline), |_| "ok").await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        self.observe("remove", self.inner.remove_if_empty(deadline), |_| "ok").await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
