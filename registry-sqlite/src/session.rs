//! The connection that writes: transactions with the write lock, and what must be so for them to be acknowledged.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use feast_registry_core::{ErrorKind, Outcome, Retention};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use crate::connection::{self, Location};
use crate::error::Problem;
use crate::files::Files;
use crate::options::JournalMode;
use crate::writer::QueuedCommit;
use crate::{rows, schema};

/// How long to wait between two looks whether another process still has the lock: for a moment at first, since writers of a
/// registry hold it for milliseconds.
const PAUSES_MS: [u64; 5] = [1, 2, 5, 10, 25];

/// How long a commit waits for those who read, with a rollback journal.
const READERS_END_WITHIN: Duration = Duration::from_secs(5);

/// How long pruning waits for them. Nobody waits for it, but those who want to write or to read wait meanwhile.
const READERS_END_FOR_PRUNING_WITHIN: Duration = Duration::from_secs(1);

fn pause(attempt: usize) {
    thread::sleep(Duration::from_millis(PAUSES_MS[attempt.min(PAUSES_MS.len() - 1)]));
}

/// The connection that writes, on its thread.
pub(crate) struct Session {
    connection: Connection,
    location: Location,
    /// `None` in memory.
    files: Option<Arc<Files>>,
    /// Whether the file is in the journal mode that it is to be in. It is put there before it is first changed: who only looks
    /// changes nothing.
    has_its_mode: bool,
    /// What SQLite counts of the commits of other connections, as of the last transaction.
    foreign_commits: Option<i64>,
    /// How long a transaction waits for the lock at the most.
    patience: Option<Duration>,
}

impl Session {
    /// A session on a connection that was just opened.
    pub(crate) fn new(connection: Connection, location: Location, files: Option<Arc<Files>>) -> Self {
        let has_its_mode = location == Location::Memory;
        Self { connection, location, files, has_its_mode, foreign_commits: None, patience: None }
    }

    /// The same that waits for the lock so long at the most, whoever waits for it.
    pub(crate) fn with_patience(mut self, patience: Option<Duration>) -> Self {
        self.patience = patience;
        self
    }

    /// The same for a file of which the journal mode is to stay as it is, or not.
    pub(crate) fn with_journal_mode(mut self, mode: JournalMode) -> Self {
        self.has_its_mode |= mode == JournalMode::Keep;
        self
    }

