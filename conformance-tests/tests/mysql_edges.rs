//! MySQL and MariaDB at the edges of a commit: who waits for whom, what is given up, sessions that are of no use any more,
//! databases that are gone, and the journal's own upkeep.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use feast_registry_core::config::{RegistryUrl, SchemaMode};
use feast_registry_core::{
    Backend, Commit, CommitId, Deadline, Error, ErrorKind, Expected, Image, JournalQuery, Key, Kind, Outcome, Query,
    Record, Retention, Revision, Write,
};
use feast_registry_mysql::MySqlBackend;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

#[path = "databases/mod.rs"]
mod databases;
#[path = "databases/injector.rs"]
mod injector;

use databases::mysql::{Database, on_each_server};
use injector::Injector;

const AT: i64 = 1_700_000_000;

fn soon() -> Deadline {
    within(30_000)
}

fn within(milliseconds: u64) -> Deadline {
    Deadline::after(Duration::from_millis(milliseconds))
}

fn backend(url: &str) -> MySqlBackend {
    let url = url.parse().expect("a URL");
    MySqlBackend::new(&url, &databases::pool(), SchemaMode::Auto).expect("a backend")
}

async fn open(database: &Database) -> Arc<MySqlBackend> {
    let backend = backend(&database.url);
    backend.prepare(&soon()).await.expect("tables");
    for project in ["p", "q"] {
        revision(backend.commit(put(Key::project_object(project), "project"), &soon()).await);
    }
    Arc::new(backend)
}

fn entity(project: &str, name: &str) -> Key {
    Key::object(Kind::Entity, project, name)
}

fn put(key: Key, value: impl Into<Bytes>) -> Commit {
    Commit::new(Vec::new(), vec![Write::Put(Record::new(key, value, AT))])
}

fn create(key: Key) -> Commit {
    Commit::new(vec![(key.clone(), Expected::Absent)], vec![Write::Put(Record::new(key, "new", AT))])
}

#[track_caller]
fn revision(outcome: Result<Outcome, Error>) -> Revision {
    match outcome.expect("a commit") {
        Outcome::Committed { revision: Some(revision) } => revision,
        outcome => panic!("{outcome:?}"),
    }
}

async fn get(backend: &MySqlBackend, key: &Key) -> Result<Option<Bytes>, Error> {
    let mut answers = backend.read(&[Query::Keys(vec![key.clone()])], &soon()).await?;
    Ok(answers.remove(0).pop().map(|record| record.value))
}

/// Somebody else in the middle of a transaction: inserts the entity, and does not commit.
async fn insert_uncommitted(database: &Database, project: &str, name: &str) -> Conn {
    let mut other = database.connect().await;
    other.query_drop("BEGIN").await.expect("a transaction");
    let insert = format!(
        "INSERT INTO entities (entity_name, project_id, last_updated_timestamp, entity_proto) \
         VALUES ('{name}', '{project}', 1, '')"
    );
    other.query_drop(insert).await.expect("an insertion");
    other
}

/// How many sessions work in the database: all of them, and those that run something.
async fn sessions(database: &Database) -> (usize, usize) {
    let list = format!("SELECT COMMAND FROM information_schema.PROCESSLIST WHERE DB = '{}'", database.name);
    let commands: Vec<String> = database.server().await.query(list).await.expect("the sessions");
    (commands.len(), commands.iter().filter(|command| *command != "Sleep").count())
}

