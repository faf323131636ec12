//! Tables of MySQL and MariaDB that Feast made: what can be stored in them, and how they are mended.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::proto::core::FeatureViewVersionRecord;
use feast_registry_core::{
    Backend, Commit, Deadline, Error, ErrorKind, Expected, Key, Kind, Outcome, Query, Record, Write,
};
use feast_registry_mysql::MySqlBackend;
use prost::Message;

#[path = "databases/mod.rs"]
mod databases;

use databases::mysql::{Database, on_each_server};

/// What SQLAlchemy makes of Feast 0.67.0's tables for MySQL, with their indexes.
const FEASTS: &str = include_str!("databases/feast_mysql.sql");

const AT: i64 = 1_700_000_000;

/// Makes the tables as Feast does in a database with such a character set. `replace` are texts to be replaced in the
/// definitions, as they were in older versions.
async fn feasts_tables(database: &Database, charset: &str, replace: &[(&str, &str)]) {
    let mut definitions = FEASTS.to_owned();
    for (text, with) in replace {
        assert!(definitions.contains(text), "{text} is in Feast's definitions");
        definitions = definitions.replace(text, with);
    }
    let default = format!("ALTER DATABASE {} {charset}", database.name);
    let statements: Vec<&str> = definitions.split("\n\n").map(str::trim).filter(|text| !text.is_empty()).collect();
    assert_eq!(statements.len(), 2 * feast_registry_sql::tables().len(), "a table and its index each");
    let mut conn = database.connect().await;
    use mysql_async::prelude::Queryable;
    for statement in [default.as_str()].into_iter().chain(statements) {
        conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

async fn open(database: &Database) -> MySqlBackend {
    let url = database.url.parse().expect("a URL");
    let backend = MySqlBackend::new(&url, &databases::pool(), SchemaMode::Auto).expect("a backend");
    backend.prepare(&soon()).await.expect("tables that Feast made do");
    backend
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

fn record(key: Key, value: impl Into<Bytes>) -> Record {
    Record::new(key, value, AT)
}

fn entity(project: &str, name: &str, value: &str) -> Record {
    record(Key::object(Kind::Entity, project, name), value.to_owned())
}

async fn put(backend: &MySqlBackend, records: &[Record]) -> Result<Outcome, Error> {
    let writes = records.iter().cloned().map(Write::Put).collect();
    backend.commit(Commit::new(Vec::new(), writes), &soon()).await
}

async fn create(backend: &MySqlBackend, new: &Record) -> Result<Outcome, Error> {
    let expectations = vec![(new.key.clone(), Expected::Absent)];
    backend.commit(Commit::new(expectations, vec![Write::Put(new.clone())]), &soon()).await
}

async fn get(backend: &MySqlBackend, key: &Key) -> Option<Bytes> {
    let mut answers = backend.read(&[Query::Keys(vec![key.clone()])], &soon()).await.expect("a read");
    answers.remove(0).pop().map(|record| record.value)
}

/// Everything in the registry, as it is stored.
async fn everything(backend: &MySqlBackend) -> Vec<Record> {
    let mut queries: Vec<Query> = Kind::ALL.iter().copied().map(|kind| Query::objects(kind, None)).collect();
    queries.push(Query::Metadata { project: None });
    queries.push(Query::Versions { project: "p".to_owned(), view: "view".to_owned(), latest_only: false });
    queries.push(Query::Keys(vec![user_metadata("p", "view").key]));
    backend.read(&queries, &soon()).await.expect("a read").into_iter().flatten().collect()
}

fn user_metadata(project: &str, view: &str) -> Record {
    let key = Key::UserMetadata { kind: Kind::FeatureView, project: project.to_owned(), view: view.to_owned() };
    record(key, "of the user")
}

fn version(size: usize) -> Record {
    let version = FeatureViewVersionRecord {
        feature_view_name: "view".to_owned(),
        project_id: "p".to_owned(),
        feature_view_type: "feature_view".to_owned(),
        feature_view_proto: vec![7; size].into(),
        created_timestamp: Some(prost_types::Timestamp { seconds: AT, nanos: 0 }),
        version_id: "0".repeat(36),
        ..Default::default()
    };
    let key = Key::Version { project: "p".to_owned(), view: "view".to_owned(), number: 0 };
    record(key, version.encode_to_vec())
}

/// One of everything, in project `p`.
fn project_p() -> Vec<Record> {
    let mut records: Vec<Record> = Kind::ALL
        .iter()
        .copied()
        .map(|kind| match kind {
            Kind::Project => record(Key::project_object("p"), "project"),
            Kind::FeatureView => record(Key::object(kind, "p", "view"), "view"),
            kind => record(Key::object(kind, "p", "driver"), kind.label().to_owned()),
        })
        .collect();
    records.extend([user_metadata("p", "view"), version(100)]);
    records.push(record(Key::metadata("p", Key::PROJECT_UUID), "00000000-0000-0000-0000-000000000001"));
    records
}

#[track_caller]
fn assert_refused(outcome: Result<Outcome, Error>, parts: &[&str]) {
    let error = outcome.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    for part in parts.iter().chain(&["feast-registry migrate"]) {
        assert!(error.to_string().contains(part), "`{part}` is missing in: {error}");
    }
}

/// Columns and indexes, without collations: the lines of what a database has.
async fn shape(database: &Database) -> BTreeSet<String> {
    let columns: Vec<String> = database
        .query(
            "SELECT CONCAT_WS(' ', TABLE_NAME, ORDINAL_POSITION, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLUMN_KEY, \
             COALESCE(COLUMN_DEFAULT, 'NULL'), EXTRA) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()",
        )
        .await;
    let indexes: Vec<String> = database
        .query(
            "SELECT CONCAT_WS(' ', TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, NON_UNIQUE, \
             COALESCE(SUB_PART, 'whole')) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE()",
        )
        .await;
    columns.into_iter().chain(indexes).collect()
}

/// The definition of each table, without its name.
async fn definitions(database: &Database) -> Vec<String> {
    let mut all = Vec::new();
    for table in feast_registry_sql::tables() {
        let rows: Vec<(String, String)> = database.query(&format!("SHOW CREATE TABLE {}", table.name)).await;
        // What differs is only how it came about.
        all.extend(rows.into_iter().map(|(_, definition)| {
            definition.replace(" ROW_FORMAT=DYNAMIC", "").replace("CHARACTER SET utf8mb4 COLLATE", "COLLATE")
        }));
    }
    all
}

async fn tables_are_those_of_feast(database: &Database) {
    feasts_tables(database, "CHARACTER SET utf8mb4", &[]).await;
    let theirs = shape(database).await;
    database.remove_tables().await;
    open(database).await;
    let mut ours = shape(database).await;
    // The journal is ours alone.
    let all = ours.len();
    ours.retain(|line| !line.starts_with("feast_registry_journal"));
    assert_eq!(all - ours.len(), 20 + 3 + 1, "columns and keys of the journal");
    assert_eq!(ours, theirs, "tables, columns, types, keys and indexes are Feast's own");
    let collations: Vec<String> = database
        .query(
            "SELECT DISTINCT COLLATION_NAME FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = DATABASE() AND COLLATION_NAME IS NOT NULL",
        )
        .await;
    assert_eq!(collations.len(), 1, "{collations:?}");
    assert!(["utf8mb4_nopad_bin", "utf8mb4_0900_bin"].contains(&collations[0].as_str()), "{collations:?}");
    let backend = open(database).await;
    assert_eq!(backend.problems().await.expect("a look"), Vec::<String>::new());
    assert_eq!(backend.migrate().await.expect("nothing to mend"), Vec::<String>::new());
}

async fn names_that_the_tables_take_for_one(database: &Database) {
    feasts_tables(database, "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", &[]).await;
    let backend = open(database).await;
    put(&backend, &project_p()).await.expect("a project in Feast's own tables");
    let before = everything(&backend).await;
    assert_eq!(before.len(), project_p().len());

    for name in ["Driver", "dr\u{ed}ver", "driver "] {
        let other = entity("p", name, "another");
        assert_eq!(get(&backend, &other.key).await, None, "a read is exact: {name:?}");
        let names = ["entity `driver`", &format!("entity `{name}`")];
        assert_refused(create(&backend, &other).await, &names);
        assert_refused(put(&backend, std::slice::from_ref(&other)).await, &names);
        let absent = vec![(other.key.clone(), Expected::Absent)];
        let outcome = backend.commit(Commit::new(absent, vec![Write::Delete(other.key)]), &soon()).await;
        assert!(outcome.expect("a deletion of nothing").is_committed());
    }
    // Also those that are new together.
    for expected in [Vec::new(), vec![(entity("p", "RIDER", "").key, Expected::Absent)]] {
        let writes = [entity("p", "rider", "one"), entity("p", "RIDER", "other")].map(Write::Put).into();
        let outcome = backend.commit(Commit::new(expected, writes), &soon()).await;
        assert_refused(outcome, &["entity `rider`", "entity `RIDER`"]);
    }
    let view = record(Key::object(Kind::FeatureView, "p", "VIEW"), "another");
    assert_refused(put(&backend, &[entity("p", "new", "new"), view]).await, &["feature view `VIEW`", "`view`"]);
    assert_eq!(get(&backend, &entity("p", "new", "").key).await, None, "nothing of a refused commit is stored");
    // Projects, too: the other one has nothing of this one, and its deletion leaves this one.
    let listed = Query::objects(Kind::Entity, Some("P"));
    assert_eq!(backend.read(&[listed], &soon()).await.expect("a list"), [Vec::new()]);
    let deletion = vec![Write::DeleteProject { project: "P".to_owned() }];
    backend.commit(Commit::new(Vec::new(), deletion), &soon()).await.expect("a deletion");
    assert_refused(create(&backend, &record(Key::project_object("P"), "other")).await, &["project `p`", "project `P`"]);
    assert_eq!(everything(&backend).await, before, "all is as it was");

    assert!(backend.problems().await.expect("a look").len() >= feast_registry_sql::tables().len());
    let mended = backend.migrate().await.expect("the tables can be mended");
    assert!(mended.iter().any(|text| text.contains("utf8mb4_general_ci") && text.contains("`entities`")), "{mended:?}");
    assert_eq!(backend.migrate().await.expect("again"), Vec::<String>::new(), "what is mended is left alone");
    assert_eq!(backend.problems().await.expect("a look"), Vec::<String>::new());
    assert_eq!(everything(&backend).await, before, "a migration changes no data");
    for name in ["Driver", "dr\u{ed}ver", "driver "] {
        let other = entity("p", name, name);
        assert!(create(&backend, &other).await.expect("now it can be stored").is_committed());
        assert_eq!(get(&backend, &other.key).await.as_deref(), Some(name.as_bytes()));
    }
    assert_eq!(get(&backend, &entity("p", "driver", "").key).await.as_deref(), Some("entity".as_bytes()));

    let mended = definitions(database).await;
    database.remove_tables().await;
    open(database).await;
    assert_eq!(mended, definitions(database).await, "mended tables are as new ones");
}

async fn values_that_the_columns_do_not_hold(database: &Database) {
    // Before Feast 0.50, and before version history had a column of its own.
    feasts_tables(database, "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci", &[("LONGBLOB", "BLOB")]).await;
    let backend = open(database).await;
    put(&backend, &project_p()).await.expect("small values");
    let before = everything(&backend).await;
    let large = Bytes::from(vec![7; 70_000]);
    let small = entity("p", "small", "small");
    let view = record(Key::object(Kind::FeatureView, "p", "view"), large.clone());
    for (value, column, table) in [
        (record(Key::object(Kind::Entity, "p", "driver"), large.clone()), "entity_proto", "entities"),
        (record(Key::object(Kind::Entity, "p", "new"), large.clone()), "entity_proto", "entities"),
        (view.clone(), "feature_view_proto", "feature_views"),
        (record(user_metadata("p", "view").key, large.clone()), "user_metadata", "feature_views"),
        (version(70_000), "feature_view_proto", "feature_view_version_history"),
    ] {
        let (column, table) = (format!("column `{column}`"), format!("table `{table}`"));
        assert_refused(put(&backend, &[small.clone(), value]).await, &[&column, &table, "at most 65535 bytes"]);
    }
    // One more than fits, too, in a description that MySQL's TEXT does not hold.
    let short = FeatureViewVersionRecord::decode(version(9).value).expect("a version");
    let described = FeatureViewVersionRecord { description: "x".repeat(65_536), ..short };
    let described = record(version(9).key, described.encode_to_vec());
    assert_refused(put(&backend, &[small, described]).await, &["`description`", "at most 65535 bytes"]);
    assert_eq!(everything(&backend).await, before, "nothing is stored, and nothing is cut short");

    let problems = backend.problems().await.expect("a look");
    let narrow = |text: &&String| text.contains("`entity_proto`") && text.contains("65535");
    assert_eq!(problems.iter().filter(narrow).count(), 1, "{problems:?}");
    let mended = backend.migrate().await.expect("the columns can be made wider");
    assert_eq!(mended.len(), problems.len());
    assert_eq!(backend.migrate().await.expect("again"), Vec::<String>::new());
    assert_eq!(everything(&backend).await, before, "a migration changes no data");
    for value in [view, record(user_metadata("p", "view").key, large), version(70_000)] {
        put(&backend, std::slice::from_ref(&value)).await.expect("now it fits");
        assert_eq!(get(&backend, &value.key).await, Some(value.value));
    }
}

async fn characters_that_the_tables_lack(database: &Database) {
    feasts_tables(database, "CHARACTER SET latin1", &[]).await;
    let backend = open(database).await;
    let mut records = project_p();
    records.extend([entity("p", "\u{e9}t\u{e9}", "accents"), entity("p", "o'ne \\ two", "signs")]);
    put(&backend, &records).await.expect("names that latin1 has");
    let before = everything(&backend).await;
    assert_eq!(before.len(), records.len());
    let car = entity("p", "\u{1f697}", "car");
    assert_refused(put(&backend, std::slice::from_ref(&car)).await, &["characters"]);
    assert_refused(create(&backend, &car).await, &["characters"]);
    assert_eq!(everything(&backend).await, before, "nothing is stored");
    let mended = backend.migrate().await.expect("the tables can be mended");
    assert!(mended.iter().any(|text| text.contains("latin1")), "{mended:?}");
    assert_eq!(everything(&backend).await, before, "a migration changes no data");
    assert!(create(&backend, &car).await.expect("now it can be stored").is_committed());
    assert_eq!(get(&backend, &car.key).await, Some(car.value));
}

/// Connections that an administrator ends while writers are at work: what is acknowledged is there.
async fn killed_connections(database: &Database) {
    use mysql_async::prelude::Queryable;

    const WRITERS: usize = 4;
    let backend = std::sync::Arc::new(open(database).await);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(3);
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let backend = std::sync::Arc::clone(&backend);
        writers.push(tokio::spawn(async move {
            let (mut acknowledged, mut number) = (Vec::new(), 0);
            while std::time::Instant::now() < until {
                let new = entity(&format!("p{writer}"), &format!("driver {number}"), "new");
                match create(&backend, &new).await {
                    Ok(Outcome::Committed { .. }) => acknowledged.push(new),
                    Ok(outcome) => panic!("nobody else makes {:?}: {outcome:?}", new.key),
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
                number += 1;
            }
            acknowledged
        }));
    }
    let mut conn = database.server().await;
    let mut killed = 0;
    while std::time::Instant::now() < until {
        let find = format!("SELECT ID FROM information_schema.PROCESSLIST WHERE DB = '{}'", database.name);
        let ids: Vec<u64> = conn.query(find).await.expect("the connections");
        for id in ids {
            // It may just have ended of itself.
            killed += usize::from(conn.query_drop(format!("KILL {id}")).await.is_ok());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("a writer"));
    }
    assert!(killed > 10 && acknowledged.len() > 10, "{killed} killed, {} written", acknowledged.len());
    let list = Query::objects(Kind::Entity, None);
    let stored: BTreeSet<Key> =
        backend.read(&[list], &soon()).await.expect("a list").remove(0).into_iter().map(|record| record.key).collect();
    for record in acknowledged {
        assert!(stored.contains(&record.key), "{:?} was acknowledged", record.key);
    }
}

/// What is larger than the server takes at once is refused before it breaks the connection.
async fn values_that_the_server_does_not_take(database: &Database) {
    let backend = open(database).await;
    let largest = backend.limits().value_bytes;
    let most: Vec<u64> = database.query("SELECT @@max_allowed_packet").await;
    assert!((largest as u64) < most[0] && largest as u64 > most[0] - (1 << 17), "{largest} of {most:?}");
    let fits = record(Key::object(Kind::Entity, "p", "fits"), vec![7; largest - 4096]);
    put(&backend, std::slice::from_ref(&fits)).await.expect("the largest value");
    assert!(get(&backend, &fits.key).await == Some(fits.value), "the largest value comes back");
    let too_large = record(Key::object(Kind::Entity, "p", "too large"), vec![7; largest + (1 << 17)]);
    let error = put(&backend, &[entity("p", "small", "small"), too_large]).await.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("max_allowed_packet"), "{error}");
    assert_eq!(get(&backend, &entity("p", "small", "").key).await, None, "nothing is stored");
}

on_each_server!(
    tables_are_those_of_feast,
    names_that_the_tables_take_for_one,
    values_that_the_columns_do_not_hold,
    characters_that_the_tables_lack,
    killed_connections,
    values_that_the_server_does_not_take,
);
