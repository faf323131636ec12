//! What databases that speak PostgreSQL's protocol can do.

use feast_registry_sql::JOURNAL;
use feast_registry_sql::journal::Revisions;

/// What a database can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// PostgreSQL. Commits wait for one another at advisory locks.
    AdvisoryLocks,
    /// PostgreSQL. Commits run at SERIALIZABLE, and those that met are run again.
    Serializable,
    /// Something compatible that has neither advisory locks nor PostgreSQL's transaction ids. Commits run at SERIALIZABLE.
    Compatible,
}

impl Engine {
    /// That of a server which says this of itself. Aurora and AlloyDB are PostgreSQL in this.
    pub(crate) fn of(version: &str, is_serializable: bool) -> Self {
        match () {
            () if ["CockroachDB", "-YB-", "Yugabyte"].iter().any(|other| version.contains(other)) => Engine::Compatible,
            () if is_serializable => Engine::Serializable,
            () => Engine::AdvisoryLocks,
        }
    }

    pub(crate) fn has_advisory_locks(self) -> bool {
        self == Engine::AdvisoryLocks
    }

    /// How transactions are kept apart. With locks, each statement must see what was committed before it got them.
    pub(crate) fn level(self) -> &'static str {
        match self {
            Engine::AdvisoryLocks => "ISOLATION LEVEL READ COMMITTED",
            Engine::Serializable | Engine::Compatible => "ISOLATION LEVEL SERIALIZABLE",
        }
    }

    /// How a read is kept apart where one statement by itself is not enough: a snapshot that SERIALIZABLE knows nothing of may
    /// show what no order of the commits explains. (the conformance suite's `histories`) With locks, their order is that in
    /// which the commits take place. A standby refuses SERIALIZABLE, so there a read is a snapshot.
    pub(crate) fn read_level(self, is_standby: bool) -> Option<&'static str> {
        match self {
            Engine::AdvisoryLocks => None,
            Engine::Serializable | Engine::Compatible => (!is_standby).then(|| self.level()),
        }
    }

    /// Where revisions come from, unless they have to be asked for ([`next_revision`]): transaction ids, which are given when
    /// the locks are held.
    pub(crate) fn revisions(self) -> Option<Revisions> {
        match self {
            Engine::AdvisoryLocks | Engine::Serializable => Some(Revisions::Expression("txid_current()")),
            Engine::Compatible => None,
        }
    }

    /// Whether a lower revision may be committed after a higher one.
    pub(crate) fn commits_out_of_order(self) -> bool {
        self != Engine::Compatible
    }
}

/// A condition on a revision: that of [`settled`], in a later statement of the same transaction.
pub(crate) const IS_SETTLED: &str = "revision < current_setting('feast_registry.settled')::bigint";

/// Notes below which revision no commit is under way, so that the statements that follow see all of those that took place.
/// A transaction gets its id after it has locked the journal's table, and lets go of the table when others see what it did.
/// So those that hold the table now are all that could yet commit with an id that was given before; what else is under way
/// on the server, in other databases too, is of no concern. A replica knows of no such locks, so there it is.
pub(crate) fn settled() -> String {
    format!(
        "SELECT set_config('feast_registry.settled', (CASE WHEN pg_is_in_recovery() THEN txid_snapshot_xmin(now) \
         ELSE least(txid_snapshot_xmax(now), (SELECT min(CASE WHEN age < 2147483648 THEN txid_snapshot_xmax(now) - age END) \
         FROM (SELECT (txid_snapshot_xmax(now) - own.transactionid::text::bigint) & 4294967295 AS age \
         FROM pg_locks AS journal JOIN pg_locks AS own ON own.virtualtransaction = journal.virtualtransaction \
         AND own.locktype = 'transactionid' AND own.mode = 'ExclusiveLock' AND own.granted \
         WHERE journal.locktype = 'relation' AND journal.relation = '{JOURNAL}'::regclass \
         AND journal.mode = 'RowExclusiveLock' AND journal.granted) AS under_way)) END)::text, true) \
         FROM (SELECT txid_current_snapshot() AS now) AS moment"
    )
}

/// What a transaction at SERIALIZABLE asks for its revision: no other has read the same and is committed.
pub(crate) fn next_revision() -> String {
    format!("SELECT coalesce(max(revision), 0) + 1 FROM {JOURNAL}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_transaction_ids_is_told_by_its_version_whatever_the_isolation_level() {
        let postgres = "PostgreSQL 17.6 (Debian 17.6-1) on x86_64-pc-linux-gnu";
        assert_eq!(Engine::of(postgres, false), Engine::AdvisoryLocks);
        assert_eq!(Engine::of(postgres, true), Engine::Serializable);
        for version in ["CockroachDB CCL v25.2.1 (x86_64-pc-linux-gnu)", "PostgreSQL 15.12-YB-2.25.2.0-b0 on x86_64"] {
            for is_serializable in [false, true] {
                assert_eq!(Engine::of(version, is_serializable), Engine::Compatible);
            }
        }
    }
}
