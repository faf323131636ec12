//! A commit: what follows from the rows that it has locked, and what it writes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use feast_registry_core::{Commit, CommitId, Deadline, Error, Key, Outcome, Record, Result, Revision, Write};
use feast_registry_sql::journal::{self, Revisions};
use feast_registry_sql::{self as sql, Dialect, Found, Read, Statement};
use mysql_async::Row;

use crate::error::{DATA_TOO_LONG, DUPLICATE, Failure, NULL, code, failure, uncommitted};
use crate::schema;
use crate::session::{Session, column, is_one_request, plain, unreadable};

const COMMIT: &str = "COMMIT";

/// Commits, in two round trips: the first locks and returns what the commit depends on, the second writes. `is_kept`: there
/// is a journal. `is_writing` is set before the second is sent: until then a lost connection has written nothing.
pub(crate) async fn run(
    session: &mut Session<'_>,
    commit: &Commit,
    is_kept: bool,
    deadline: &Deadline,
    is_writing: &AtomicBool,
) -> Result<Outcome, Failure> {
    let keys = sql::keys_to_lock(commit);
    let read = Read::locking(Dialect::MySql, &keys, session.has_shared_locks && sql::shares_projects(commit));
    let begin = begin(session, deadline);
    let rows = session.rows(begin, &read.statements, Vec::new()).await;
    let found = read.records(undo_if_failed(session, rows).await?);
    let prepared = prepare(commit, &keys, &found, is_kept, session);
    // The server may have been told to stop, and had just stopped by itself.
    match prepared.and_then(|prepared| deadline.check("a lock").map(|()| prepared).map_err(Failure::Final)) {
        Ok(Prepared::Writes(plan)) => {
            is_writing.store(true, Ordering::Relaxed);
            write(session, commit, is_kept, plan).await
        }
        Ok(Prepared::Conflict(key)) => refuse(session, commit, is_kept, Ok(Outcome::Conflict(key))).await,
        Err(failure) => refuse(session, commit, is_kept, Err(failure)).await,
    }
}

/// What begins a transaction that waits for locks until a deadline.
pub(crate) fn begin(session: &mut Session<'_>, deadline: &Deadline) -> Vec<Statement> {
    let lock_waits = session.connection.lock_waits(deadline);
    // Before anything is locked, so that nobody waits for it.
    lock_waits.into_iter().chain([journal::forget_revision(), plain("START TRANSACTION")]).collect()
}

/// What follows from what a commit has found.
enum Prepared {
    /// It does not take place: something else is expected under this key.
    Conflict(Key),
    /// It writes this.
    Writes(Plan),
}

/// The statements that end a transaction, in their order.
pub(crate) struct Plan {
    pub(crate) statements: Vec<Statement>,
    /// Where the journal is written, if there is one.
    journal: Option<JournalPlan>,
}

/// The places of the statements that write the journal.
#[derive(Clone, Copy)]
struct JournalPlan {
    /// Inserts the identity of the commit.
    identity: usize,
    /// Says which revision it has.
    revision: usize,
}

impl Plan {
    /// A commit that only puts inserts its rows of the journal when it has its revision; they say what was stored before, as
    /// `found`. Any other, and one that does not go in one request, during which all other commits would wait, inserts them
    /// before what they say is gone, and gives them the revision then.
    fn of_commit(commit: &Commit, absent: HashSet<&Key>, found: &[Record]) -> Result<Self> {
        let puts = sql::writes_beside(Dialect::MySql, commit, absent.clone())?;
        if let Some(rows) = journal::rows_of_puts(Dialect::MySql, commit, found, Revisions::TAKEN)? {
            let revision = puts.len();
            let statements: Vec<_> =
                puts.into_iter().chain([journal::take_revision()]).chain(rows).chain([plain(COMMIT)]).collect();
            if is_one_request(&statements) {
                return Ok(Self { statements, journal: Some(JournalPlan { identity: revision + 1, revision }) });
            }
        }
        let writes = journal::journaled_writes(Dialect::MySql, commit, absent, Revisions::PENDING)?;
        Ok(Self::of_pending(Vec::new(), writes, commit.id))
    }

    /// After `before`, statements of which the first inserts the identity of a commit, without a revision.
    pub(crate) fn of_pending(before: Vec<Statement>, writes: Vec<Statement>, id: CommitId) -> Self {
        let journal = JournalPlan { identity: before.len(), revision: before.len() + writes.len() };
        let ends = [journal::take_revision(), journal::give_revision(id), plain(COMMIT)];
        Self { statements: before.into_iter().chain(writes).chain(ends).collect(), journal: Some(journal) }
    }

    fn without_journal(commit: &Commit, absent: HashSet<&Key>) -> Result<Self> {
        let writes = sql::writes_beside(Dialect::MySql, commit, absent)?;
        Ok(Self { statements: writes.into_iter().chain([plain(COMMIT)]).collect(), journal: None })
    }
}

