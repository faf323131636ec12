//! Attempts at a database that does as the test says.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::Dialect;
use feast_registry_core::{Expected, JournalQuery, Limits, Retention, Write};

#[derive(Debug)]
/// A registry in memory behind attempts that fail as scripted.
struct Scripted {
    memory: feast_registry_core::MemoryBackend,
    /// What becomes of the next attempts to commit; after these, all succeed.
    commits: Mutex<VecDeque<Step>>,
    attempts: AtomicUsize,
    is_missing: Mutex<bool>,
    has_journal: Mutex<bool>,
    is_silent: Mutex<bool>,
    /// How many more fences there is no connection for.
    refused_fences: AtomicUsize,
    mode: Mutex<SchemaMode>,
    fenced: Mutex<Vec<CommitId>>,
    state: JournalState,
}

#[derive(Debug)]
enum Step {
    /// It takes place, others commit these, and the answer is lost.
    DoneAndLost(Vec<Commit>),
    /// It does not take place, and nothing says so.
    Lost,
    /// The same, after all the time that there is.
    Silence,
    /// A deadlock.
    Serialization,
    /// No connection.
    Unusable,
    /// Another writer stores this first.
    After(Record),
    /// Nothing is in the way, and the database says there is.
    Unexpected,
}

impl Scripted {
    fn new(commits: impl IntoIterator<Item = Step>) -> Self {
        Self {
            memory: feast_registry_core::MemoryBackend::default(),
            commits: Mutex::new(commits.into_iter().collect()),
            attempts: AtomicUsize::new(0),
            is_missing: Mutex::new(false),
            has_journal: Mutex::new(true),
            is_silent: Mutex::new(false),
            refused_fences: AtomicUsize::new(0),
            mode: Mutex::new(SchemaMode::Auto),
            fenced: Mutex::default(),
            state: JournalState::new(Dialect::PostgreSql),
        }
    }

    fn missing(&self) -> Result<(), Failure> {
        match *self.is_missing.lock().expect("a test") {
            true => Err(Failure::Final(Error::new(ErrorKind::SchemaMissing, "no tables"))),
            false => Ok(()),
        }
    }
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "scripted")
}

#[async_trait]
impl Backend for Scripted {
    fn location(&self) -> String {
        "a script".to_owned()
    }

    fn limits(&self) -> Limits {
        self.memory.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        prepare(self, deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        read(self, queries, deadline).await
    }

    async fn commit(&self, commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        super::commit(self, commit, deadline).await
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        journal(self, query, deadline).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        remove_if_empty(self, deadline).await
    }
}

#[async_trait]
impl Database for Scripted {
    fn schema_mode(&self) -> SchemaMode {
        *self.mode.lock().expect("a test")
    }

    fn journal_state(&self) -> &JournalState {
        &self.state
    }

    async fn try_read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>, Failure> {
        self.missing()?;
        self.memory.read(queries, deadline).await.map_err(Failure::Final)
    }

    async fn try_commit(&self, commit: &Commit, makes_tables: bool, deadline: &Deadline) -> Result<Outcome, Failure> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if makes_tables {
            self.make_tables(deadline).await?;
        }
        self.missing()?;
        let step = self.commits.lock().expect("a test").pop_front();
        match step {
            Some(Step::Serialization) => return Err(Failure::Serialization(unavailable())),
            Some(Step::Unusable) => return Err(Failure::Unusable(unavailable())),
            Some(Step::Unexpected) => return Err(Failure::Unexpected(unavailable())),
            Some(Step::Lost) => return Err(Failure::Lost(unavailable())),
            Some(Step::Silence) => {
                deadline.over().await;
                return Err(Failure::Lost(unavailable()));
            }
            Some(Step::After(record)) => {
                self.memory
                    .commit(Commit::new(vec![], vec![Write::Put(record)]), deadline)
                    .await
                    .map_err(Failure::Final)?;
                return Err(Failure::Unexpected(unavailable()));
            }
            Some(Step::DoneAndLost(others)) => {
                self.memory.commit(commit.clone(), deadline).await.map_err(Failure::Final)?;
                for other in others {
                    self.memory.commit(other, deadline).await.map_err(Failure::Final)?;
                }
                return Err(Failure::Lost(unavailable()));
            }
            None => {}
        }
        if self.fenced.lock().expect("a test").contains(&commit.id) {
            return Err(Failure::Repeated(unavailable()));
        }
        self.memory.commit(commit.clone(), deadline).await.map_err(Failure::Final)
    }

    async fn try_find(&self, id: CommitId, deadline: &Deadline) -> Result<Option<Found>, Failure> {
        let entries =
            self.memory.journal(&JournalQuery::after(None, usize::MAX), deadline).await.map_err(Failure::Final)?;
        let entry = entries.iter().find(|entry| entry.id == id);
        let is_fenced = self.fenced.lock().expect("a test").contains(&id);
        Ok(entry.map(|entry| Found::Committed(entry.revision)).or(is_fenced.then_some(Found::Fenced)))
    }

