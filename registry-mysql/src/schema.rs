//! Making, verifying, mending and removing the tables.

use std::time::Duration;

use feast_registry_core::{Deadline, Error, ErrorKind, Kind};
use feast_registry_sql::{self as sql, ColumnType, Dialect, JOURNAL, JOURNAL_HEAD, Statement, Table, Value};
use mysql_async::FromValueError;

use crate::error::{Failure, GONE};
use crate::session::{Session, column, plain, unreadable};

/// The collations that tell all names apart, to the byte and with the spaces at the end: MariaDB's and MySQL's.
const EXACT: [&str; 2] = ["utf8mb4_nopad_bin", "utf8mb4_0900_bin"];
/// The best that others have. It does not see spaces at the end.
const ALMOST_EXACT: &str = "utf8mb4_bin";
/// How long a removal waits for those who write, at a time.
const LOCKS_TABLES_WITHIN: Duration = Duration::from_secs(1);
/// What the remedy is for all that a registry of Feast's own may lack.
const REMEDY: &str = "`feast-registry migrate` mends that";

/// A column as it is in the database.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    table: String,
    column: String,
    /// As `varchar`, `longblob`.
    data_type: String,
    collation: Option<String>,
    /// The most bytes that it holds.
    bytes: Option<u64>,
    /// Of the table, as `InnoDB`.
    engine: Option<String>,
}

/// The tables as they are, and how they should be.
#[derive(Debug)]
pub(crate) struct State {
    columns: Vec<Found>,
    /// The most exact collation that the server has.
    pub(crate) collation: String,
}

/// All tables, Feast's and ours.
fn all_tables() -> Vec<Table> {
    sql::tables().into_iter().chain(sql::journal::tables(Dialect::MySql)).collect()
}

/// Looks at the tables of the database that the session works in.
pub(crate) async fn look(session: &mut Session<'_>) -> Result<State, Failure> {
    let tables = all_tables();
    let signs = vec!["?"; tables.len()].join(", ");
    let columns = Statement {
        // MariaDB and MySQL name and sort the columns of their own tables differently; the type of all is made the same.
        text: format!(
            "SELECT CAST(c.TABLE_NAME AS CHAR), CAST(c.COLUMN_NAME AS CHAR), CAST(c.DATA_TYPE AS CHAR), \
             c.COLLATION_NAME, CAST(c.CHARACTER_OCTET_LENGTH AS CHAR), t.ENGINE \
             FROM information_schema.COLUMNS c JOIN information_schema.TABLES t \
             ON t.TABLE_SCHEMA = c.TABLE_SCHEMA AND t.TABLE_NAME = c.TABLE_NAME \
             WHERE c.TABLE_SCHEMA = DATABASE() AND c.TABLE_NAME IN ({signs})"
        ),
        values: tables.iter().map(|table| Value::Text(table.name.to_owned())).collect(),
    };
    let [nopad, mysql] = EXACT;
    let collations = plain(format!(
        "SELECT COLLATION_NAME FROM information_schema.COLLATIONS WHERE COLLATION_NAME IN ('{nopad}', '{mysql}')"
    ));
    // One that was dropped has no tables either, which must not look like a registry that is empty.
    let database = plain("SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE()");
    let location = session.location;
    let wrong = |error: FromValueError| Failure::Final(unreadable(location, error));
    let mut answers = session.run_all(&[database, columns, collations]).await?.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    let (mut database, columns, collations) = (next(), next(), next());
    let is_there = database.pop().map(|mut row| column::<u64>(&mut row, 0)).transpose().map_err(wrong)?;
    if is_there.is_none_or(|count| count == 0) {
        return Err(Failure::Final(Error::new(ErrorKind::InvalidConfig, format!("{location}: {GONE}"))));
    }
    let columns = columns.into_iter().map(|mut row| {
        Ok(Found {
            table: column(&mut row, 0)?,
            column: column(&mut row, 1)?,
            data_type: column::<String>(&mut row, 2)?.to_ascii_lowercase(),
            collation: column(&mut row, 3)?,
            bytes: column::<Option<String>>(&mut row, 4)?.and_then(|bytes| bytes.parse().ok()),
            engine: column(&mut row, 5)?,
        })
    });
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    let has = collations.into_iter().map(|mut row| column::<String>(&mut row, 0));
    let has = has.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    let collation = EXACT.into_iter().find(|exact| has.iter().any(|name| name == exact)).unwrap_or(ALMOST_EXACT);
    Ok(State { columns, collation: collation.to_owned() })
}

/// What stands at the end of `CREATE TABLE`: the default collation of the database has no say in it, and the engine is the
/// one that has transactions.
pub(crate) fn table_options(collation: &str) -> String {
    format!(" ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {collation}")
}

