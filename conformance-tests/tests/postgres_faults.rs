//! PostgreSQL under people, programs and networks that get in the way: locks held for long, Feast's own registry deleting
//! meanwhile, sessions that became read-only, a BEGIN that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use feast_registry_core::config::{PoolConfig, SchemaMode};
use feast_registry_core::{
    Backend, Commit, Deadline, ErrorKind, Expected, JournalEntry, JournalQuery, Key, Kind, Outcome, Query, Record,
    Write,
};
use feast_registry_postgres::PostgresBackend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;

mod databases;

const PROJECT: &str = "rides";

/// A database of a test, and backends on it. Advisory locks are those of a whole database: who is held up in it holds up nobody
/// else.
struct OwnDatabase {
    name: String,
}

impl OwnDatabase {
    /// `None` if this run does without PostgreSQL.
    async fn create() -> Option<Self> {
        if databases::without("POSTGRES").is_some() {
            return None;
        }
        let name = databases::fresh_name();
        databases::postgres(&format!("CREATE DATABASE {name}")).await;
        Some(Self { name })
    }

    /// Its URL, through a proxy if a port is given.
    fn address(&self, port: Option<u16>) -> String {
        let url = databases::service("POSTGRES");
        let host = url.host().unwrap_or("127.0.0.1");
        let (host, port) = port.map_or((host, url.port().unwrap_or(5432)), |port| ("127.0.0.1", port));
        let user = url.username().unwrap_or("postgres");
        let password = url.password().map(|password| format!(":{password}")).unwrap_or_default();
        format!("postgresql://{user}{password}@{host}:{port}/{}?sslmode=disable", self.name)
    }

    /// The same for backends, whose sessions are known by a name.
    fn url(&self, port: Option<u16>) -> String {
        format!("{}&application_name={}", self.address(port), self.name)
    }

    fn backend(&self, size: u32, mode: SchemaMode) -> PostgresBackend {
        open(&self.url(None), size, mode)
    }

    /// One that has made its tables, and a project.
    async fn prepared(&self, size: u32) -> PostgresBackend {
        let backend = self.backend(size, SchemaMode::Auto);
        backend.prepare(&soon()).await.expect("the tables");
        backend.commit(put(Key::project_object(PROJECT), "first"), &soon()).await.expect("a project");
        backend
    }

    /// A session that knows nothing of this registry.
    async fn other(&self) -> Client {
        connect(&self.address(None)).await
    }

    /// How many sessions of the backends there are on the server.
    async fn sessions(&self, other: &Client) -> i64 {
        let text = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        other.query_one(text, &[&self.name]).await.expect("a count").get(0)
    }

