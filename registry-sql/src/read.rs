//! Queries as statements, and rows as records.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::dialect::Builder;
use crate::{self as sql, ColumnType, Dialect, PROJECT, Statement, UPDATED, USER_METADATA, Value};
use feast_registry_core::proto::core::FeatureViewVersionRecord;
use feast_registry_core::{Key, Kind, Page, Query, Record};

/// The most selections that are put together in a statement; SQLite takes 500.
const MAX_TERMS: usize = 100;
/// The most values that are bound to a statement; SQLite takes 32,766, the others twice as many.
const MAX_VALUES: usize = 20_000;
/// About the most bytes of text that are bound to a statement, unless one value has more: a server of MySQL may take no
/// more than a megabyte at once, and text may be sent as hexadecimal digits.
const MAX_TEXT: usize = 256 * 1024;

/// The most keys that one selection finds in MySQL. MariaDB plans a list of keys in time that grows with its square: 3,000
/// at once take ten times as long as in parts.
const MAX_KEYS_IN_MYSQL: usize = 100;

/// What a row has, in the order of the columns of every statement of a [`Read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which of the selections the row is of. A 32-bit integer.
    pub term: i32,
    /// The project. Text; in MySQL bytes in UTF-8, as all text here.
    pub project: String,
    /// The name of an object, of a view, of a fact. Text.
    pub name: String,
    /// The number of a version. A 32-bit integer or NULL.
    pub number: Option<i32>,
    /// What is stored. Bytes.
    pub value: Bytes,
    /// When it was written: whole seconds since 1970 (UTC). A 64-bit integer.
    pub updated: i64,
    /// Its place in the order in which rows were inserted. A 64-bit integer or NULL.
    pub position: Option<i64>,
    /// The type of view that a version is of. Text or NULL.
    pub view_type: Option<String>,
    /// What is said about a version. Text or NULL.
    pub description: Option<String>,
    /// The identity of a version. Text or NULL.
    pub version_id: Option<String>,
}

/// What the rows of a selection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Objects(Kind),
    UserMetadata(Kind),
    Versions,
    Metadata,
}

#[derive(Debug, Clone, Copy)]
struct Term {
    source: Source,
    /// The query that the rows answer. `None` where they are found by their keys.
    query: Option<usize>,
}

/// Queries as statements.
#[derive(Debug)]
pub struct Read {
    /// The statements. If there are several, they must see one state of the database.
    pub statements: Vec<Statement>,
    terms: Vec<Term>,
}

impl Read {
    /// The statements that answer queries.
    pub fn new(dialect: Dialect, queries: &[Query]) -> Self {
        let mut plan = Plan::new(dialect, "");
        let mut keys: BTreeMap<Source, Vec<&Key>> = BTreeMap::new();
        for (index, query) in queries.iter().enumerate() {
            match query {
                Query::Keys(of_query) => of_query.iter().for_each(|key| keys.entry(source(key)).or_default().push(key)),
                Query::Objects { kind, project, updated_since, page } => {
                    let project = project.as_deref();
                    plan.list(Source::Objects(*kind), index, project, *updated_since, page.as_ref());
                }
                Query::Versions { project, view, latest_only } => plan.versions(index, project, view, *latest_only),
                Query::Metadata { project } => plan.list(Source::Metadata, index, project.as_deref(), None, None),
            }
        }
        for (source, keys) in keys {
            let mut rest = keys.as_slice();
            while !rest.is_empty() {
                let (keys, others) = rest.split_at(fitting(dialect, rest));
                plan.keys(source, keys);
                rest = others;
            }
        }
        plan.finish()
    }

    /// The statements that find keys one by one, in their order, and lock their rows, and the places where rows are
    /// missing, until the end of the transaction. What counts as the same name is the database's choice here; see
    /// [`records`](Self::records).
    ///
    /// With `shares_projects`, others may lock the rows of projects at the same time, see [`shares_projects`].
    pub fn locking(dialect: Dialect, keys: &[Key], shares_projects: bool) -> Self {
        let mut plan = Plan::new(dialect, LOCK);
        for key in keys {
            let is_shared = shares_projects && is_project(key);
            plan.lock = if is_shared { SHARED_LOCK } else { LOCK };
            plan.keys(source(key), &[key]);
        }
        plan.finish()
    }