    /// The connection, for what only reads.
    pub(crate) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Does something in a transaction of its own, which has the write lock before `work` begins. Waits for that lock while
    /// `is_awaited` says so.
    ///
    /// # Errors
    /// What `work` or the database fails with; nothing was done then, unless the problem says that this is unknown.
    pub(crate) fn write<T>(
        &mut self,
        is_awaited: impl Fn() -> bool,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Problem> {
        self.begin(&is_awaited)?;
        let done = work(&self.connection).map_err(|error| self.problem(error));
        self.end(done, Instant::now(), is_awaited)
    }

    /// Begins a transaction with the write lock, for which it waits while `is_awaited` says so.
    ///
    /// # Errors
    /// What the database fails with. No transaction was begun then.
    pub(crate) fn begin(&mut self, mut is_awaited: impl FnMut() -> bool) -> Result<(), Problem> {
        let mut attempt = 0;
        let begun = Instant::now();
        loop {
            match self.try_begin() {
                Err(problem)
                    if problem.is_busy()
                        && self.patience.is_none_or(|patience| begun.elapsed() < patience)
                        && is_awaited() =>
                {
                    pause(attempt);
                    attempt += 1;
                }
                begun => return begun,
            }
        }
    }

    /// Does commits in the transaction that was begun, and ends it. Waits for those who read, if it has to, while all of the
    /// commits are awaited; `since` is when it was first tried.
    ///
    /// # Errors
    /// What fails all of them: then nothing was done, unless the problem says that this is unknown. One that is given up can be
    /// tried again with those that are still awaited.
    pub(crate) fn commit(
        &mut self,
        commits: &[QueuedCommit],
        since: Instant,
    ) -> Result<Vec<Result<Outcome, Problem>>, Problem> {
        let outcomes = self.commit_all(commits);
        self.end(outcomes, since, || commits.iter().all(QueuedCommit::is_awaited))
    }

    /// One that fails by itself has no effect on the others. That is rare, so only then each has a savepoint of its own: all
    /// are undone, and done again, under the same lock.
    fn commit_all(&self, commits: &[QueuedCommit]) -> Result<Vec<Result<Outcome, Problem>>, Problem> {
        if commits.iter().any(|work| work.makes_tables) {
            schema::create_missing(&self.connection).map_err(|error| self.problem(error))?;
        }
        if commits.len() == 1 {
            return self.commit_each(commits, false);
        }
        self.execute("SAVEPOINT batch")?;
        let outcomes = match self.commit_each(commits, false) {
            Err(problem) if problem.is_of_one_commit() && !self.connection.is_autocommit() => {
                self.execute("ROLLBACK TO batch")?;
                self.commit_each(commits, true)?
            }
            outcomes => outcomes?,
        };
        self.execute("RELEASE batch")?;
        Ok(outcomes)
    }

    fn commit_each(&self, commits: &[QueuedCommit], is_alone: bool) -> Result<Vec<Result<Outcome, Problem>>, Problem> {
        // Read when it is first needed, and counted from there.
        let mut next_revision = None;
        commits.iter().map(|work| self.commit_one(work, is_alone, &mut next_revision)).collect()
    }

    /// Does one commit of a transaction. What only concerns this one is rolled back to where it began, and is its own outcome;
    /// the others go on.
    fn commit_one(
        &self,
        work: &QueuedCommit,
        is_alone: bool,
        next_revision: &mut Option<i64>,
    ) -> Result<Result<Outcome, Problem>, Problem> {
        let savepoint = |statement| match is_alone {
            true => self.execute(statement),
            false => Ok(()),
        };
        savepoint("SAVEPOINT one")?;
        match self.try_commit(work, next_revision) {
            Ok(outcome) => {
                savepoint("RELEASE one")?;
                Ok(Ok(outcome))
            }
            Err(problem) if is_alone && problem.is_of_one_commit() && !self.connection.is_autocommit() => {
                self.execute("ROLLBACK TO one")?;
                self.execute("RELEASE one")?;
                Ok(Err(problem))
            }
            Err(problem) => Err(problem),
        }
    }

    fn try_commit(&self, work: &QueuedCommit, next_revision: &mut Option<i64>) -> Result<Outcome, Problem> {
        let QueuedCommit { commit, is_journaled, .. } = work;
        let problem = |error| self.problem(error);
        // What it was the first time is what counts, whatever has been written since.
        let had = || if *is_journaled { rows::outcome(&self.connection, commit.id).map_err(problem) } else { Ok(None) };
        if let Some(key) = rows::conflict(&self.connection, commit).map_err(problem)? {
            return Ok(had()?.unwrap_or(Outcome::Conflict(key)));
        }
        let revision = match (*is_journaled, *next_revision) {
            (false, _) => None,
            (true, Some(revision)) => Some(revision),
            (true, None) => Some(rows::next_revision(&self.connection).map_err(problem)?),
        };
        let statements = rows::writes(commit, revision)?;
        match rows::execute(&self.connection, &statements).map_err(problem) {
            Ok(()) => {
                *next_revision = revision.map(|revision| revision.saturating_add(1));
                let revision = revision.map(|revision| feast_registry_core::Revision::new(revision as u64));
                Ok(Outcome::Committed { revision })
            }
            // The first statement inserts the identity, so nothing else was done.
            Err(problem) if problem.is_repeated() => had()?.ok_or(problem),
            Err(problem) => Err(problem),
        }
    }

    /// Removes some of what the journal need not keep, unless another process is writing; returns how many commits.
    ///
    /// It waits a little for those who read, with a rollback journal: if there always are some, it would never be done.
    /// (`what_readers_keep_out_for_a_moment_is_pruned`)
    pub(crate) fn prune(&mut self, retention: Retention) -> Result<u64, Problem> {
        self.begin(|| false)?;
        let pruned = rows::prune(&self.connection, retention).map_err(|error| self.problem(error));
        let begun = Instant::now();
        self.end(pruned, begun, || begun.elapsed() < READERS_END_FOR_PRUNING_WITHIN)
    }

    /// One try to begin a transaction with the write lock.
    fn try_begin(&mut self) -> Result<(), Problem> {
        // A transaction that was left behind by a panic.
        self.roll_back();
        if !self.has_its_mode {
            self.check_files()?;
            connection::use_wal(&self.connection, &self.location)?;
            self.has_its_mode = true;
        }
        // The lock is taken before anything is checked.
        self.execute("BEGIN IMMEDIATE")?;
        if let Some(files) = &self.files {
            files.note_wal();
        }
        // The lock may have been waited for, so this is not asked before.
        let checked = self.check_files();
        if checked.is_err() {
            self.roll_back();
        }
        checked
    }

    /// Commits what was done, if it was; else rolls it back.
    fn end<T>(
        &mut self,
        done: Result<T, Problem>,
        since: Instant,
        is_awaited: impl Fn() -> bool,
    ) -> Result<T, Problem> {
        let committed = done.and_then(|done| {
            if self.files.is_some() {
                self.foreign_commits = Some(self.count_foreign_commits()?);
            }
            self.commit_transaction(since, is_awaited)?;
            // The file may have been removed or replaced since the transaction began.
            self.check_files().map_err(Problem::unknown)?;
            Ok(done)
        });
        if committed.is_err() {
            self.roll_back();
        }
        committed
    }

    /// With a rollback journal, what is committed cannot be written into the file while others read. Mostly they end soon, and no
    /// new ones are let in meanwhile; the transaction stays as it is until then, or until nobody waits for it any more.
    fn commit_transaction(&self, since: Instant, is_awaited: impl Fn() -> bool) -> Result<(), Problem> {
        let patience = self.patience.unwrap_or(READERS_END_WITHIN);
        for attempt in 0.. {
            let commit = self.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute(()));
            match commit {
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && !self.connection.is_autocommit() =>
                {
                    let (is_awaited, has_patience) = (is_awaited(), since.elapsed() < patience);
                    if is_awaited && has_patience {
                        pause(attempt);
                        continue;
                    }
                    let text = format!(
                        "{}: somebody has been reading the file all the time, which keeps commits out with a rollback \
                         journal; nothing was done: try again, or let the file be in WAL mode, by leaving out \
                         `journal_mode=keep` ({error})",
                        self.location
                    );
                    return Err(match is_awaited {
                        true => Problem::new(ErrorKind::Unavailable, text),
                        false => Problem::given_up(text),
                    });
                }
                commit => return commit.map(drop).map_err(|error| Problem::of_commit(error, &self.location)),
            }
        }
        Ok(())
    }