/// The statements that make the tables that are missing, in one round trip.
pub(crate) fn create(collation: &str) -> Vec<Statement> {
    let options = table_options(collation);
    let tables = all_tables();
    let create = tables.iter().flat_map(|table| sql::create_table(Dialect::MySql, table, &options)).map(plain);
    create.chain([sql::journal::make_head()]).collect()
}

impl State {
    /// The tables that are missing. Those of the journal are one.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let is_there = |table: &str| self.columns.iter().any(|column| column.table == table);
        let missing = all_tables().into_iter().map(|table| table.name).filter(|table| !is_there(table));
        let mut missing: Vec<_> = missing.map(|table| if table == JOURNAL_HEAD { JOURNAL } else { table }).collect();
        missing.dedup();
        missing
    }

    fn of<'a>(&'a self, table: &Table) -> impl Iterator<Item = &'a Found> + use<'a> {
        let name = table.name;
        self.columns.iter().filter(move |column| column.table == name)
    }

    fn is_exact(&self, collation: &str) -> bool {
        EXACT.contains(&collation) || collation == self.collation
    }

    /// What is wrong with each table that is there and is not as it should be, in words.
    fn problems_by_table(&self) -> Vec<(Table, Vec<String>)> {
        let mut all = Vec::new();
        for table in all_tables() {
            let mut problems = Vec::new();
            let mut collations: Vec<&str> = self.of(&table).filter_map(|column| column.collation.as_deref()).collect();
            collations.retain(|collation| !self.is_exact(collation));
            collations.sort_unstable();
            collations.dedup();
            if !collations.is_empty() {
                problems.push(format!(
                    "table `{}` has the collation {}, which does not tell all names apart",
                    table.name,
                    collations.join(", ")
                ));
            }
            for found in self.of(&table).filter(|found| is_narrow(&table, found)) {
                problems.push(format!(
                    "column `{}` of table `{}` holds at most {} bytes",
                    found.column,
                    table.name,
                    found.bytes.unwrap_or_default()
                ));
            }
            if let Some(engine) = self.engine_without_transactions(&table) {
                problems.push(format!("table `{}` is of the engine {engine}, which has no transactions", table.name));
            }
            if !problems.is_empty() {
                all.push((table, problems));
            }
        }
        all
    }

    fn engine_without_transactions(&self, table: &Table) -> Option<&str> {
        let engine = self.of(table).find_map(|column| column.engine.as_deref());
        engine.filter(|engine| is_without_transactions(engine))
    }

    /// Which promises of a backend tables as these cannot keep.
    pub(crate) fn unkept(&self) -> Vec<String> {
        let all = all_tables().into_iter().filter_map(|table| {
            let engine = self.engine_without_transactions(&table)?;
            let name = table.name;
            Some(format!(
                "commits are atomic: table `{name}` is of the engine {engine}, which has no transactions; {REMEDY}"
            ))
        });
        all.collect()
    }

    /// What is wrong with the tables, in words.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems_by_table().into_iter().flat_map(|(_, problems)| problems).collect()
    }

    /// The statements that mend the tables, one for each table, with what is wrong with it.
    pub(crate) fn mend(&self) -> Vec<(&'static str, Vec<String>, Statement)> {
        let mend = |(table, problems): (Table, Vec<String>)| {
            let collation = &self.collation;
            // Column by column: a conversion of the table as a whole would make other types of some.
            let columns = table.columns.iter().filter_map(|column| {
                let null = if column.is_nullable { "NULL" } else { "NOT NULL" };
                let spell = |column_type: &str| format!("MODIFY {} {column_type} {null}", column.name);
                match column.column_type {
                    ColumnType::String(width) => {
                        Some(spell(&format!("VARCHAR({width}) CHARACTER SET utf8mb4 COLLATE {collation}")))
                    }
                    ColumnType::LongText => Some(spell(&format!("LONGTEXT CHARACTER SET utf8mb4 COLLATE {collation}"))),
                    ColumnType::Text => Some(spell(&format!("TEXT CHARACTER SET utf8mb4 COLLATE {collation}"))),
                    ColumnType::Bytes => {
                        let is_there = self.of(&table).any(|found| found.column == column.name);
                        is_there.then(|| spell("LONGBLOB"))
                    }
                    ColumnType::Integer | ColumnType::BigInteger => None,
                }
            });
            let columns: Vec<String> = columns.map(|column| format!("{column}, ")).collect();
            // Two names of four bytes a character are longer than the key of an old row format.
            let statement = plain(format!(
                "ALTER TABLE {} {}ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE {collation}",
                table.name,
                columns.concat()
            ));
            (table.name, problems, statement)
        };
        self.problems_by_table().into_iter().map(mend).collect()
    }

    /// What a column of a table holds at most, in words, if it is known and less than is to be.
    pub(crate) fn limit(&self, table: &str, column: &str) -> Option<String> {
        let found = self.columns.iter().find(|found| found.table == table && found.column == column)?;
        Some(format!("at most {} bytes", found.bytes?))
    }
}

