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

/// [`IDENTITY_KEPT_FOR`] in seconds.
const DAY: u64 = IDENTITY_KEPT_FOR.as_secs();

/// The statement that removes what need not be kept: of the oldest commits, a few hundred at once, so that nobody waits for it
/// for long. The newest commits always stay.
///
/// MySQL is to find them first ([`prunable`]) and [`remove`] them then: it would lock all that such a statement looks at.
pub fn prune(dialect: Dialect, retention: Retention) -> Statement {
    let mut builder = Builder::new(dialect);
    builder.push(&format!("DELETE FROM {JOURNAL} WHERE revision IN ("));
    select_prunable(&mut builder, retention);
    builder.push(")");
    spare_the_young(&mut builder);
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
    spare_the_young(&mut builder);
    builder.build()
}

/// Fences may share a revision, and one of them be old and another young.
fn spare_the_young(builder: &mut Builder) {
    let now = builder.dialect.now();
    builder.push(&format!(" AND (stored_at < {now} - {DAY} OR stored_at > {now} + {DAY})"));
}

/// The newest commits always stay, whatever their age and number are said to be: a clock that jumps makes nothing forgotten
/// whose caller may still ask for it.
const ALWAYS_KEPT: i64 = 256;

fn select_prunable(builder: &mut Builder, retention: Retention) {
    let now = builder.dialect.now();
    let seconds = |age: std::time::Duration| Value::BigInteger(i64::try_from(age.as_secs()).unwrap_or(i64::MAX / 2));
    let commits = Value::BigInteger(i64::try_from(retention.commits).unwrap_or(i64::MAX));
    // Commits are counted in an index, and from the oldest on: to count from the newest, SQLite would sort them all.
    builder.push(&format!(
        "SELECT DISTINCT revision FROM (SELECT revision, stored_at, DENSE_RANK() OVER (ORDER BY revision) AS place \
         FROM (SELECT revision, stored_at FROM {JOURNAL} ORDER BY revision LIMIT {AT_ONCE}) AS beginning) AS oldest \
         CROSS JOIN (SELECT count(*) AS commits FROM {JOURNAL} WHERE change_number = 0) AS kept \
         WHERE place <= commits - {ALWAYS_KEPT} AND (stored_at < {now} - "
    ));
    builder.bind(seconds(retention.age.max(IDENTITY_KEPT_FOR)));
    // A time to come is one of a clock that was wrong, and must not keep what follows for ever.
    builder.push(&format!(" OR stored_at > {now} + {DAY} OR (stored_at < {now} - {DAY} AND place <= commits - "));
    builder.bind(commits);
    builder.push("))");
}