    /// The answers to the queries that this was made from, out of the rows of all its statements.
    pub fn answers(&self, queries: &[Query], rows: impl IntoIterator<Item = Row>) -> Vec<Vec<Record>> {
        let mut answers = self.begin_answers(queries);
        rows.into_iter().for_each(|row| answers.add(row));
        answers.finish()
    }

    /// The same row by row, so that a large list is not held as rows and as records.
    pub fn begin_answers<'a>(&'a self, queries: &'a [Query]) -> Answers<'a> {
        let lists = queries.iter().map(|_| Vec::new()).collect();
        Answers { terms: &self.terms, queries, found: HashMap::new(), lists }
    }

    /// The records that rows of [`locking`](Self::locking) are, in no order, each with the index of the key that it was
    /// found by. A record under another key than that has a name that the database cannot tell from it.
    pub fn records(&self, rows: Vec<Row>) -> Vec<(usize, Record)> {
        let found = |row: Row| {
            let index = usize::try_from(row.term).ok()?;
            Some((index, record(self.terms.get(index)?.source, row)))
        };
        rows.into_iter().filter_map(found).collect()
    }
}

/// Answers to queries in the making.
#[derive(Debug)]
pub struct Answers<'a> {
    terms: &'a [Term],
    queries: &'a [Query],
    /// What is found by its key.
    found: HashMap<Key, Record>,
    /// The lists that are asked for, each record with its position.
    lists: Vec<Vec<(Option<i64>, Record)>>,
}

impl Answers<'_> {
    /// Takes in a row.
    pub fn add(&mut self, row: Row) {
        let Some(Term { source, query }) = self.terms.get(row.term as usize).copied() else { return };
        let position = row.position;
        let record = record(source, row);
        match query {
            None => drop(self.found.insert(record.key.clone(), record)),
            Some(query) => self.lists[query].push((position, record)),
        }
    }

    /// The answer to each query.
    pub fn finish(self) -> Vec<Vec<Record>> {
        let Self { queries, found, lists, .. } = self;
        let answer = |(query, mut list): (&Query, Vec<(Option<i64>, Record)>)| match query {
            Query::Keys(keys) => keys.iter().filter_map(|key| found.get(key)).cloned().collect(),
            Query::Objects { page: Some(_), .. } => {
                list.sort_unstable_by(|(_, one), (_, other)| one.key.cmp(&other.key));
                list.into_iter().map(|(_, record)| record).collect()
            }
            _ => {
                list.sort_unstable_by(|one, other| one.0.cmp(&other.0).then_with(|| one.1.key.cmp(&other.1.key)));
                list.into_iter().map(|(_, record)| record).collect()
            }
        };
        queries.iter().zip(lists).map(answer).collect()
    }
}

/// How many of these keys, at least one, go into one selection.
fn fitting(dialect: Dialect, keys: &[&Key]) -> usize {
    // Three values are the most that a key has.
    let most = if dialect == Dialect::MySql { MAX_KEYS_IN_MYSQL } else { MAX_VALUES / 3 };
    let mut text = 0;
    let fits = |key: &&&Key| {
        text += Place::of(key).texts.iter().map(|(_, text)| text.len()).sum::<usize>();
        text <= MAX_TEXT
    };
    keys.iter().take(most).take_while(fits).count().max(1)
}

/// The keys that a commit writes one by one.
pub(crate) fn written(commit: &feast_registry_core::Commit) -> impl Iterator<Item = &Key> {
    commit.writes.iter().filter_map(|write| match write {
        feast_registry_core::Write::Put(record) => Some(&record.key),
        feast_registry_core::Write::Delete(key) => Some(key),
        feast_registry_core::Write::DeleteVersions { .. } | feast_registry_core::Write::DeleteProject { .. } => None,
    })
}

