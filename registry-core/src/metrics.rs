//! What a registry measures: the names of its metrics, and what they say.
//!
//! They are recorded with the crate `metrics`, so that whoever embeds a registry chooses where they go, and measuring costs next
//! to nothing where they go nowhere. A recorder is to be installed before the registry is opened.
//!
//! Labels have few values: no name of a project, an object or a caller is ever one.

use metrics::Unit;

/// How a metric is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It grows and shrinks.
    Gauge,
    /// How values are spread.
    Histogram,
}

/// A metric and what it says.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Metric {
    /// Its name, as Prometheus's conventions have it.
    pub name: &'static str,
    /// How it is to be read.
    pub kind: MetricKind,
    /// What it is counted in, if not in things.
    pub unit: Option<Unit>,
    /// What it says, and what its labels do.
    pub help: &'static str,
}

impl Metric {
    /// Something that only grows.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: MetricKind::Counter, unit: None, help }
    }

    /// Something that grows and shrinks.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: MetricKind::Gauge, unit: None, help }
    }

    /// How long something takes, in seconds.
    pub const fn seconds(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: MetricKind::Histogram, unit: Some(Unit::Seconds), help }
    }

    /// The same, counted in something.
    #[must_use]
    pub const fn counted_in(mut self, unit: Unit) -> Self {
        self.unit = Some(unit);
        self
    }

    /// Tells the recorder what it says, for whoever reads it.
    pub fn describe(&self) {
        let (name, help) = (self.name, self.help);
        match (self.kind, self.unit) {
            (MetricKind::Counter, None) => metrics::describe_counter!(name, help),
            (MetricKind::Counter, Some(unit)) => metrics::describe_counter!(name, unit, help),
            (MetricKind::Gauge, None) => metrics::describe_gauge!(name, help),
            (MetricKind::Gauge, Some(unit)) => metrics::describe_gauge!(name, unit, help),
            (MetricKind::Histogram, None) => metrics::describe_histogram!(name, help),
            (MetricKind::Histogram, Some(unit)) => metrics::describe_histogram!(name, unit, help),
        }
    }
}

/// What a registry asked its storage to do, by `operation` (`read`, `commit`, `journal`, `prepare`, `remove`), `storage`
/// (`primary`, `replica`) and `outcome`: `ok`, `conflict`, or the kind of the error.
pub const STORAGE_OPERATIONS: Metric = Metric::counter(
    "feast_registry_storage_operations_total",
    "Calls to the storage, by operation, storage (primary or replica) and outcome (ok, conflict, or the kind of error)",
);
/// How long that took, retries included, by `operation` and `storage`.
pub const STORAGE_SECONDS: Metric = Metric::seconds(
    "feast_registry_storage_operation_seconds",
    "How long calls to the storage took, retries included, by operation and storage",
);
/// Attempts that a SQL backend made again, by `reason`: `connection`, `serialization`, `tables`, `outcome` (that of a commit
/// whose answer was lost).
pub const STORAGE_RETRIES: Metric = Metric::counter(
    "feast_registry_storage_retries_total",
    "Attempts on the database that were made again, by reason (connection, serialization, tables, outcome)",
);
/// Commits whose answer was lost, so that it had to be found out what became of them.
pub const LOST_ANSWERS: Metric = Metric::counter(
    "feast_registry_lost_answers_total",
    "Commits whose answer was lost, so that the registry had to find out what became of them",
);
/// Connections of a pool, by `database` and `state` (`idle`, `in_use`).
pub const POOL_CONNECTIONS: Metric = Metric::gauge(
    "feast_registry_pool_connections",
    "Connections to the database, by database and state (idle, in_use)",
);
/// The most connections that a pool may have, by `database`.
pub const POOL_LIMIT: Metric =
    Metric::gauge("feast_registry_pool_limit", "The most connections to the database that there may be, by database");
/// How long callers waited for a connection, by `database`.
pub const POOL_WAIT_SECONDS: Metric = Metric::seconds(
    "feast_registry_pool_wait_seconds",
    "How long callers waited for a connection to the database, by database",
);
/// Refreshes of the cache, by `outcome` (`ok`, `error`).
pub const CACHE_REFRESHES: Metric =
    Metric::counter("feast_registry_cache_refreshes_total", "Refreshes of the cache, by outcome (ok, error)");
/// Entries of the journal that were taken into the cache.
pub const JOURNAL_FOLLOWED: Metric = Metric::counter(
    "feast_registry_journal_followed_entries_total",
    "Entries of the journal that were taken into the cache, of this process and of others",
);
/// Changes that were made by writers who keep no journal, and found.
pub const OUTSIDE_CHANGES: Metric = Metric::counter(
    "feast_registry_outside_changes_total",
    "Changes that were found in the storage and are in no journal: made by Feast's own registries, or by hand",
);
/// How long refreshes took.
pub const CACHE_REFRESH_SECONDS: Metric =
    Metric::seconds("feast_registry_cache_refresh_seconds", "How long refreshes of the cache took that succeeded");
/// When the cache was last as the storage was.
pub const CACHE_REFRESHED: Metric = Metric::gauge(
    "feast_registry_cache_refreshed_timestamp_seconds",
    "When the cache was last as the storage was, in seconds since 1970 (UTC)",
)
.counted_in(Unit::Seconds);
/// How many objects the cache holds.
pub const CACHE_OBJECTS: Metric =
    Metric::gauge("feast_registry_cache_objects", "Objects in the cache, as of its last refresh");
/// How many bytes these objects have.
pub const CACHE_BYTES: Metric =
    Metric::gauge("feast_registry_cache_bytes", "Serialized bytes of the objects in the cache, as of its last refresh")
        .counted_in(Unit::Bytes);
/// The highest revision of the journal that this process was told.
pub const JOURNAL_REVISION: Metric = Metric::gauge(
    "feast_registry_journal_revision",
    "The highest revision of the journal that a commit of this process was given",
);
/// Stored objects that cannot be decoded.
pub const UNDECODABLE: Metric = Metric::gauge(
    "feast_registry_undecodable_objects",
    "Stored objects that reads have met and that cannot be decoded; they are left out of lists",
);

/// All metrics of a registry.
pub const ALL: &[Metric] = &[
    STORAGE_OPERATIONS,
    STORAGE_SECONDS,
    STORAGE_RETRIES,
    LOST_ANSWERS,
    POOL_CONNECTIONS,
    POOL_LIMIT,
    POOL_WAIT_SECONDS,
    CACHE_REFRESHES,
    JOURNAL_FOLLOWED,
    OUTSIDE_CHANGES,
    CACHE_REFRESH_SECONDS,
    CACHE_REFRESHED,
    CACHE_OBJECTS,
    CACHE_BYTES,
    JOURNAL_REVISION,
    UNDECODABLE,
];