fn is_narrow(table: &Table, found: &Found) -> bool {
    let column = table.columns.iter().find(|column| column.name == found.column);
    column.is_some_and(|column| match column.column_type {
        ColumnType::Bytes => found.data_type != "longblob",
        ColumnType::LongText => found.data_type != "longtext",
        ColumnType::String(_) | ColumnType::Text | ColumnType::Integer | ColumnType::BigInteger => false,
    })
}

fn is_without_transactions(engine: &str) -> bool {
    ["MyISAM", "Aria", "MEMORY", "CSV", "ARCHIVE"].iter().any(|other| engine.eq_ignore_ascii_case(other))
}

/// Says what was found that restricts what can be stored.
pub(crate) fn warn(location: &str, state: &State) {
    for problem in state.problems() {
        tracing::warn!(location, "{problem}; {REMEDY}");
    }
}

/// A value is longer than its column: which one that is, and what helps.
pub(crate) async fn too_long(session: &mut Session<'_>, table: &str, said: &str) -> Error {
    // "Data too long for column 'entity_proto' at row 1"
    let column = said.split_once("column '").and_then(|(_, rest)| rest.split_once('\'')).map(|(column, _)| column);
    let column = column.unwrap_or("?").rsplit(['.', '`']).find(|part| !part.is_empty()).unwrap_or("?");
    let state = look(session).await.ok();
    let limit = state.and_then(|state| state.limit(table, column)).unwrap_or_else(|| "less than that".to_owned());
    Error::invalid(format!(
        "{}: a value is too long for column `{column}` of table `{table}`, which holds {limit}; nothing was stored. If \
         Feast made the table, `feast-registry migrate` makes the column as wide as it can be",
        session.location
    ))
}

/// Two names that the database takes for one.
pub(crate) fn lookalike(location: &str, asked: &feast_registry_core::Key, found: &feast_registry_core::Key) -> Error {
    Error::invalid(format!(
        "{location}: {asked} cannot be stored beside {found}: the table's collation takes the two names for one; \
         `feast-registry migrate` gives the tables one that tells them apart"
    ))
}

/// Removes the tables if no project is left; returns whether it did.
///
/// Definitions are no part of transactions here, so all tables are locked: nobody writes while this looks and removes,
/// Feast's own registry included. While this waits for those who write, everyone else waits behind it, readers too: so it
/// waits for a moment, and is then tried again. The journal is neither locked nor removed.
pub(crate) async fn remove_if_empty(session: &mut Session<'_>, deadline: &Deadline) -> Result<bool, Failure> {
    let tables: Vec<&str> = sql::tables().iter().map(|table| table.name).collect();
    let locks: Vec<String> = tables.iter().map(|table| format!("{table} WRITE")).collect();
    let projects = sql::object_table(Kind::Project).table;
    let lock_waits = session.connection.lock_waits(&deadline.at_most(LOCKS_TABLES_WITHIN));
    let look = lock_waits.into_iter().chain([
        plain(format!("LOCK TABLES {}", locks.join(", "))),
        plain(format!("SELECT EXISTS (SELECT 1 FROM {projects})")),
    ]);
    let looked = session.run_all(&look.collect::<Vec<_>>()).await;
    let has_project = looked.as_ref().is_ok_and(|answers| {
        let row = answers.last().and_then(|rows| rows.first());
        row.is_none_or(|row| row.get_opt::<u8, _>(0).and_then(Result::ok).is_none_or(|exists| exists != 0))
    });
    let unlock = plain("UNLOCK TABLES");
    if has_project || looked.is_err() {
        return match looked {
            Err(Failure::Final(error) | Failure::Unusable(error)) if error.kind() == ErrorKind::ReadOnly => {
                tracing::info!(%error, "the tables stay: the user may not lock them");
                session.run_all(&[unlock]).await.map(|_| false)
            }
            Err(failure @ (Failure::Lost(_) | Failure::Unusable(_))) => Err(failure),
            looked => {
                session.run_all(&[unlock]).await?;
                looked.map(|_| false)
            }
        };
    }
    let removed = session.run_all(&[plain(format!("DROP TABLE {}", tables.join(", ")))]).await;
    if let Err(failure @ (Failure::Lost(_) | Failure::Unusable(_))) = removed {
        return Err(failure);
    }
    session.run_all(&[unlock]).await?;
    removed.map(|_| true)
}