/// The keys that a commit depends on or writes, each once, in their order.
pub fn keys_of(commit: &feast_registry_core::Commit) -> Vec<Key> {
    let expected = commit.expectations.iter().map(|(key, _)| key);
    let mut keys: Vec<Key> = expected.chain(written(commit)).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// What ends a selection whose rows are locked: against all others, or against those who change them.
const LOCK: &str = " FOR UPDATE";
const SHARED_LOCK: &str = " LOCK IN SHARE MODE";

fn is_project(key: &Key) -> bool {
    matches!(key, Key::Object { kind: Kind::Project, .. })
}

/// Whether a commit that locks [`keys_to_lock`] may do so while others have the rows of its projects locked in the same way:
/// it needs them to stay, and nothing else of it depends on the order. That is so for one that only puts, no project among it,
/// and that locks no place where a row is missing: in such places two commits could wait for each other.
pub fn shares_projects(commit: &feast_registry_core::Commit) -> bool {
    let mut put = HashSet::new();
    for write in &commit.writes {
        match write {
            feast_registry_core::Write::Put(record) if !is_project(&record.key) => drop(put.insert(&record.key)),
            _ => return false,
        }
    }
    let is_absent = |expected: &feast_registry_core::Expected| *expected == feast_registry_core::Expected::Absent;
    !commit.expectations.iter().any(|(key, expected)| is_absent(expected) && !put.contains(key))
}

/// The keys whose rows a commit locks before it looks, in the order in which it does: first the projects concerned, so
/// that commits of one project wait for one another there instead of meeting halfway; then what it depends on or writes.
///
/// Left out are those that it expects to be absent and inserts: the database refuses that insertion if a row is there
/// after all, and a locked gap would only stand in the way of others.
pub fn keys_to_lock(commit: &feast_registry_core::Commit) -> Vec<Key> {
    let absent: HashSet<&Key> = commit
        .expectations
        .iter()
        .filter(|(key, expected)| {
            *expected == feast_registry_core::Expected::Absent && !matches!(key, Key::UserMetadata { .. })
        })
        .map(|(key, _)| key)
        .collect();
    let mut inserted: HashSet<&Key> = HashSet::new();
    let mut deleted: HashSet<&Key> = HashSet::new();
    for write in &commit.writes {
        match write {
            feast_registry_core::Write::Put(record)
                if absent.contains(&record.key) && !deleted.contains(&record.key) =>
            {
                inserted.insert(&record.key);
            }
            feast_registry_core::Write::Put(_) => {}
            feast_registry_core::Write::Delete(key) => drop(deleted.insert(key)),
            // What is removed first is no longer in the way of an insertion.
            feast_registry_core::Write::DeleteVersions { .. } | feast_registry_core::Write::DeleteProject { .. } => {
                break;
            }
        }
    }
    let of_projects = commit.writes.iter().filter_map(|write| match write {
        feast_registry_core::Write::DeleteVersions { project, .. }
        | feast_registry_core::Write::DeleteProject { project } => Some(project.as_str()),
        feast_registry_core::Write::Put(_) | feast_registry_core::Write::Delete(_) => None,
    });
    let keys = keys_of(commit);
    let projects: BTreeSet<&str> = keys.iter().map(Key::project).chain(of_projects).collect();
    let projects: Vec<Key> = projects.into_iter().map(Key::project_object).collect();
    let others = keys.iter().filter(|key| !projects.contains(key));
    projects.iter().chain(others).filter(|key| !inserted.contains(key)).cloned().collect()
}

fn source(key: &Key) -> Source {
    match key {
        Key::Object { kind, .. } => Source::Objects(*kind),
        Key::UserMetadata { kind, .. } => Source::UserMetadata(*kind),
        Key::Version { .. } => Source::Versions,
        Key::Metadata { .. } => Source::Metadata,
    }
}

/// The columns that find a key, or several, with their values; see [`Builder::equals`] for the comparison.
pub(crate) struct Place<'a> {
    pub(crate) table: &'static str,
    pub(crate) texts: Vec<(&'static str, &'a str)>,
    pub(crate) number: Option<(&'static str, i32)>,
}

/// The columns of the history and of the facts that are not those of every table.
pub(crate) const VIEW: &str = "feature_view_name";
pub(crate) const NUMBER: &str = "version_number";
pub(crate) const FACT: &str = "metadata_key";
pub(crate) const FACT_VALUE: &str = "metadata_value";

impl<'a> Place<'a> {
    pub(crate) fn of(key: &'a Key) -> Self {
        match key {
            Key::Object { kind, project, name } | Key::UserMetadata { kind, project, view: name } => {
                let table = sql::object_table(*kind);
                Self { table: table.table, texts: vec![(table.name, name), (PROJECT, project)], number: None }
            }
            Key::Version { project, view, number } => Self {
                table: sql::VERSIONS,
                texts: vec![(VIEW, view), (PROJECT, project)],
                number: Some((NUMBER, *number)),
            },
            Key::Metadata { project, name } => {
                Self { table: sql::METADATA, texts: vec![(PROJECT, project), (FACT, name)], number: None }
            }
        }
    }

    /// The whole history of a view.
    pub(crate) fn of_history(project: &'a str, view: &'a str) -> Self {
        Self { table: sql::VERSIONS, texts: vec![(VIEW, view), (PROJECT, project)], number: None }
    }

    /// All that a table has of a project.
    pub(crate) fn of_project(table: &'static str, project: &'a str) -> Self {
        Self { table, texts: vec![(PROJECT, project)], number: None }
    }

    /// That a row is at this place.
    pub(crate) fn matches(&self, builder: &mut Builder) {
        for (index, (column, text)) in self.texts.iter().enumerate() {
            if index > 0 {
                builder.push(" AND ");
            }
            builder.equals(column, text);
        }
        if let Some((column, number)) = self.number {
            builder.push(&format!(" AND {column} = "));
            builder.bind(Value::Integer(number));
        }
    }

    fn values(&self) -> impl Iterator<Item = Value> {
        let texts = self.texts.iter().map(|(_, text)| Value::Text((*text).to_owned()));
        texts.chain(self.number.map(|(_, number)| Value::Integer(number)))
    }

    fn columns(&self) -> String {
        let columns: Vec<&str> =
            self.texts.iter().map(|(column, _)| *column).chain(self.number.map(|(column, _)| column)).collect();
        columns.join(", ")
    }
}

struct Plan {
    dialect: Dialect,
    /// What ends each selection.
    lock: &'static str,
    statements: Vec<Statement>,
    builder: Builder,
    terms_in_builder: usize,
    terms: Vec<Term>,
}

impl Plan {
    fn new(dialect: Dialect, lock: &'static str) -> Self {
        let builder = Self::builder(dialect, lock);
        Self { dialect, lock, statements: Vec::new(), builder, terms_in_builder: 0, terms: Vec::new() }
    }

    fn builder(dialect: Dialect, lock: &str) -> Builder {
        let mut builder = Builder::new(dialect);
        builder.is_exact = lock.is_empty();
        builder
    }

    /// Adds a selection. `condition` writes what comes after `FROM table`.
    fn term(&mut self, source: Source, query: Option<usize>, condition: impl FnOnce(&mut Builder)) {
        // With a lock of its own a selection needs brackets; SQLite has them nowhere.
        let (open, close) = if self.lock.is_empty() { ("", "") } else { ("(", ")") };
        self.selection(source, query, open, close, condition);
    }

    /// Adds a selection with an order and a limit of its own, which no database takes within a `UNION` as it is.
    fn page(&mut self, source: Source, query: usize, condition: impl FnOnce(&mut Builder)) {
        self.selection(source, Some(query), "SELECT * FROM (", ") AS page", condition);
    }

    fn selection(
        &mut self,
        source: Source,
        query: Option<usize>,
        open: &str,
        close: &str,
        condition: impl FnOnce(&mut Builder),
    ) {
        let is_full = self.builder.values() >= MAX_VALUES / 2 || self.builder.text_bytes >= MAX_TEXT;
        if self.terms_in_builder == MAX_TERMS || is_full {
            self.end_statement();
        }
        if self.terms_in_builder > 0 {
            self.builder.push(" UNION ALL ");
        }
        self.builder.push(open);
        let select = select(self.dialect, self.terms.len(), source);
        self.builder.push(&select);
        condition(&mut self.builder);
        self.builder.push(self.lock);
        self.builder.push(close);
        self.terms.push(Term { source, query });
        self.terms_in_builder += 1;
    }

    fn end_statement(&mut self) {
        let next = Self::builder(self.dialect, self.lock);
        let builder = std::mem::replace(&mut self.builder, next);
        if self.terms_in_builder > 0 {
            self.statements.push(builder.build());
        }
        self.terms_in_builder = 0;
    }

    fn keys(&mut self, source: Source, keys: &[&Key]) {
        if let Source::UserMetadata(_) = source {
            return self.term(source, None, |builder| {
                builder.push(&format!(" WHERE {USER_METADATA} IS NOT NULL AND "));
                at_any(builder, keys);
            });
        }
        self.term(source, None, |builder| {
            builder.push(" WHERE ");
            at_any(builder, keys);
        });
    }

    fn list(
        &mut self,
        source: Source,
        query: usize,
        project: Option<&str>,
        updated_since: Option<i64>,
        page: Option<&Page>,
    ) {
        let dialect = self.dialect;
        let condition = |builder: &mut Builder| {
            let mut link = " WHERE ";
            if let Some(project) = project {
                builder.push(link);
                builder.equals(PROJECT, project);
                link = " AND ";
            }
            if let Some(since) = updated_since {
                builder.push(&format!("{link}{UPDATED} >= "));
                builder.bind(Value::BigInteger(since));
                link = " AND ";
            }
            let (Some(page), Source::Objects(kind)) = (page, source) else { return };
            let (project, name) = (dialect.as_sorted(PROJECT), dialect.as_sorted(sql::object_table(kind).name));
            if let Some((after_project, after_name)) = &page.after {
                builder.push(&format!("{link}({project} > "));
                builder.bind_sorted(after_project);
                builder.push(&format!(" OR {project} = "));
                builder.bind_sorted(after_project);
                builder.push(&format!(" AND {name} > "));
                builder.bind_sorted(after_name);
                builder.push(")");
            }
            builder.push(&format!(" ORDER BY {project}, {name} LIMIT "));
            builder.bind(Value::BigInteger(i64::try_from(page.limit).unwrap_or(i64::MAX)));
        };
        if page.is_some() { self.page(source, query, condition) } else { self.term(source, Some(query), condition) }
    }

    fn versions(&mut self, query: usize, project: &str, view: &str, latest_only: bool) {
        self.term(Source::Versions, Some(query), |builder| {
            builder.push(" WHERE ");
            builder.equals(VIEW, view);
            builder.push(" AND ");
            builder.equals(PROJECT, project);
            if latest_only {
                builder.push(&format!(" AND {NUMBER} = (SELECT max({NUMBER}) FROM {} WHERE ", sql::VERSIONS));
                builder.equals(VIEW, view);
                builder.push(" AND ");
                builder.equals(PROJECT, project);
                builder.push(")");
            }
        });
    }

    fn finish(mut self) -> Read {
        self.end_statement();
        Read { statements: self.statements, terms: self.terms }
    }
}

/// That a row is at one of these keys, all of one table.
fn at_any(builder: &mut Builder, keys: &[&Key]) {
    if let [key] = keys {
        return Place::of(key).matches(builder);
    }
    // MySQL finds rows by an index if the list is plain, the others if it is a table.
    let (open, close) = if builder.dialect == Dialect::MySql { ("(", ")") } else { ("(VALUES ", ")") };
    for (index, place) in keys.iter().map(|key| Place::of(key)).enumerate() {
        builder.push(&if index == 0 { format!("({}) IN {open}(", place.columns()) } else { ", (".to_owned() });
        builder.bind_all(place.values());
        builder.push(")");
    }
    builder.push(close);
}

/// `SELECT … FROM …`, with the columns of a [`Row`].
fn select(dialect: Dialect, term: usize, source: Source) -> String {
    let text = |column: &str| dialect.text(column);
    let no_text = dialect.null(ColumnType::Text);
    let no_number = dialect.null(ColumnType::Integer);
    let (name, number, value, updated, position, rest, table) = match source {
        Source::Objects(kind) => {
            let table = sql::object_table(kind);
            let position = dialect.position();
            (table.name, no_number, table.proto.to_owned(), UPDATED, position, None, table.table)
        }
        Source::UserMetadata(kind) => {
            let table = sql::object_table(kind);
            let no_position = dialect.null(ColumnType::BigInteger);
            (table.name, no_number, USER_METADATA.to_owned(), UPDATED, no_position, None, table.table)
        }
        Source::Versions => {
            let no_position = dialect.null(ColumnType::BigInteger);
            let rest = Some(["feature_view_type", "description", "version_id"].map(text));
            let proto = "feature_view_proto".to_owned();
            (VIEW, NUMBER.to_owned(), proto, "created_timestamp", no_position, rest, sql::VERSIONS)
        }
        Source::Metadata => {
            let value = dialect.text_as_bytes(FACT_VALUE);
            (FACT, no_number, value, UPDATED, dialect.position(), None, sql::METADATA)
        }
    };
    let [view_type, description, version_id] = rest.unwrap_or([no_text.clone(), no_text.clone(), no_text]);
    format!(
        "SELECT {term} AS c0, {project} AS c1, {name} AS c2, {number} AS c3, {value} AS c4, {updated} AS c5, \
         {position} AS c6, {view_type} AS c7, {description} AS c8, {version_id} AS c9 FROM {table}",
        project = text(PROJECT),
        name = text(name),
    )
}

fn record(source: Source, row: Row) -> Record {
    let Row { project, name, value, updated, .. } = row;
    match source {
        Source::Objects(kind) => Record::new(Key::Object { kind, project, name }, value, updated),
        Source::UserMetadata(kind) => Record::new(Key::UserMetadata { kind, project, view: name }, value, updated),
        Source::Metadata => Record::new(Key::Metadata { project, name }, value, updated),
        Source::Versions => {
            let number = row.number.unwrap_or_default();
            let columns = VersionColumns {
                view_type: row.view_type,
                created: Some(updated),
                description: row.description,
                version_id: row.version_id,
            };
            let value = columns.record(&project, &name, number, value);
            Record::new(Key::Version { project, view: name, number }, value, updated)
        }
    }
}

/// What the row of a version has besides its key and its view.
#[derive(Debug, Clone)]
pub(crate) struct VersionColumns {
    pub(crate) view_type: Option<String>,
    /// Seconds since 1970 (UTC).
    pub(crate) created: Option<i64>,
    pub(crate) description: Option<String>,
    pub(crate) version_id: Option<String>,
}

impl VersionColumns {
    /// The value that these columns hold, together with the serialized view.
    pub(crate) fn record(self, project: &str, view: &str, number: i32, proto: Bytes) -> Bytes {
        let record = FeatureViewVersionRecord {
            feature_view_name: view.to_owned(),
            project_id: project.to_owned(),
            version_number: number,
            feature_view_type: self.view_type.unwrap_or_default(),
            feature_view_proto: proto,
            created_timestamp: Some(Timestamp { seconds: self.created.unwrap_or_default(), nanos: 0 }),
            description: self.description.unwrap_or_default(),
            version_id: self.version_id.unwrap_or_default(),
        };
        record.encode_to_vec().into()
    }
}