    fn check_files(&mut self) -> Result<(), Problem> {
        let Some(files) = &self.files else { return Ok(()) };
        let checked = files.check();
        if checked.is_err() {
            self.empty_stranded_wal();
        }
        checked
    }

    /// Writes what is in the WAL into the file that it belongs to, which this connection has open, and empties the WAL. If
    /// the database was replaced, whoever opens the file that took its place would otherwise find this WAL beside it, and SQLite
    /// would take its pages for that file's.
    ///
    /// It is left alone if another connection may have written into it since the files were last known to be in place.
    fn empty_stranded_wal(&mut self) {
        let Some(files) = &self.files else { return };
        if !files.is_wal_stranded() || self.foreign_commits.is_none() {
            return;
        }
        if self.count_foreign_commits().ok() != self.foreign_commits {
            return;
        }
        // A checkpoint is no part of a transaction.
        self.roll_back();
        let emptied = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get::<_, i64>(0));
        // Once is enough: nothing is written any more.
        self.foreign_commits = None;
        let location = self.location.to_string();
        match emptied {
            Ok(0) => tracing::error!(location, "a file of the registry was removed or replaced; its WAL was emptied"),
            Ok(_) => tracing::error!(location, "a file of the registry was removed or replaced; its WAL is in use"),
            Err(error) => tracing::error!(location, %error, "a file of the registry was removed or replaced"),
        }
    }

    fn count_foreign_commits(&self) -> Result<i64, Problem> {
        self.connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row((), |row| row.get(0)))
            .map_err(|error| self.problem(error))
    }

    /// Ends the transaction, if there is one, without an effect.
    pub(crate) fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "a transaction of SQLite could not be rolled back");
        }
    }

    fn execute(&self, statement: &str) -> Result<(), Problem> {
        let executed = self.connection.prepare_cached(statement).and_then(|mut statement| statement.execute(()));
        executed.map(drop).map_err(|error| self.problem(error))
    }

    fn problem(&self, error: rusqlite::Error) -> Problem {
        Problem::of(error, &self.location)
    }
}

