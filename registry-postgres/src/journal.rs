//! The journal's table: what is asked of it, and what keeps it in order.

use feast_registry_core::{Commit, CommitId, Error, JournalEntry, JournalQuery, Retention, Revision};
use feast_registry_sql::journal::{self, JournalRow, Revisions};
use feast_registry_sql::{Dialect, Found, JOURNAL, Statement};

use crate::engine::{IS_SETTLED, next_revision, settled};
use crate::error::Failure;
use crate::locks;
use crate::session::{Session, journal_row, plain};

const DIALECT: Dialect = Dialect::PostgreSql;

/// What the journal has of a commit.
pub(crate) async fn find(session: &Session<'_>, id: CommitId) -> Result<Option<Found>, Failure> {
    let rows = session.run_all(&[journal::find(DIALECT, id)]).await?.remove(0);
    let Some(row) = rows.first() else { return Ok(None) };
    let read = || Ok(journal::found(row.try_get(0)?, row.try_get(1)?));
    read().map(Some).map_err(|error| session.failure(error))
}

/// Takes the identity of a commit. Waits while its transaction is under way, if that has come so far.
pub(crate) async fn fence(session: &Session<'_>, commit: &Commit, timeout: i64) -> Result<(), Failure> {
    // It is no commit, so its revision is none that a reader sees.
    let revisions = session.link.engine.revisions().unwrap_or(Revisions::Number(0));
    let statements = vec![locks::only_timeout(timeout), journal::fence(DIALECT, commit, revisions)];
    session.transaction(statements).await.map(drop)
}

/// Reads the journal.
pub(crate) async fn read(session: &Session<'_>, query: &JournalQuery) -> Result<Vec<JournalEntry>, Failure> {
    let is_unordered = session.link.engine.commits_out_of_order();
    let (known, rows) = journal::read(DIALECT, query, is_unordered.then_some(IS_SETTLED));
    // Each statement sees what was committed before it. What is removed is the oldest, so if the revision to go on after is there when the rows
    // have been read, those that come after it were.
    let mut statements = vec![plain("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")];
    statements.extend(is_unordered.then(|| plain(settled())));
    let place = statements.len();
    statements.push(rows);
    statements.extend(known);
    statements.push(plain("COMMIT"));
    let answers = session.run_all(&statements).await?;
    if let Some(after) = query.cursor()
        && answers[place + 1].is_empty()
    {
        return Err(Failure::Final(Error::compacted(session.location, after)));
    }
    let rows: Result<Vec<JournalRow>, _> = answers[place].iter().map(journal_row).collect();
    journal::entries(query, rows.map_err(|error| session.failure(error))?).map_err(Failure::Final)
}

/// The highest revision of all that is visible, whether others may still commit below it or not.
pub(crate) async fn newest_revision(session: &Session<'_>) -> Result<Option<Revision>, Failure> {
    let rows = session.run_all(&[journal::newest_revision()]).await?.remove(0);
    let newest = rows.first().map(|row| row.try_get::<_, Option<i64>>(0)).transpose();
    Ok(newest.map_err(|error| session.failure(error))?.flatten().map(|revision| Revision::new(revision as u64)))
}

/// Removes a part of what need not be kept; returns how many commits that were.
pub(crate) async fn prune(session: &Session<'_>, retention: Retention, timeout: i64) -> Result<u64, Failure> {
    let Statement { text, values } = journal::prune(DIALECT, retention);
    let text =
        format!("WITH removed AS ({text} RETURNING revision) SELECT count(DISTINCT revision) AS commits FROM removed");
    let mut answers = session.transaction(vec![locks::only_timeout(timeout), Statement { text, values }]).await?;
    let row = answers.get_mut(1).and_then(Vec::pop);
    let removed = row.map(|row| row.try_get::<_, i64>(0)).transpose().map_err(|error| session.failure(error))?;
    Ok(removed.and_then(|removed| u64::try_from(removed).ok()).unwrap_or_default())
}

/// Begins a transaction of these statements where transaction ids are not to be had; returns the revision that it has.
pub(crate) async fn begin(session: &Session<'_>, statements: Vec<Statement>) -> Result<i64, Failure> {
    let begin = [plain(session.begin())].into_iter().chain(statements).chain([plain(next_revision())]);
    let mut answers = match session.run_all(&begin.collect::<Vec<_>>()).await {
        Ok(answers) => answers,
        Err(failure) => {
            // The connection is used again, and not within what is left of this transaction.
            session.run_all(&[plain("ROLLBACK")]).await?;
            return Err(failure);
        }
    };
    let row = answers.pop().and_then(|mut rows| rows.pop());
    let number = row.map(|row| row.try_get(0)).transpose().map_err(|error| session.failure(error))?;
    Ok(number.unwrap_or(1))
}

/// Puts the revisions of a database that was restored from another server's dump below those that this server gives next:
/// there a commit may have had a higher number than the next one gets here, which would then come before it. Readers who
/// were in the midst of the old journal are told to begin anew. Those of the oldest commits that find no place are removed.
pub(crate) async fn put_in_order(session: &Session<'_>, timeout: i64) -> Result<(), Failure> {
    const IS_AHEAD: &str = "revision >= txid_snapshot_xmax(txid_current_snapshot())";
    let look = format!("SELECT 1 FROM {JOURNAL} WHERE {IS_AHEAD} LIMIT 1");
    if session.run_all(&[plain(look.clone())]).await?.remove(0).is_empty() {
        return Ok(());
    }
    let mut statements = session.locks(locks::of_registry, timeout);
    // What was committed here since is the newest, and gets the highest numbers before that of this transaction. Another
    // process may have done it meanwhile.
    statements.push(plain(format!(
        "UPDATE {JOURNAL} AS journal SET revision = place.revision FROM (SELECT revision AS old, \
         txid_current() - row_number() OVER (ORDER BY {IS_AHEAD}, revision DESC) AS revision \
         FROM (SELECT DISTINCT revision FROM {JOURNAL}) AS each) AS place WHERE journal.revision = place.old AND EXISTS ({look})"
    )));
    statements.push(plain(format!("DELETE FROM {JOURNAL} WHERE revision < 0")));
    session.transaction(statements).await?;
    tracing::warn!(
        location = session.location,
        "the journal is that of another server, as after a restore: its revisions were numbered anew, below those of this \
         server. Who follows the journal has to read everything anew"
    );
    Ok(())
}
