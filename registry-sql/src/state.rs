//! Whether a database has a journal, and when it is next to be pruned.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use feast_registry_core::Retention;

use crate::{Dialect, create_table, journal};

/// How many commits of a process are between two prunings.
const PRUNE_EVERY: u64 = 256;

/// Whether there is a journal, as far as is known: there is until it was looked for in vain.
#[derive(Debug)]
pub struct JournalState {
    dialect: Dialect,
    retention: Retention,
    table_options: OnceLock<String>,
    /// Why there is none.
    missing: Mutex<Option<String>>,
    commits: AtomicU64,
    is_being_pruned: Arc<AtomicBool>,
}

/// That the journal is being pruned by this process. Another pruning may begin when this is dropped, however it ends.
#[derive(Debug)]
pub struct Pruning(Arc<AtomicBool>);

impl Drop for Pruning {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl JournalState {
    /// A journal that has not been looked for.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            retention: Retention::default(),
            table_options: OnceLock::new(),
            missing: Mutex::default(),
            commits: AtomicU64::new(0),
            is_being_pruned: Arc::default(),
        }
    }

    /// How much is kept.
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// Keeps so much.
    pub fn set_retention(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// Makes the tables with these options at the end of `CREATE TABLE`. The first ones count.
    pub fn set_table_options(&self, options: impl FnOnce() -> String) {
        self.table_options.get_or_init(options);
    }

    fn missing(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether commits are written with a journal.
    pub fn is_kept(&self) -> bool {
        self.missing().is_none()
    }

    /// The table was found.
    pub fn is_there(&self) {
        *self.missing() = None;
    }

    /// The table is missing and cannot be made, and why. Says so in the log, with what to do about it.
    pub fn is_missing(&self, location: &str, why: &str) {
        let mut missing = self.missing();
        if missing.is_none() {
            let statements = self.definition();
            let names: Vec<&str> = journal::tables(self.dialect).iter().map(|table| table.name).collect();
            let said = format!(
                "the journal ({}) is missing and cannot be made: {why}. Without it there is no history, and a write whose \
                 answer is lost has an unknown outcome. Run these statements and open the registry again: {statements}",
                names.join(" and ")
            );
            tracing::warn!(location, "{said}");
            *missing = Some(said);
        }
    }

    /// The promises that cannot be kept, for [`Limits::unkept`](feast_registry_core::Limits::unkept).
    pub fn unkept(&self) -> Vec<String> {
        self.missing().iter().cloned().collect()
    }

    /// The statements that make the tables, as a person runs them, and which rights on them the registry needs.
    fn definition(&self) -> String {
        let options = self.table_options.get().map_or("", String::as_str);
        let tables = journal::tables(self.dialect);
        let mut statements: Vec<_> =
            tables.iter().flat_map(|table| create_table(self.dialect, table, options)).collect();
        if self.dialect == Dialect::MySql {
            statements.push(journal::make_head().text);
        }
        let mut definition = String::new();
        for statement in &statements {
            definition.push_str(&statement.replace(['\n', '\t'], " "));
            definition.push_str("; ");
        }
        if self.dialect != Dialect::Sqlite {
            let names: Vec<&str> = tables.iter().map(|table| table.name).collect();
            definition.push_str(
                "-- beside the table projects; the registry's user needs SELECT, INSERT, UPDATE and DELETE on ",
            );
            definition.push_str(&names.join(" and "));
        }
        definition.trim_end().to_owned()
    }

    /// Begins a pruning, unless one is under way in this process.
    pub fn begin_pruning(&self) -> Option<Pruning> {
        (!self.is_being_pruned.swap(true, Ordering::AcqRel)).then(|| Pruning(Arc::clone(&self.is_being_pruned)))
    }

    /// Notes a commit; whether it is time to prune.
    pub(crate) fn is_pruning_due(&self) -> bool {
        self.is_kept() && self.commits.fetch_add(1, Ordering::Relaxed).is_multiple_of(PRUNE_EVERY)
    }
}