    async fn remove(self) {
        databases::postgres(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

fn open(url: &str, size: u32, mode: SchemaMode) -> PostgresBackend {
    let pool = PoolConfig::new(size, 0);
    PostgresBackend::new(&url.parse().expect("a URL"), &pool, mode).expect("a backend")
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("PostgreSQL");
    tokio::spawn(connection);
    client
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn entity(name: &str) -> Key {
    Key::object(Kind::Entity, PROJECT, name)
}

fn write(key: Key, value: &'static str) -> Write {
    Write::Put(Record::new(key, value, 1_700_000_000))
}

/// Writes whatever is there.
fn put(key: Key, value: &'static str) -> Commit {
    Commit::new(Vec::new(), vec![write(key, value)])
}

/// Makes an entity in a project that is there.
fn creation(name: &str) -> Commit {
    let expectations = vec![(Key::project_object(PROJECT), Expected::Present), (entity(name), Expected::Absent)];
    Commit::new(expectations, vec![write(entity(name), "new")])
}

async fn stored(backend: &dyn Backend, key: Key) -> Option<String> {
    let records = backend.read(&[Query::Keys(vec![key])], &soon()).await.expect("an answer").remove(0);
    records.first().map(|record| String::from_utf8_lossy(&record.value).into_owned())
}

async fn journal(backend: &dyn Backend) -> Vec<JournalEntry> {
    backend.journal(&JournalQuery::after(None, 1000), &soon()).await.expect("the journal")
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until so many sessions of the backends wait for a lock on the server.
async fn until_locked_out(database: &OwnDatabase, other: &Client, count: i64) {
    let text = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'";
    until("a session waits for a lock", async || {
        other.query_one(text, &[&database.name]).await.expect("a count").get::<_, i64>(0) >= count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_acknowledged_in_a_project_that_another_program_is_deleting() {
    let Some(database) = OwnDatabase::create().await else { return };
    let backend = Arc::new(database.prepared(4).await);
    let (deleter, watcher) = (database.other().await, database.other().await);
    deleter.batch_execute("BEGIN; DELETE FROM entities; DELETE FROM projects").await.expect("a deletion");
    let commit = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { backend.commit(creation("late"), &soon()).await }
    });
    until_locked_out(&database, &watcher, 1).await;
    deleter.batch_execute("COMMIT").await.expect("a deletion");
    let outcome = commit.await.expect("a task").expect("an outcome");
    assert_eq!(outcome, Outcome::Conflict(Key::project_object(PROJECT)));
    assert_eq!(stored(&*backend, entity("late")).await, None);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_program_deletes_a_project_after_what_is_being_made_in_it() {
    let Some(database) = OwnDatabase::create().await else { return };
    let backend = Arc::new(database.prepared(4).await);
    let (deleter, holder) = (database.other().await, database.other().await);
    // Holds the commit up when it has looked at its project.
    let insert = "INSERT INTO entities (entity_name, project_id, last_updated_timestamp, entity_proto) VALUES ('e', 'rides', 1, '')";
    holder.batch_execute(&format!("BEGIN; {insert}")).await.expect("an insertion");
    let commit = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { backend.commit(creation("e"), &soon()).await }
    });
    until_locked_out(&database, &deleter, 1).await;
    let refused =
        deleter.batch_execute("SET lock_timeout = '300ms'; DELETE FROM projects").await.expect_err("it is held");
    assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE), "{refused}");
    holder.batch_execute("ROLLBACK").await.expect("the end");
    assert!(commit.await.expect("a task").expect("an outcome").is_committed());
    deleter.batch_execute("SET lock_timeout = '20s'; DELETE FROM projects").await.expect("a deletion");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_locked_row_holds_up_those_who_write_it_and_nobody_else() {
    const SIZE: u32 = 8;
    let Some(database) = OwnDatabase::create().await else { return };
    let backend = Arc::new(database.prepared(SIZE).await);
    for name in ["locked", "other"] {
        backend.commit(creation(name), &soon()).await.expect("an entity");
    }
    let (holder, watcher) = (database.other().await, database.other().await);
    holder.batch_execute("BEGIN; SELECT FROM entities WHERE entity_name = 'locked' FOR UPDATE").await.expect("a lock");
    let began = Instant::now();
    let writers: Vec<_> = (0..40)
        .map(|_| {
            let backend = Arc::clone(&backend);
            tokio::spawn(async move {
                let deadline = Deadline::after(Duration::from_secs(3));
                backend.commit(put(entity("locked"), "changed"), &deadline).await
            })
        })
        .collect();
    until_locked_out(&database, &watcher, i64::from(SIZE) - 2).await;
    while writers.iter().any(|writer| !writer.is_finished()) && began.elapsed() < Duration::from_millis(2500) {
        let deadline = Deadline::after(Duration::from_secs(1));
        let read = backend.read(&[Query::Keys(vec![entity("other")])], &deadline).await;
        assert_eq!(read.expect("a read of another object").remove(0).len(), 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for writer in writers {
        let error = writer.await.expect("a task").expect_err("the row is locked");
        // Certainly not done, and not `UnknownOutcome`.
        assert!(matches!(error.kind(), ErrorKind::DeadlineExceeded | ErrorKind::Unavailable), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(6), "writers end with their deadlines: {:?}", began.elapsed());
    // One whose caller leaves.
    let patient = Deadline::after(Duration::from_secs(30));
    let left = backend.commit(put(entity("locked"), "left"), &patient);
    tokio::time::timeout(Duration::from_millis(500), left).await.expect_err("the row is locked");
    until("given-up sessions end on the server while the lock is held", async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND state <> 'idle'";
        watcher.query_one(waiting, &[&database.name]).await.expect("a count").get::<_, i64>(0) == 0
    })
    .await;
    assert!(database.sessions(&watcher).await <= i64::from(SIZE), "no sessions beyond the pool");
    holder.batch_execute("ROLLBACK").await.expect("the end");
    assert_eq!(
        stored(&*backend, entity("locked")).await.as_deref(),
        Some("new"),
        "what was given up is not done later"
    );
    backend.commit(put(entity("locked"), "changed"), &soon()).await.expect("a write");
    backend.close().await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sessions_that_became_read_only_are_replaced() {
    let Some(database) = OwnDatabase::create().await else { return };
    let set = |setting: &str| format!("ALTER DATABASE {} {setting}", database.name);
    database.backend(4, SchemaMode::Auto).prepare(&soon()).await.expect("the tables");
    databases::postgres(&set("SET default_transaction_read_only = on")).await;
    let backend = database.backend(4, SchemaMode::Auto);
    let refused = backend.commit(put(Key::project_object(PROJECT), "x"), &soon()).await.expect_err("it is read-only");
    assert_eq!(refused.kind(), ErrorKind::ReadOnly, "{refused}");
    // What new sessions of another process are, those that it has are not.
    let backend = database.backend(4, SchemaMode::Auto);
    assert_eq!(stored(&backend, Key::project_object(PROJECT)).await, None);
    databases::postgres(&set("RESET default_transaction_read_only")).await;
    let outcome =
        backend.commit(put(Key::project_object(PROJECT), "x"), &soon()).await.expect("new sessions can write");
    assert!(outcome.is_committed());
    database.remove().await;
}

/// A proxy in which no transaction can begin.
async fn without_begin(server: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("the port").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&server).await else { continue };
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    let sent = &mut buffer[..length];
                    let places: Vec<usize> = sent
                        .windows(16)
                        .enumerate()
                        .filter(|(_, part)| part == b"BEGIN ISOLATION ")
                        .map(|(at, _)| at)
                        .collect();
                    places.into_iter().for_each(|at| sent[at..at + 5].copy_from_slice(b"BEGXN"));
                    if to_server.write_all(sent).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_written_if_the_transaction_did_not_begin() {
    let Some(database) = OwnDatabase::create().await else { return };
    let backend = database.prepared(2).await;
    let url = databases::service("POSTGRES");
    let server = format!("{}:{}", url.host().unwrap_or("127.0.0.1"), url.port().unwrap_or(5432));
    let broken = open(&database.url(Some(without_begin(server).await)), 2, SchemaMode::Auto);
    assert_eq!(stored(&broken, Key::project_object(PROJECT)).await.as_deref(), Some("first"), "reads go through");
    for attempt in 0..2 {
        let commit = Commit::new(Vec::new(), vec![write(entity("one"), "x"), write(entity("two"), "x")]);
        broken.commit(commit, &soon()).await.expect_err("nothing begins");
        for name in ["one", "two"] {
            assert_eq!(stored(&backend, entity(name)).await, None, "attempt {attempt}: a statement ran on its own");
        }
    }
    assert_eq!(journal(&backend).await.len(), 1, "the project alone");
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_of_the_journal_see_a_commit_when_none_can_come_before_it() {
    let Some(database) = OwnDatabase::create().await else { return };
    let backend = Arc::new(database.prepared(6).await);
    let (holder, stranger) = (database.other().await, database.other().await);
    let insert = "INSERT INTO entities (entity_name, project_id, last_updated_timestamp, entity_proto) VALUES ('slow', 'rides', 1, '')";
    holder.batch_execute(&format!("BEGIN; {insert}")).await.expect("an insertion");
    let slow = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { backend.commit(creation("slow"), &soon()).await }
    });
    until_locked_out(&database, &stranger, 1).await;
    let slow_has_its_revision_first = backend.commit(creation("fast"), &soon()).await.expect("a commit");
    let after_first = journal(&*backend).await;
    assert_eq!(after_first.len(), 1, "one of a lower revision may come yet: {after_first:?}");
    holder.batch_execute("ROLLBACK").await.expect("the end");
    let slow = slow.await.expect("a task").expect("an outcome");
    let entries = journal(&*backend).await;
    let revisions: Vec<_> = entries.iter().skip(1).map(|entry| Some(entry.revision)).collect();
    let told = |outcome: &Outcome| match outcome {
        Outcome::Committed { revision } => *revision,
        other => panic!("{other:?}"),
    };
    assert_eq!(revisions, [told(&slow), told(&slow_has_its_revision_first)]);
    // What goes on elsewhere on the server is of no concern.
    stranger.batch_execute("BEGIN; SELECT txid_current()").await.expect("a transaction");
    backend.commit(creation("next"), &soon()).await.expect("a commit");
    assert_eq!(journal(&*backend).await.len(), 4);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_journal_of_another_server_is_put_below_what_this_one_commits() {
    let Some(database) = OwnDatabase::create().await else { return };
    let backend = database.prepared(2).await;
    for name in ["one", "two"] {
        backend.commit(creation(name), &soon()).await.expect("an entity");
    }
    // As if it were restored from the dump of a server that had seen more.
    let other = database.other().await;
    other.batch_execute("UPDATE feast_registry_journal SET revision = revision + 1000000000").await.expect("a restore");
    let before: Vec<_> =
        other.query("SELECT revision FROM feast_registry_journal ORDER BY 1", &[]).await.expect("rows");
    let cursor = feast_registry_core::Revision::new(before[1].get::<_, i64>(0) as u64);
    let backend = database.backend(2, SchemaMode::Auto);
    backend.prepare(&soon()).await.expect("the tables are there");
    backend.commit(creation("three"), &soon()).await.expect("an entity");
    let entries = journal(&backend).await;
    let names: Vec<String> = entries.iter().map(|entry| entry.changes[0].target.project().to_owned()).collect();
    assert_eq!(names.len(), 4);
    let last: Vec<_> = entries.iter().map(|entry| &entry.changes[0].target).collect();
    let expected = [Key::project_object(PROJECT), entity("one"), entity("two"), entity("three")];
    let expected: Vec<_> = expected.into_iter().map(feast_registry_core::Target::Key).collect();
    assert_eq!(last, expected.iter().collect::<Vec<_>>());
    let error =
        backend.journal(&JournalQuery::after(Some(cursor), 10), &soon()).await.expect_err("it is numbered anew");
    assert_eq!(error.kind(), ErrorKind::Compacted);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn where_no_journal_may_be_made_commits_take_place_without_one_and_it_is_said() {
    let Some(database) = OwnDatabase::create().await else { return };
    database.prepared(2).await;
    let other = database.other().await;
    other.batch_execute("DROP TABLE feast_registry_journal").await.expect("as Feast made them");
    for mode in [SchemaMode::Verify, SchemaMode::Skip] {
        let backend = database.backend(2, mode);
        backend.prepare(&soon()).await.expect("Feast's tables are there");
        let name = if mode == SchemaMode::Verify { "one" } else { "two" };
        let outcome = backend.commit(creation(name), &soon()).await.expect("a commit");
        assert_eq!(format!("{outcome:?}"), "Committed { revision: None }");
        let unkept = backend.limits().unkept;
        assert!(
            unkept.len() == 1 && unkept[0].contains("CREATE TABLE IF NOT EXISTS feast_registry_journal"),
            "{unkept:?}"
        );
    }
    let backend = database.backend(2, SchemaMode::Auto);
    backend.prepare(&soon()).await.expect("the journal");
    backend.commit(creation("three"), &soon()).await.expect("a commit");
    assert_eq!((journal(&backend).await.len(), backend.limits().unkept.len()), (1, 0));
    database.remove().await;
}

/// The session on which a backend listens, once there is one other than this.
async fn listener(database: &OwnDatabase, other: &Client, than: Option<i32>) -> i32 {
    let text = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'LISTEN%'";
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        let rows = other.query(text, &[&database.name]).await.expect("the sessions");
        let pids = rows.iter().map(|row| row.get::<_, i32>(0));
        if let Some(pid) = pids.into_iter().find(|pid| Some(*pid) != than) {
            return pid;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no session listens");
}

/// How long it takes on the average until a waiter knows what another backend has committed.
async fn noticed_after(waiter: &Arc<PostgresBackend>, committer: &PostgresBackend) -> Duration {
    const COMMITS: u32 = 8;
    let mut total = Duration::ZERO;
    for number in 0..COMMITS {
        let last = journal(&**waiter).await.last().map(|entry| entry.revision);
        let waiting = tokio::spawn({
            let waiter = Arc::clone(waiter);
            async move {
                while waiter.journal(&JournalQuery::after(last, 1), &soon()).await.expect("the journal").is_empty() {
                    waiter.wait_for_commit(last, &soon()).await;
                }
                Instant::now()
            }
        });
        // At another moment of what would be a poll.
        tokio::time::sleep(Duration::from_millis(u64::from(60 + number * 70))).await;
        committer.commit(put(entity("driver"), "new"), &soon()).await.expect("a commit");
        let committed = Instant::now();
        total += waiting.await.expect("the waiter").saturating_duration_since(committed);
    }
    total / COMMITS
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_is_told_of_commits_also_after_the_session_that_listens_was_ended() {
    let Some(database) = OwnDatabase::create().await else { return };
    let (waiter, committer) = (Arc::new(database.prepared(2).await), database.prepared(2).await);
    let other = database.other().await;
    assert!(
        other
            .query(
                "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND application_name = $1",
                &[&database.name]
            )
            .await
            .expect("the sessions")
            .is_empty(),
        "nobody waits, and a session listens"
    );
    waiter.wait_for_commit(None, &Deadline::after(Duration::from_millis(1))).await;
    let first = listener(&database, &other, None).await;
    let after = noticed_after(&waiter, &committer).await;
    assert!(after < Duration::from_millis(200), "a commit is noticed after {after:?}");

    other.execute("SELECT pg_terminate_backend($1)", &[&first]).await.expect("its end");
    let second = listener(&database, &other, Some(first)).await;
    assert_ne!(first, second);
    let after = noticed_after(&waiter, &committer).await;
    assert!(after < Duration::from_millis(200), "after another session listens, a commit is noticed after {after:?}");

    // Closed or dropped, a backend leaves no session behind.
    waiter.close().await;
    drop(committer);
    until("the sessions end", async || database.sessions(&other).await == 0).await;
    // Nor does one that is closed begin to listen again.
    waiter.wait_for_commit(None, &Deadline::after(Duration::from_millis(200))).await;
    assert_eq!(database.sessions(&other).await, 0);
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_is_told_of_a_commit_when_the_journal_shows_it() {
    let Some(database) = OwnDatabase::create().await else { return };
    let backend = Arc::new(database.prepared(3).await);
    let (other, mut holder) = (database.other().await, database.other().await);
    backend.wait_for_commit(None, &Deadline::after(Duration::from_millis(1))).await;
    listener(&database, &other, None).await;
    let last = journal(&*backend).await.last().map(|entry| entry.revision);
    // A commit with a lower revision is under way.
    let under_way = holder.transaction().await.expect("a transaction");
    under_way.batch_execute("LOCK TABLE feast_registry_journal IN ROW EXCLUSIVE MODE").await.expect("a lock");
    under_way.query_one("SELECT txid_current()", &[]).await.expect("its revision");
    backend.commit(put(entity("driver"), "new"), &soon()).await.expect("a commit");
    let waiting = tokio::spawn({
        let backend = Arc::clone(&backend);
        async move { backend.wait_for_commit(last, &soon()).await }
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!waiting.is_finished(), "the wait is over though the journal has nothing to show");
    assert_eq!(journal(&*backend).await.last().map(|entry| entry.revision), last);
    under_way.rollback().await.expect("its end");
    let began = Instant::now();
    waiting.await.expect("the waiter");
    assert!(began.elapsed() < Duration::from_secs(1), "what was held back is noticed after {:?}", began.elapsed());
    assert!(journal(&*backend).await.last().map(|entry| entry.revision) > last);
    database.remove().await;
}