/// Holds a commit against what it found under the keys that it locked, each with the index of its key.
fn prepare(
    commit: &Commit,
    keys: &[Key],
    found: &[(usize, Record)],
    is_kept: bool,
    session: &Session<'_>,
) -> Result<Prepared, Failure> {
    if let Some(refusal) = lookalike(commit, keys, found, session.location) {
        return Err(refusal);
    }
    let records: Vec<Record> = found.iter().map(|(_, record)| record.clone()).collect();
    // The others are those that it inserts: the database itself sees to them.
    let locked: HashSet<&Key> = keys.iter().collect();
    let looked_at: Vec<_> = commit.expectations.iter().filter(|(key, _)| locked.contains(key)).cloned().collect();
    if let Some(key) = sql::conflict(&looked_at, &records) {
        return Ok(Prepared::Conflict(key));
    }
    // What is not there is inserted: an upsert could hit a row of another name, that this very commit has written.
    let is_there: HashSet<&Key> = records.iter().map(|record| &record.key).collect();
    let written = commit.writes.iter().filter_map(|write| match write {
        Write::Put(record) => Some(&record.key),
        Write::Delete(_) | Write::DeleteVersions { .. } | Write::DeleteProject { .. } => None,
    });
    let absent = written.filter(|key| !is_there.contains(key)).collect();
    let plan = if is_kept { Plan::of_commit(commit, absent, &records) } else { Plan::without_journal(commit, absent) };
    let plan = plan.map_err(Failure::Final)?;
    session.fits(&plan.statements)?;
    Ok(Prepared::Writes(plan))
}

/// Ends the transaction of a commit that does not take place as things are. Unless it has: an earlier attempt at it whose
/// answer was lost is done by now, since the locks were had that it held. It is looked for when the transaction is over, in
/// which the identity may stand that this attempt itself has written (the conformance suite's `histories`).
async fn refuse(
    session: &mut Session<'_>,
    commit: &Commit,
    is_kept: bool,
    refusal: Result<Outcome, Failure>,
) -> Result<Outcome, Failure> {
    let find = is_kept.then(|| journal::find(Dialect::MySql, commit.id));
    let statements: Vec<Statement> = [plain("ROLLBACK")].into_iter().chain(find).collect();
    let looked = session.run_all(&statements).await;
    let mut answers = undo_if_failed(session, looked).await?;
    match found(answers.pop().unwrap_or_default(), session.location)? {
        Some(Found::Committed(revision)) => Ok(Outcome::Committed { revision: Some(revision) }),
        Some(Found::Fenced) | None => refusal,
    }
}

/// What the rows of [`journal::find`] say.
pub(crate) fn found(mut rows: Vec<Row>, location: &str) -> Result<Option<Found>, Failure> {
    let Some(mut row) = rows.pop() else { return Ok(None) };
    let found = |row: &mut Row| {
        let (revision, target) = (column::<i64>(row, 0)?, column::<String>(row, 1)?);
        Ok(journal::found(revision, &target))
    };
    found(&mut row).map(Some).map_err(|error| Failure::Final(unreadable(location, error)))
}

/// Writes within a transaction and commits it.
async fn write(session: &mut Session<'_>, commit: &Commit, is_kept: bool, plan: Plan) -> Result<Outcome, Failure> {
    match run_plan(session, &plan).await {
        Ok(revision) => Ok(Outcome::Committed { revision }),
        Err(Unwritten::Explained(failure)) => Err(failure),
        Err(Unwritten::Refused(index, error)) => {
            explain(session, commit, is_kept, plan.statements.get(index), error).await
        }
    }
}

/// Why a plan was not carried out.
pub(crate) enum Unwritten {
    /// The statement of this index failed, and the transaction is still open.
    Refused(usize, mysql_async::Error),
    /// This is what it means, and the transaction is over.
    Explained(Failure),
}

/// Runs all that commits; returns the revision, if there is a journal.
pub(crate) async fn run_plan(session: &mut Session<'_>, plan: &Plan) -> Result<Option<Revision>, Unwritten> {
    let location = session.location;
    let (index, error) = match (session.run(&plan.statements).await, plan.journal) {
        (Ok(_), None) => return Ok(None),
        (Ok(answers), Some(JournalPlan { revision, .. })) => {
            return match answers.get(revision).map_or(0, |answer| answer.inserted) {
                // It is committed: the journal will say where.
                0 => Err(Unwritten::Explained(Failure::Lost(Error::internal(format!(
                    "{location}: the database does not say which revision a commit has"
                ))))),
                revision => Ok(Some(Revision::new(revision))),
            };
        }
        (Err(failed), _) => failed,
    };
    let code = code(&error);
    let failure = match plan.journal {
        _ if index + 1 == plan.statements.len() => uncommitted(error, location),
        Some(JournalPlan { identity, .. }) if index == identity && code == Some(DUPLICATE) => {
            Failure::Repeated(failure(error, location).into_error())
        }
        Some(JournalPlan { revision, .. }) if index > revision && code == Some(NULL) => {
            let failure = Failure::Serialization(failure(error, location).into_error());
            return Err(Unwritten::Explained(remake_head(session, failure).await));
        }
        _ => return Err(Unwritten::Refused(index, error)),
    };
    Err(Unwritten::Explained(undo(session, failure).await))
}

