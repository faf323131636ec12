//! The journal besides the writing of commits: looking a commit up, fencing one off, reading, pruning.

use feast_registry_core::{Commit, CommitId, Deadline, Error, JournalEntry, JournalQuery, Retention, Revision};
use feast_registry_sql::journal::{self, JournalRow, Revisions};
use feast_registry_sql::{Dialect, Found};
use mysql_async::{FromValueError, Row};

use crate::commit::{Plan, Unwritten, begin, found, run_plan, undo, undo_if_failed};
use crate::error::{Failure, failure};
use crate::session::{Session, column, plain, unreadable};

/// The variable of a session that has the newest revision that may be read.
const NEWEST: &str = "feast_registry_newest";

/// What the journal has of a commit.
pub(crate) async fn find(session: &mut Session<'_>, id: CommitId) -> Result<Option<Found>, Failure> {
    let mut answers = session.run_all(&[journal::find(Dialect::MySql, id)]).await?;
    found(answers.pop().unwrap_or_default(), session.location)
}

/// Takes the identity of a commit.
pub(crate) async fn fence(session: &mut Session<'_>, commit: &Commit, deadline: &Deadline) -> Result<(), Failure> {
    let fence = journal::fence(Dialect::MySql, commit, Revisions::PENDING);
    let plan = Plan::of_pending(begin(session, deadline), vec![fence], commit.id);
    match run_plan(session, &plan).await {
        Ok(_) => Ok(()),
        Err(Unwritten::Explained(failure)) => Err(failure),
        Err(Unwritten::Refused(_, error)) => Err(undo(session, failure(error, session.location)).await),
    }
}

/// Reads the journal.
pub(crate) async fn read(session: &mut Session<'_>, query: &JournalQuery) -> Result<Vec<JournalEntry>, Failure> {
    let location = session.location;
    // The lock that orders revisions is held until a commit is visible, so a commit that is visible has none before it that is not
    // done. But MariaDB looks at the transactions that are under way one after the other when it takes a snapshot: it may have seen
    // one that was, and after it, as done, another that had waited for it. So what is read ends with the newest that was visible
    // before: the snapshot that is taken then has all up to that one (`journal::a_reader_misses_nothing_while_others_write`).
    let newest = plain(format!("SET @{NEWEST} = ({})", journal::newest_revision().text));
    let (known, rows) = journal::read(Dialect::MySql, query, Some(&format!("revision <= @{NEWEST}")));
    let begin = plain("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY");
    let statements: Vec<_> = [newest, begin].into_iter().chain(known).chain([rows, plain("COMMIT")]).collect();
    let answers = session.run_all(&statements).await;
    let mut answers = undo_if_failed(session, answers).await?;
    if let Some(after) = query.cursor()
        && answers.get(2).is_none_or(Vec::is_empty)
    {
        return Err(Failure::Final(Error::compacted(location, after)));
    }
    let rows = answers.swap_remove(statements.len() - 2).into_iter().map(row).collect::<Result<Vec<_>, _>>();
    let rows = rows.map_err(|error| Failure::Final(unreadable(location, error)))?;
    journal::entries(query, rows).map_err(Failure::Final)
}

/// The highest revision of all that is visible.
pub(crate) async fn newest_revision(session: &mut Session<'_>) -> Result<Option<Revision>, Failure> {
    let location = session.location;
    let rows = session.run_all(&[journal::newest_revision()]).await?.pop().unwrap_or_default();
    let newest = rows.into_iter().next().map(|mut row| column::<Option<i64>>(&mut row, 0)).transpose();
    let newest = newest.map_err(|error| Failure::Final(unreadable(location, error)))?.flatten();
    Ok(newest.map(|newest| Revision::new(newest as u64)))
}

/// Removes a part of what need not be kept; returns how many commits that were.
///
/// What is removed is looked for without a lock, and is older than what anybody writes: no writer waits.
pub(crate) async fn prune(session: &mut Session<'_>, retention: Retention) -> Result<u64, Failure> {
    let prunable = journal::prunable(Dialect::MySql, retention);
    let rows = session.run_all(&[prunable]).await?.pop().unwrap_or_default();
    let revisions = rows.into_iter().map(|mut row| column::<i64>(&mut row, 0)).collect::<Result<Vec<_>, _>>();
    let revisions = revisions.map_err(|error| Failure::Final(unreadable(session.location, error)))?;
    if revisions.is_empty() {
        return Ok(0);
    }
    let commits = revisions.len() as u64;
    session.run_all(&[journal::remove(Dialect::MySql, revisions)]).await.map(|_| commits)
}

/// A row of [`journal::read`].
fn row(mut row: Row) -> Result<JournalRow, FromValueError> {
    let row = &mut row;
    let bytes = |row: &mut Row, index| column::<Option<Vec<u8>>>(row, index).map(|value| value.map(Into::into));
    Ok(JournalRow {
        revision: column(row, 0)?,
        commit_id: column(row, 1)?,
        change_number: column(row, 2)?,
        committed_at: column(row, 3)?,
        author: column(row, 4)?,
        reason: column(row, 5)?,
        target: column(row, 6)?,
        project: column(row, 7)?,
        name: column(row, 8)?,
        number: column(row, 9)?,
        value_before: bytes(row, 10)?,
        value_after: bytes(row, 11)?,
        version_type: column(row, 12)?,
        version_created: column(row, 13)?,
        version_description: column(row, 14)?,
        version_id: column(row, 15)?,
        before_length: column(row, 16)?,
    })
}