impl Drop for Session {
    /// Closing the last connection of a database writes its WAL into it and removes the WAL by its name, which must not happen
    /// to the file that took its place. (SQLite looks at the inode of the database itself, but not at those of the others.)
    fn drop(&mut self) {
        self.roll_back();
        if self.check_files().is_err()
            && let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::warn!(%error, "SQLite does not let the registry be closed without a checkpoint");
        }
    }
}

#[cfg(test)]
mod tests {
    use feast_registry_core::{Commit, Error, Key, Kind, Record, Write};

    use super::*;

    fn put(name: &str, bytes: usize) -> QueuedCommit {
        let key = Key::object(Kind::Entity, "p", name);
        let commit = Commit::new(vec![], vec![Write::Put(Record::new(key, vec![7; bytes], 7))]);
        let deadline = feast_registry_core::Deadline::after(Duration::from_secs(60));
        QueuedCommit::new(commit, true, true, deadline, tokio::sync::oneshot::channel().0)
    }

    fn commit(session: &mut Session, work: &[QueuedCommit]) -> Result<Vec<Result<Outcome, Problem>>, Problem> {
        session.begin(|| false).expect("nobody else has the lock");
        session.commit(work, Instant::now())
    }

    /// Fault: it was tried once, so where somebody always read, the journal grew for ever.
    #[test]
    fn what_readers_keep_out_for_a_moment_is_pruned() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let location = Location::file(&folder.path().join("registry.db"));
        let connection = connection::open_writer(&location).expect("a file is made");
        let mut session = Session::new(connection, location.clone(), None).with_journal_mode(JournalMode::Keep);
        let work: Vec<_> = (0..300).map(|number| put(&number.to_string(), 1)).collect();
        commit(&mut session, &work).expect("they are written");
        session.execute("UPDATE feast_registry_journal SET stored_at = stored_at - 172800").expect("days");
        let reader = connection::open_reader(&location).expect("the file is there");
        reader.execute_batch("BEGIN; SELECT count(*) FROM entities").expect("a read");
        let reading = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(reader);
        });
        let pruned = session.prune(Retention::new(Duration::ZERO, 1));
        assert!(pruned.expect("it waits for the reader") > 0);
        reading.join().expect("no panic");
    }

    #[test]
    fn a_full_disk_fails_the_whole_transaction_once() {
        let connection = connection::open_writer(&Location::Memory).expect("a database in memory");
        let mut session = Session::new(connection, Location::Memory, None);
        commit(&mut session, &[put("first", 1)]).expect("it is written");
        let limit = |session: &Session, pages: &str| {
            session.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), (), |_| Ok(())).expect("a limit");
        };
        limit(&session, "1");
        let full = commit(&mut session, &[put("small", 1), put("large", 1_000_000), put("other", 1)]);
        let error = Error::from(full.expect_err("there is no room"));
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("full"), "{error}");
        limit(&session, "1000000");
        let outcomes = commit(&mut session, &[put("small", 1), put("large", 1_000_000)]).expect("there is room");
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        let stored: i64 =
            session.connection.query_row("SELECT count(*) FROM entities", (), |row| row.get(0)).expect("rows");
        assert_eq!(stored, 3);
    }
}
