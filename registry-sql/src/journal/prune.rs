//! Removing what the journal need not keep: always the oldest rows, by the database's own clock. The clocks of those who
//! commit have no say in it: one that is slow would have its commits forgotten at once, and one that is fast would keep
//! those before it from going.

use feast_registry_core::{IDENTITY_KEPT_FOR, Retention};

use super::INDEX;
use crate::dialect::Builder;
use crate::tables::JOURNAL;
use crate::{Dialect, Statement, Value};

/// The most rows that are looked at for one removal.
const AT_ONCE: i64 = 500;

/// The statement that removes what need not be kept: of the oldest commits, a few hundred at once, so that nobody waits for it
/// for long. The newest commit always stays.
///
/// MySQL is to find them first ([`prunable`]) and [`remove`] them then: it would lock all that such a statement looks at.
pub fn prune(dialect: Dialect, retention: Retention) -> Statement {
    let mut builder = Builder::new(dialect);
    builder.push(&format!("DELETE FROM {JOURNAL} WHERE revision IN ("));
    select_prunable(&mut builder, retention);
    builder.push(")");
    builder.build()
}

/// The statement that finds what [`prune`] removes: a row for each revision.
pub fn prunable(dialect: Dialect, retention: Retention) -> Statement {
    let mut builder = Builder::new(dialect);
    select_prunable(&mut builder, retention);
    builder.build()
}

/// The statement that removes commits, of which there is at least one, by their revisions. In MySQL, by the index in any
/// case: it locks all rows that it looks at.
pub fn remove(dialect: Dialect, revisions: impl IntoIterator<Item = i64>) -> Statement {
    let mut builder = Builder::new(dialect);
    builder.push(&match dialect {
        Dialect::Sqlite | Dialect::PostgreSql => format!("DELETE FROM {JOURNAL} WHERE revision IN ("),
        Dialect::MySql => format!("DELETE j FROM {JOURNAL} AS j FORCE INDEX ({INDEX}) WHERE j.revision IN ("),
    });
    builder.bind_all(revisions.into_iter().map(Value::BigInteger));
    builder.push(")");
    builder.build()
}

fn select_prunable(builder: &mut Builder, retention: Retention) {
    let now = builder.dialect.now();
    let seconds = |age: std::time::Duration| Value::BigInteger(i64::try_from(age.as_secs()).unwrap_or(i64::MAX / 2));
    builder.push(&format!(
        "SELECT DISTINCT revision FROM (SELECT revision, stored_at FROM {JOURNAL} ORDER BY revision LIMIT {AT_ONCE}) \
         AS oldest WHERE (stored_at < {now} - "
    ));
    builder.bind(seconds(retention.age.max(IDENTITY_KEPT_FOR)));
    builder.push(&format!(" OR (stored_at < {now} - "));
    builder.bind(seconds(IDENTITY_KEPT_FOR));
    let commits = Value::BigInteger(i64::try_from(retention.commits).unwrap_or(i64::MAX));
    builder.push(&format!(
        " AND revision <= (SELECT revision FROM (SELECT revision FROM {JOURNAL} WHERE change_number = 0 \
         ORDER BY revision DESC LIMIT 1 OFFSET "
    ));
    builder.bind(commits);
    builder.push(&format!(
        ") AS beyond))) AND revision < (SELECT newest FROM (SELECT max(revision) AS newest FROM {JOURNAL}) AS last)"
    ));
}