/// Waits until a condition on [`sessions`] holds.
async fn until(database: &Database, what: &str, is_so: impl Fn((usize, usize)) -> bool) {
    let began = Instant::now();
    loop {
        let now = sessions(database).await;
        if is_so(now) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: there are {now:?} sessions");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A commit that waits for somebody else's row has not locked the row that all revisions come from.
async fn who_waits_for_a_row_keeps_no_other_project_waiting(database: &Database) {
    let backend = open(database).await;
    let mut other = insert_uncommitted(database, "p", "taken").await;
    let waiting = Arc::clone(&backend);
    let waiting = tokio::spawn(async move { waiting.commit(create(entity("p", "taken")), &soon()).await });
    until(database, "one waits for the insertion", |(_, running)| running == 1).await;
    let passed = backend.commit(create(entity("q", "driver")), &within(5000)).await;
    let passed = revision(passed);
    assert!(!waiting.is_finished(), "it still waits");
    other.query_drop("ROLLBACK").await.expect("an end");
    assert!(revision(waiting.await.expect("a task")) > passed, "in the order of commits");
}

/// Who creates an object needs its project to stay, and does not wait for others who need the same.
async fn commits_of_one_project_do_not_wait_for_each_other(database: &Database) {
    let backend = open(database).await;
    let mut other = database.connect().await;
    other.query_drop("BEGIN").await.expect("a transaction");
    let hold = "SELECT project_id FROM projects WHERE project_id = 'p' LOCK IN SHARE MODE";
    let held: Vec<String> = other.query(hold).await.expect("a lock");
    assert_eq!(held.len(), 1);
    let mut commit = create(entity("p", "driver"));
    commit.expectations.push((Key::project_object("p"), Expected::Present));
    revision(backend.commit(commit, &within(5000)).await);
    let removal = Commit::new(Vec::new(), vec![Write::DeleteProject { project: "p".to_owned() }]);
    let error = backend.commit(removal.clone(), &within(500)).await.expect_err("the project is needed");
    assert!(error.is_retryable(), "{error}");
    other.query_drop("ROLLBACK").await.expect("an end");
    revision(backend.commit(removal, &soon()).await);
    let mut late = create(entity("p", "late"));
    late.expectations.push((Key::project_object("p"), Expected::Present));
    let outcome = backend.commit(late, &soon()).await.expect("an outcome");
    assert_eq!(outcome, Outcome::Conflict(Key::project_object("p")));
}

/// Whatever a commit waits for: when it is given up, it says so in time, is not done, and nothing of it goes on.
async fn what_is_given_up_is_not_done_later(database: &Database) {
    let backend = open(database).await;
    revision(backend.commit(put(entity("p", "there"), "old"), &soon()).await);
    for (commit, others) in [
        // The first half of a commit waits, then the second.
        (put(entity("p", "there"), "new"), "SELECT * FROM entities WHERE entity_name = 'there' FOR UPDATE".to_owned()),
        (
            create(entity("p", "absent")),
            "INSERT INTO entities (entity_name, project_id, last_updated_timestamp, entity_proto) \
             VALUES ('absent', 'p', 1, '')"
                .to_owned(),
        ),
    ] {
        for _ in 0..5 {
            let mut other = database.connect().await;
            other.query_drop("BEGIN").await.expect("a transaction");
            other.query_drop(&others).await.expect("a lock");
            let began = Instant::now();
            let error = backend.commit(commit.clone(), &within(400)).await.expect_err("it cannot be done");
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
            assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
            until(database, "nothing goes on", |(_, running)| running == 0).await;
            other.query_drop("ROLLBACK").await.expect("an end");
        }
    }
    assert_eq!(get(&backend, &entity("p", "there")).await.expect("a read").as_deref(), Some(&b"old"[..]));
    assert_eq!(get(&backend, &entity("p", "absent")).await.expect("a read"), None);
    // And the same can be done when nothing is in the way.
    revision(backend.commit(create(entity("p", "absent")), &soon()).await);
}

/// Callers who leave take their sessions with them, while what they waited for is still locked.
async fn callers_who_leave_leave_no_sessions(database: &Database) {
    let backend = open(database).await;
    let mut other = insert_uncommitted(database, "p", "taken").await;
    for _ in 0..8 {
        let waiting = Arc::clone(&backend);
        let waiting = tokio::spawn(async move { waiting.commit(create(entity("p", "taken")), &soon()).await });
        until(database, "one waits for the insertion", |(_, running)| running == 1).await;
        waiting.abort();
        // That of the other, and a pool of three.
        until(database, "nothing goes on", |(all, running)| running == 0 && all <= 4).await;
    }
    other.query_drop("ROLLBACK").await.expect("an end");
    assert_eq!(get(&backend, &entity("p", "taken")).await.expect("a read"), None);
}

/// As many writers as there may be wait for a lock: reads do not, nor does who waits for a connection beyond its deadline.
async fn reads_go_on_while_writers_are_stuck(database: &Database) {
    let backend = open(database).await;
    revision(backend.commit(put(entity("p", "there"), "old"), &soon()).await);
    let mut other = database.connect().await;
    other.query_drop("BEGIN").await.expect("a transaction");
    other.query_drop("SELECT * FROM projects FOR UPDATE").await.expect("a lock");
    let mut writers = Vec::new();
    for number in 0..10 {
        let backend = Arc::clone(&backend);
        let commit = create(entity("p", &format!("new {number}")));
        writers.push(tokio::spawn(async move { backend.commit(commit, &soon()).await }));
    }
    until(database, "writers wait", |(_, running)| running >= 2).await;
    for _ in 0..20 {
        let keys = [Query::Keys(vec![entity("p", "there")])];
        let found = backend.read(&keys, &within(2000)).await.expect("a read beside writers that wait");
        assert_eq!(found[0].len(), 1);
    }
    let error = backend.commit(create(entity("p", "late")), &within(300)).await.expect_err("there is no connection");
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
    other.query_drop("ROLLBACK").await.expect("an end");
    for writer in writers {
        revision(writer.await.expect("a task"));
    }
    assert_eq!(get(&backend, &entity("p", "late")).await.expect("a read"), None, "it is not done later");
}

/// As after a failover: sessions that cannot write any more, while new ones can.
async fn sessions_that_became_read_only_are_replaced(database: &Database) {
    let server: RegistryUrl = database.url.parse().expect("a URL");
    let (host, port) = (server.host().unwrap_or("127.0.0.1"), server.port().unwrap_or(3306));
    let mut addresses = (host, port).to_socket_addrs().expect("the address of the server");
    let proxy = Injector::start(addresses.next().expect("an address")).await;
    let user = server.username().unwrap_or("root");
    let password = server.password().map(|password| format!(":{password}")).unwrap_or_default();
    // The proxy speaks no TLS.
    let url = format!("mysql://{user}{password}@127.0.0.1:{}/{}?ssl_disabled=true", proxy.port, database.name);
    open(database).await;
    let backend = Arc::new(backend(&url));
    // Several sessions.
    let reads = (0..3).map(|_| {
        let backend = Arc::clone(&backend);
        tokio::spawn(async move { get(&backend, &entity("p", "driver")).await.map(drop) })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.expect("a task").expect("a read");
    }
    revision(backend.commit(create(entity("p", "before")), &soon()).await);
    let sessions = proxy.inject("SET SESSION TRANSACTION READ ONLY").await;
    assert!(sessions > 0);
    for number in 0..5 {
        revision(backend.commit(create(entity("p", &format!("after {number}"))), &soon()).await);
    }
    // And if new ones are no better, that is what is said.
    proxy.inject_always("SET SESSION TRANSACTION READ ONLY");
    for number in 0..3 {
        let outcome = backend.commit(create(entity("p", &format!("never {number}"))), &soon()).await;
        assert_eq!(outcome.expect_err("it is read-only").kind(), ErrorKind::ReadOnly);
        get(&backend, &entity("p", "before")).await.expect("a read").expect("an entity");
    }
}

/// Rights that are granted while a registry is open are used.
async fn rights_that_were_granted_later_are_used(database: &Database) {
    open(database).await;
    let mut server = database.server().await;
    let user = format!("my_{}", database.name);
    let at = |host: &str| format!("'{user}'@'{host}'");
    let on_all = |what: &str, to: &str| format!("{what} ON {}.* {to}", database.name);
    for host in ["%", "localhost"] {
        server.query_drop(format!("CREATE USER {} IDENTIFIED BY 'secret'", at(host))).await.expect("a user");
        server.query_drop(on_all("GRANT SELECT", &format!("TO {}", at(host)))).await.expect("some rights");
    }
    let root: RegistryUrl = database.url.parse().expect("a URL");
    let (host, port) = (root.host().unwrap_or("127.0.0.1"), root.port().unwrap_or(3306));
    let backend = backend(&format!("mysql://{user}:secret@{host}:{port}/{}", database.name));
    backend.prepare(&soon()).await.expect("the tables are there");
    get(&backend, &entity("p", "driver")).await.expect("a read");
    let error = backend.commit(create(entity("p", "driver")), &soon()).await.expect_err("it may not");
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    for host in ["%", "localhost"] {
        let rights = on_all("GRANT INSERT, UPDATE, DELETE", &format!("TO {}", at(host)));
        server.query_drop(rights).await.expect("more rights");
    }
    // Sessions are not asked for anew more often than every few seconds.
    let began = Instant::now();
    while let Err(error) = backend.commit(create(entity("p", "driver")), &soon()).await {
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for host in ["%", "localhost"] {
        server.query_drop(format!("DROP USER {}", at(host))).await.expect("the user goes");
    }
}

/// A database that was dropped does not look like a registry that is empty.
async fn a_database_that_was_dropped_is_said_to_be_gone(database: &Database) {
    let backend = open(database).await;
    let mut server = database.server().await;
    server.query_drop(format!("DROP DATABASE {}", database.name)).await.expect("it is dropped");
    let is_gone = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("no such database"), "{error}");
    };
    let fresh = self::backend(&database.url);
    for backend in [&*backend, &fresh] {
        for _ in 0..3 {
            is_gone(get(backend, &entity("p", "driver")).await.expect_err("a read"));
            is_gone(backend.commit(create(entity("p", "driver")), &soon()).await.expect_err("a commit"));
            is_gone(backend.prepare(&soon()).await.expect_err("a preparation"));
            is_gone(backend.journal(&JournalQuery::after(None, 10), &soon()).await.expect_err("a look at the journal"));
        }
    }
    server.query_drop(format!("CREATE DATABASE {}", database.name)).await.expect("a database");
    revision(backend.commit(create(entity("p", "driver")), &soon()).await);
}

/// The row that revisions come from, lost with its table or without: they go on where the journal ends.
async fn the_last_revision_is_found_again(database: &Database) {
    let backend = open(database).await;
    revision(backend.commit(create(entity("p", "first")), &soon()).await);
    // Ahead of the clock, from which a revision could be had as well.
    for table in ["feast_registry_journal", "feast_registry_journal_head"] {
        let ahead = format!("UPDATE {table} SET revision = revision + 3600000000");
        database.execute(&[ahead.as_str()]).await;
    }
    let mut last = revision(backend.commit(create(entity("p", "second")), &soon()).await);
    for (number, loss) in
        ["DELETE FROM feast_registry_journal_head", "DROP TABLE feast_registry_journal_head"].into_iter().enumerate()
    {
        database.execute(&[loss]).await;
        for entities in ["one", "two"] {
            let next = revision(backend.commit(create(entity("p", &format!("{entities} {number}"))), &soon()).await);
            assert_eq!(next.number(), last.number() + 1, "after {loss}");
            last = next;
        }
    }
}

/// A change whose both sides are as large as the server takes at once can be read in the journal.
async fn large_images_come_back(database: &Database) {
    let backend = open(database).await;
    // MariaDB takes 16 MiB at once.
    let size = backend.limits().value_bytes.min(16 << 20) - (64 << 10) - 4096;
    let (old, new) = (Bytes::from(vec![1; size]), Bytes::from(vec![2; size]));
    let before = revision(backend.commit(put(entity("p", "large"), old.clone()), &soon()).await);
    revision(backend.commit(put(entity("p", "large"), new.clone()), &soon()).await);
    let entries = backend.journal(&JournalQuery::after(Some(before), 10), &soon()).await.expect("an entry");
    let [entry] = entries.as_slice() else { panic!("{} entries", entries.len()) };
    let [change] = entry.changes.as_slice() else { panic!("{} changes", entry.changes.len()) };
    assert!(change.before == Image::Value(old) && change.after == Image::Value(new), "both sides");
}

/// What is too old is removed, the youngest stays, and no writer waits for that.
async fn what_is_old_is_pruned_while_writers_go_on(database: &Database) {
    const OLD: usize = 600;
    let backend = open(database).await;
    let mut first = None;
    let oldest = CommitId::random();
    for number in 0..OLD {
        let commit = put(entity("p", "driver"), number.to_string());
        let commit = if number == 0 { commit.with_id(oldest) } else { commit };
        let revision = revision(backend.commit(commit, &soon()).await);
        first.get_or_insert(revision);
    }
    database.execute(&["UPDATE feast_registry_journal SET stored_at = stored_at - 30 * 24 * 3600"]).await;
    // Somebody looks at an old entry, and holds it.
    let mut other = database.connect().await;
    other.query_drop("BEGIN").await.expect("a transaction");
    let hold = format!("SELECT * FROM feast_registry_journal WHERE commit_id = '{oldest}' FOR UPDATE");
    other.query_drop(hold).await.expect("a lock");

    let later = MySqlBackend::new(&database.url.parse().expect("a URL"), &databases::pool(), SchemaMode::Auto)
        .expect("a backend")
        .with_retention(Retention::new(Duration::from_secs(7 * 24 * 3600), 100));
    for number in 0..10 {
        revision(later.commit(create(entity("q", &format!("young {number}"))), &within(10_000)).await);
    }
    other.query_drop("ROLLBACK").await.expect("an end");
    let began = Instant::now();
    loop {
        let left: Vec<u64> = database
            .query("SELECT COUNT(*) FROM feast_registry_journal WHERE stored_at < UNIX_TIMESTAMP() - 24 * 3600")
            .await;
        // The newest 256 commits stay, whatever their age.
        if left[0] <= 256 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{left:?} are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let entries = later.journal(&JournalQuery::after(None, 100), &soon()).await.expect("entries");
    assert_eq!(entries.len(), 100, "a page of them");
    let compacted = later.journal(&JournalQuery::after(first, 10), &soon()).await.expect_err("it is gone");
    assert_eq!(compacted.kind(), ErrorKind::Compacted);
}

on_each_server!(
    who_waits_for_a_row_keeps_no_other_project_waiting,
    commits_of_one_project_do_not_wait_for_each_other,
    what_is_given_up_is_not_done_later,
    callers_who_leave_leave_no_sessions,
    reads_go_on_while_writers_are_stuck,
    sessions_that_became_read_only_are_replaced,
    rights_that_were_granted_later_are_used,
    a_database_that_was_dropped_is_said_to_be_gone,
    the_last_revision_is_found_again,
    large_images_come_back,
    what_is_old_is_pruned_while_writers_go_on,
);
