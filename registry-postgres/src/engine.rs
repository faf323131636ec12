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

    /// Where revisions come from, unless they have to be asked for ([`next_revision`]): transaction ids, which are given when
    /// the locks are held.
    pub(crate) fn revisions(self) -> Option<Revisions> {
        match self {
            Engine::AdvisoryLocks | Engine::Serializable => Some(Revisions::Expression("txid_current()")),
            Engine::Compatible => None,
        }
    }

    /// That a revision has been seen by all that come after: no transaction with a lower one is under way.
    pub(crate) fn seen_by_all(self) -> Option<&'static str> {
        match self {
            Engine::AdvisoryLocks | Engine::Serializable => {
                Some("revision < txid_snapshot_xmin(txid_current_snapshot())")
            }
            Engine::Compatible => None,
        }
    }
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