/// Makes the row that revisions are taken from, which somebody has removed, after a commit failed for that.
async fn remake_head(session: &mut Session<'_>, failure: Failure) -> Failure {
    let failure = undo(session, failure).await;
    if !matches!(failure, Failure::Serialization(_)) {
        return failure;
    }
    let location = session.location;
    tracing::warn!(location, "the journal has lost its last revision; going on from what it has");
    session.run_all(&[journal::make_head()]).await.map_or_else(|failure| failure, |_| failure)
}

/// Ends the transaction of a statement that failed before anything was committed, and says what that means.
async fn explain(
    session: &mut Session<'_>,
    commit: &Commit,
    is_kept: bool,
    statement: Option<&Statement>,
    error: mysql_async::Error,
) -> Result<Outcome, Failure> {
    let too_long = match &error {
        mysql_async::Error::Server(answer) if DATA_TOO_LONG.contains(&answer.code) => Some(answer.message.clone()),
        _ => None,
    };
    let failure = match failure(error, session.location) {
        // It may be an earlier attempt at this very commit that is in its way.
        failure @ Failure::Unexpected(_) => match refuse(session, commit, is_kept, Err(failure)).await {
            Ok(outcome) => return Ok(outcome),
            Err(failure) => failure,
        },
        failure => undo(session, failure).await,
    };
    let Some(statement) = statement else { return Err(failure) };
    match (too_long, failure) {
        (Some(said), _) => Err(Failure::Final(schema::too_long(session, table_of(&statement.text), &said).await)),
        // It may be another name that is there, which the database takes for this one.
        (_, failure @ Failure::Unexpected(_)) => Err(look_alike(session, commit, statement).await?.unwrap_or(failure)),
        (_, failure) => Err(failure),
    }
}

/// The table that a statement writes to.
fn table_of(statement: &str) -> &str {
    let words = statement.split_whitespace();
    words.skip_while(|word| !["INTO", "FROM", "UPDATE"].contains(word)).nth(1).unwrap_or_default()
}

/// Ends the transaction of what failed, so that the connection can be used again; one that is lost or of no use never is.
/// Returns why it failed, or why even that did.
pub(crate) async fn undo(session: &mut Session<'_>, failure: Failure) -> Failure {
    if matches!(failure, Failure::Lost(_) | Failure::Unusable(_)) {
        return failure;
    }
    session.run_all(&[plain("ROLLBACK")]).await.map_or_else(|failure| failure, |_| failure)
}

/// [`undo`], if it has failed.
pub(crate) async fn undo_if_failed<T>(session: &mut Session<'_>, outcome: Result<T, Failure>) -> Result<T, Failure> {
    match outcome {
        Ok(done) => Ok(done),
        Err(failure) => Err(undo(session, failure).await),
    }
}

/// The refusal of a commit that stores a key beside one that the database takes for the same. `found` are rows, each with
/// the index of the key that it was found by.
fn lookalike(commit: &Commit, keys: &[Key], found: &[(usize, Record)], location: &str) -> Option<Failure> {
    let is_stored =
        |key: &Key| commit.writes.iter().any(|write| matches!(write, Write::Put(record) if record.key == *key));
    let mut pairs = found.iter().filter_map(|(index, record)| Some((keys.get(*index)?, &record.key)));
    let (asked, found) = pairs.find(|(asked, found)| asked != found && is_stored(asked))?;
    Some(Failure::Final(schema::lookalike(location, asked, found)))
}

/// [`lookalike`], after an insertion found a row in its way: one that was stored before, or by the same commit.
async fn look_alike(
    session: &mut Session<'_>,
    commit: &Commit,
    insertion: &Statement,
) -> Result<Option<Failure>, Failure> {
    let keys = sql::keys_of(commit);
    let read = Read::locking(Dialect::MySql, &keys, false);
    let begin = plain("START TRANSACTION");
    for before in [vec![begin.clone(), insertion.clone()], vec![begin]] {
        let rows = session.rows(before, &read.statements, vec![plain("ROLLBACK")]).await;
        match undo_if_failed(session, rows).await {
            Ok(rows) => {
                let found = read.records(rows);
                if let Some(refusal) = lookalike(commit, &keys, &found, session.location) {
                    return Ok(Some(refusal));
                }
            }
            Err(Failure::Unexpected(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
}