    async fn try_fence(&self, commit: &Commit, deadline: &Deadline) -> Result<(), Failure> {
        if *self.is_silent.lock().expect("a test") {
            return Err(Failure::Lost(unavailable()));
        }
        if self.refused_fences.load(Ordering::Relaxed) > 0 {
            self.refused_fences.fetch_sub(1, Ordering::Relaxed);
            return Err(Failure::no_free_connection(&self.location()));
        }
        if self.try_find(commit.id, deadline).await?.is_some() {
            return Err(Failure::Repeated(unavailable()));
        }
        self.fenced.lock().expect("a test").push(commit.id);
        Ok(())
    }

    async fn try_journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>, Failure> {
        self.memory.journal(query, deadline).await.map_err(Failure::Final)
    }

    async fn try_newest_revision(&self, deadline: &Deadline) -> Result<Option<Revision>, Failure> {
        self.memory.newest_revision(deadline).await.map_err(Failure::Final)
    }

    async fn try_prune(&self, retention: Retention, deadline: &Deadline) -> Result<u64, Failure> {
        self.memory.prune_journal(&retention, deadline).await.map_err(Failure::Final)
    }

    fn prune_in_background(&self) {}

    async fn missing_tables(&self, _: &Deadline) -> Result<Vec<&'static str>, Failure> {
        let is_missing = *self.is_missing.lock().expect("a test");
        let all = sql::tables().iter().map(|table| table.name).chain([JOURNAL]).collect();
        let journal = if *self.has_journal.lock().expect("a test") { vec![] } else { vec![JOURNAL] };
        Ok(if is_missing { all } else { journal })
    }

    async fn make_tables(&self, _: &Deadline) -> Result<(), Failure> {
        if !*self.has_journal.lock().expect("a test") {
            return Err(Failure::Final(Error::new(ErrorKind::ReadOnly, "no CREATE for you")));
        }
        *self.is_missing.lock().expect("a test") = false;
        Ok(())
    }

    async fn try_remove(&self, _: &Deadline) -> Result<bool, Failure> {
        self.missing().map(|()| true)
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn record(value: &'static str) -> Record {
    Record::new(Key::project_object("p"), value, 1)
}

fn creation() -> Commit {
    let record = record("ours");
    Commit::new(vec![(record.key.clone(), Expected::Absent)], vec![Write::Put(record)])
}

fn deletion() -> Commit {
    Commit::new(
        vec![(Key::project_object("p"), Expected::Present)],
        vec![Write::DeleteProject { project: "p".to_owned() }],
    )
}

async fn outcome(steps: impl IntoIterator<Item = Step>) -> (Result<Outcome>, usize) {
    let database = Scripted::new(steps);
    let outcome = database.commit(creation(), &soon()).await;
    (outcome, database.attempts.load(Ordering::Relaxed))
}

async fn stored(database: &Scripted) -> Vec<Record> {
    let queries = [Query::Keys(vec![Key::project_object("p")])];
    database.read(&queries, &soon()).await.expect("an answer").remove(0)
}

#[tokio::test(start_paused = true)]
async fn what_was_in_the_way_is_tried_again() {
    let (outcome, attempts) = outcome([Step::Serialization, Step::Unexpected, Step::Serialization]).await;
    assert!(outcome.expect("a commit").is_committed());
    assert_eq!(attempts, 4);
}

/// What is told is the deadline, and not that there were others, which a caller could take for a conflict of its own.
#[tokio::test(start_paused = true)]
async fn others_are_in_the_way_until_the_deadline() {
    let (outcome, attempts) = outcome((0..1000).map(|_| Step::Serialization)).await;
    let error = outcome.expect_err("they never leave");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    assert!((3..1000).contains(&attempts), "{attempts} attempts");
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_lost_is_not_made_twice() {
    // Others undo it and do it again: that its expectations hold again proves nothing.
    let database = Scripted::new([]);
    database.commit(creation(), &soon()).await.expect("a commit");
    let others = vec![creation()];
    database.commits.lock().expect("a test").push_back(Step::DoneAndLost(others));
    assert!(database.commit(deletion(), &soon()).await.expect("a commit").is_committed());
    assert_eq!(stored(&database).await, [record("ours")], "what another made anew is still there");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_lost_on_the_way_is_made() {
    let (outcome, attempts) = outcome([Step::Lost, Step::Lost]).await;
    assert!(outcome.expect("a commit").is_committed());
    assert_eq!(attempts, 3);
}

#[tokio::test(start_paused = true)]
async fn another_writer_s_row_is_a_conflict() {
    let (found, attempts) = outcome([Step::After(record("theirs"))]).await;
    assert_eq!((found.expect("an outcome"), attempts), (Outcome::Conflict(Key::project_object("p")), 1));
    // Also where the database itself has compared.
    let database = Scripted::new([]);
    database.commit(creation(), &soon()).await.expect("a commit");
    let second = database.commit(creation(), &soon()).await.expect("an outcome");
    assert_eq!(second, Outcome::Conflict(Key::project_object("p")));
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_commit_that_was_given_up_stays_true() {
    let database = Scripted::new([Step::Silence]);
    let commit = creation();
    let error = database.commit(commit.clone(), &soon()).await.expect_err("there was no answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // The first attempt arrives after all.
    let late = database.try_commit(&commit, false, &soon()).await.expect_err("it is fenced off");
    assert!(matches!(late, Failure::Repeated(_)), "{late:?}");
    assert_eq!(stored(&database).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_after_a_lost_answer_is_only_told_when_it_is_sure_to_stay_one() {
    // The first attempt is still on its way when the second finds that another was faster.
    let database = Scripted::new([Step::Lost, Step::After(record("theirs"))]);
    let commit = creation();
    let outcome = database.commit(commit.clone(), &soon()).await.expect("an outcome");
    assert_eq!(outcome, Outcome::Conflict(Key::project_object("p")));
    // The other one deletes it again, and the first attempt arrives after all.
    database.commit(deletion(), &soon()).await.expect("a commit");
    let late = database.try_commit(&commit, false, &soon()).await.expect_err("it is fenced off");
    assert!(matches!(late, Failure::Repeated(_)), "{late:?}");
    assert_eq!(stored(&database).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_there_is_tried_a_few_times_and_the_commit_is_not_done() {
    let (outcome, attempts) = outcome([Step::Unusable, Step::Unusable]).await;
    assert!(outcome.expect("a commit").is_committed());
    assert_eq!(attempts, 3);
    let database = Scripted::new([Step::Unusable, Step::Unusable, Step::Unusable]);
    let error = database.commit(creation(), &soon()).await.expect_err("no connection");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(database.fenced.lock().expect("a test").is_empty(), "nothing was sent, so there is nothing to fence off");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_unknown_while_the_database_says_nothing() {
    let database = Scripted::new([Step::Silence]);
    *database.is_silent.lock().expect("a test") = true;
    let error = database.commit(creation(), &soon()).await.expect_err("nobody knows");
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_the_journal_has_is_only_looked_up() {
    let database = Scripted::new([]);
    let commit = creation();
    database.try_fence(&commit, &soon()).await.expect("a fence");
    *database.is_silent.lock().expect("a test") = true;
    let error = database.commit(commit, &soon()).await.expect_err("it is fenced off");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_fate_is_asked_for_again_when_there_was_no_connection() {
    let database = Scripted::new([Step::Silence]);
    database.refused_fences.store(3, Ordering::Relaxed);
    let error = database.commit(creation(), &soon()).await.expect_err("there was no answer");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(database.fenced.lock().expect("a test").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_journal_a_lost_answer_is_an_unknown_outcome_and_never_a_guess() {
    for mode in [SchemaMode::Auto, SchemaMode::Verify] {
        let database = Scripted::new([Step::DoneAndLost(vec![])]);
        *database.has_journal.lock().expect("a test") = false;
        *database.mode.lock().expect("a test") = mode;
        database.prepare(&soon()).await.expect("Feast's tables are there");
        let unkept = database.state.unkept();
        assert!(
            unkept.len() == 1 && unkept[0].contains("CREATE TABLE IF NOT EXISTS feast_registry_journal"),
            "{unkept:?}"
        );
        let error = database.commit(creation(), &soon()).await.expect_err("nobody knows");
        assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
        let error = database.journal(&JournalQuery::after(None, 1), &soon()).await.expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[tokio::test(start_paused = true)]
async fn tables_that_are_gone_hold_nothing_and_are_made_by_the_next_writer() {
    let database = Scripted::new([]);
    *database.is_missing.lock().expect("a test") = true;
    *database.mode.lock().expect("a test") = SchemaMode::Verify;
    let error = database.prepare(&soon()).await.expect_err("they are missing");
    assert_eq!(error.kind(), ErrorKind::SchemaMissing);
    assert!(error.to_string().contains("feast_metadata"), "{error}");
    *database.mode.lock().expect("a test") = SchemaMode::Auto;
    assert_eq!(stored(&database).await, []);
    assert!(*database.is_missing.lock().expect("a test"), "nothing is made for a reader");
    assert!(database.remove_if_empty(&soon()).await.expect("they are gone"));
    assert!(database.commit(creation(), &soon()).await.expect("a commit").is_committed());
    assert_eq!(database.attempts.load(Ordering::Relaxed), 2);
    assert_eq!(stored(&database).await, [record("ours")]);
}
