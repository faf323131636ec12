//! The storage: tables in a redb file, and what a commit does to them.
//!
//! All of this blocks. redb sorts keys that are tuples part by part, and texts as their bytes, so what belongs together lies
//! together: a list is a range of a table, and needs no key that is put together by hand.

use std::ops::Bound;
use std::path::Path;

use feast_registry_core::{
    Bytes, Change, Commit, Environment as _, Error, ErrorKind, Expected, Image, JournalEntry, JournalQuery,
    JournalRange, Key, Kind, Outcome, Page, Query, Record, Result, Retention, Revision, System, Target, Timestamp,
    Write,
};
use redb::{
    AccessGuard, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, StorageError, Table, TableDefinition, TableError, WriteTransaction,
};

use crate::journal;

/// When a record was last written, in seconds since 1970 (UTC), and its value.
type Stored = (i64, &'static [u8]);
/// Three texts: kind, project and name. Kinds have the names that are made to be stored, [`Kind::plural`].
type ByKind = (&'static str, &'static str, &'static str);
type ByNumber = (&'static str, &'static str, i32);
type ByName = (&'static str, &'static str);

const OBJECTS: TableDefinition<'_, ByKind, Stored> = TableDefinition::new("objects");
const VERSIONS: TableDefinition<'_, ByNumber, Stored> = TableDefinition::new("versions");
const USER_METADATA: TableDefinition<'_, ByKind, Stored> = TableDefinition::new("user_metadata");
const FACTS: TableDefinition<'_, ByName, Stored> = TableDefinition::new("facts");
/// Entries by their revision. It stays when the registry is removed: it says what became of its last commits.
const JOURNAL: TableDefinition<'_, u64, &'static [u8]> = TableDefinition::new("journal");
/// Where the journal has the commit of an identity.
const REVISIONS: TableDefinition<'_, &'static [u8; 16], u64> = TableDefinition::new("revisions");

/// An open file.
pub(crate) struct Store {
    file: File,
    location: String,
}

enum File {
    Writable(Database),
    /// Nothing is made or changed, not even by a repair.
    ReadOnly(ReadOnlyDatabase),
}

impl Store {
    pub(crate) fn open(path: &Path, read_only: bool) -> Result<Self> {
        let location = format!("redb://{}", path.display());
        let opened = match read_only {
            true => ReadOnlyDatabase::open(path).map(File::ReadOnly),
            false => Database::create(path).map(File::Writable),
        };
        match opened {
            Ok(file) => Ok(Self { file, location }),
            // As a process leaves a file that is killed.
            Err(DatabaseError::RepairAborted) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{location}: the file has to be repaired; open it once to write, as a server does"),
            )),
            Err(DatabaseError::DatabaseAlreadyOpen) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{location}: another process has this file open, and a redb file belongs to one at a time"),
            )),
            Err(error) => Err(failed(&location, error)),
        }
    }

    /// As the URL that opens it.
    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    /// Makes the tables that are missing.
    pub(crate) fn make(&self) -> Result<()> {
        let made = self.writing(not_done, |transaction| make(transaction).map(Some));
        made.map(drop)
    }

    pub(crate) fn is_made(&self) -> Result<bool> {
        self.reading(|transaction| Ok(is_made(transaction.open_table(OBJECTS))?.is_some()))
    }

    /// Answers from one snapshot; `None` when there is no registry.
    pub(crate) fn read(&self, queries: &[Query]) -> Result<Option<Vec<Vec<Record>>>> {
        self.reading(|transaction| {
            let Some(objects) = is_made(transaction.open_table(OBJECTS))? else { return Ok(None) };
            let tables = Tables {
                objects,
                versions: transaction.open_table(VERSIONS)?,
                user_metadata: transaction.open_table(USER_METADATA)?,
                facts: transaction.open_table(FACTS)?,
            };
            queries.iter().map(|query| tables.answer(query)).collect::<Result<_, _>>().map(Some)
        })
    }

    /// Does a commit, unless it has been done or an expectation does not hold; it is on the disk when this returns. `None`
    /// when there is no registry and `makes` says not to make one.
    pub(crate) fn commit(&self, commit: Commit, makes: bool, retention: &Retention) -> Result<Option<Outcome>> {
        let mut outcome = None;
        // Whether it took place when redb cannot write, redb does not say.
        self.writing(Error::unknown_outcome, |transaction| {
            if let Some(revision) = transaction.open_table(REVISIONS)?.get(commit.id.as_bytes())? {
                outcome = Some(Outcome::Committed { revision: Some(Revision::new(revision.value())) });
                return Ok(None);
            }
            if makes {
                make(transaction)?;
            } else if !transaction.list_tables()?.any(|table| redb::TableHandle::name(&table) == "objects") {
                return Ok(None);
            }
            let mut tables = Tables {
                objects: transaction.open_table(OBJECTS)?,
                versions: transaction.open_table(VERSIONS)?,
                user_metadata: transaction.open_table(USER_METADATA)?,
                facts: transaction.open_table(FACTS)?,
            };
            for (key, expected) in &commit.expectations {
                if !holds(expected, tables.get(key)?) {
                    outcome = Some(Outcome::Conflict(key.clone()));
                    // Nothing is committed, so the tables are not made either.
                    return Ok(None);
                }
            }
            let mut journal = transaction.open_table(JOURNAL)?;
            let revision = Revision::new(journal.last()?.map_or(0, |(last, _)| last.value()) + 1);
            let mut entry = JournalEntry::new(revision, commit.id, commit.at);
            (entry.author, entry.reason) = (commit.author, commit.reason);
            for write in commit.writes {
                tables.write(write, &mut entry.changes)?;
            }
            entry.changes.extend(commit.observed);
            journal.insert(revision.number(), &*journal::encoded(&entry))?;
            let mut revisions = transaction.open_table(REVISIONS)?;
            revisions.insert(entry.id.as_bytes(), revision.number())?;
            prune(&mut journal, &mut revisions, &entry.at, retention)?;
            outcome = Some(Outcome::Committed { revision: Some(revision) });
            Ok(Some(()))
        })?;
        Ok(outcome)
    }

    /// The entries that a query asks for.
    pub(crate) fn journal(&self, query: &JournalQuery) -> Result<Vec<JournalEntry>> {
        self.reading(|transaction| {
            let table = is_made(transaction.open_table(JOURNAL))?;
            if let Some(after) = query.cursor() {
                let is_there = table.as_ref().map(|table| table.get(after.number())).transpose()?.flatten().is_some();
                if !is_there {
                    return Err(Failure::Told(Error::compacted(&self.location, after)));
                }
            }
            let Some(table) = table else { return Ok(Vec::new()) };
            let decoded = |entry: Result<(AccessGuard<'_, u64>, AccessGuard<'_, &[u8]>), StorageError>| {
                let (revision, stored) = entry?;
                let entry = journal::decoded(Revision::new(revision.value()), stored.value()).map_err(Failure::Told)?;
                Ok(if query.images { entry } else { entry.without_images() })
            };
            match query.range {
                JournalRange::After(after) => {
                    let first = after.map_or(0, |after| after.number() + 1);
                    table.range(first..)?.take(query.limit).map(decoded).collect()
                }
                JournalRange::Before(before) => {
                    let end = before.map_or(u64::MAX, Revision::number);
                    table.range(..end)?.rev().take(query.limit).map(decoded).collect()
                }
            }
        })
    }

    /// Removes what a journal of this size need not keep; returns how many entries.
    pub(crate) fn prune_journal(&self, retention: &Retention) -> Result<u64> {
        let removed = self.writing(not_done, |transaction| {
            // Who only prunes makes no registry.
            if !transaction.list_tables()?.any(|table| redb::TableHandle::name(&table) == "journal") {
                return Ok(None);
            }
            let (mut journal, mut revisions) = (transaction.open_table(JOURNAL)?, transaction.open_table(REVISIONS)?);
            match prune(&mut journal, &mut revisions, &System.now(), retention)? {
                0 => Ok(None),
                removed => Ok(Some(removed)),
            }
        })?;
        Ok(removed.unwrap_or_default())
    }

    /// Removes all tables but the journal's, if no project is left.
    pub(crate) fn remove_if_empty(&self) -> Result<bool> {
        let removed = self.writing(not_done, |transaction| {
            make(transaction)?;
            if !list(&transaction.open_table(OBJECTS)?, Kind::Project, None, None, &mut |_| true, 1)?.is_empty() {
                return Ok(None);
            }
            transaction.delete_table(OBJECTS)?;
            transaction.delete_table(VERSIONS)?;
            transaction.delete_table(USER_METADATA)?;
            transaction.delete_table(FACTS)?;
            Ok(Some(()))
        })?;
        Ok(removed.is_some())
    }

    fn reading<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>) -> Result<T> {
        let begun = match &self.file {
            File::Writable(database) => database.begin_read(),
            File::ReadOnly(database) => database.begin_read(),
        };
        let done = begun.map_err(Failure::from).and_then(|transaction| work(&transaction));
        done.map_err(|failure| failure.told_of(&self.location))
    }

    /// Commits what `work` wrote, durably, if it says so with `Some`. Otherwise, nothing is written. `lost` says what it means
    /// when the commit itself fails.
    fn writing<T>(
        &self,
        lost: fn(&str) -> Error,
        work: impl FnOnce(&WriteTransaction) -> Result<Option<T>, Failure>,
    ) -> Result<Option<T>> {
        let File::Writable(database) = &self.file else {
            return Err(Error::new(ErrorKind::ReadOnly, format!("{}: opened to be read", self.location)));
        };
        let done = database.begin_write().map_err(Failure::from).and_then(|transaction| {
            let Some(value) = work(&transaction)? else { return Ok(None) };
            transaction.commit().map_err(|error| Failure::Told(lost(&self.location).with_source(error)))?;
            Ok(Some(value))
        });
        done.map_err(|failure| failure.told_of(&self.location))
    }
}

/// What may be done again: to make tables, and to remove them.
fn not_done(location: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{location}: the file cannot be written"))
}

fn make(transaction: &WriteTransaction) -> Result<(), Failure> {
    transaction.open_table(OBJECTS)?;
    transaction.open_table(VERSIONS)?;
    transaction.open_table(USER_METADATA)?;
    transaction.open_table(FACTS)?;
    transaction.open_table(JOURNAL)?;
    transaction.open_table(REVISIONS)?;
    Ok(())
}

/// A table, if it has been made.
fn is_made<T>(opened: Result<T, TableError>) -> Result<Option<T>, Failure> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes from the journal what need not be kept at a moment; returns how many entries. The newest always is.
fn prune(
    journal: &mut Table<'_, u64, &'static [u8]>,
    revisions: &mut Table<'_, &'static [u8; 16], u64>,
    now: &Timestamp,
    retention: &Retention,
) -> Result<u64, Failure> {
    let (too_old, old_enough) = retention.bounds(now);
    let mut removed = 0;
    loop {
        let Some(oldest) = oldest(journal)? else { return Ok(removed) };
        let at = oldest.at.seconds;
        let is_kept = at >= old_enough || at >= too_old && journal.len()? <= retention.commits;
        if is_kept || journal.len()? <= 1 {
            return Ok(removed);
        }
        removed += 1;
        journal.remove(oldest.revision.number())?;
        revisions.remove(oldest.id.as_bytes())?;
    }
}

fn oldest(journal: &impl ReadableTable<u64, &'static [u8]>) -> Result<Option<JournalEntry>, Failure> {
    let Some((revision, stored)) = journal.first()? else { return Ok(None) };
    journal::decoded(Revision::new(revision.value()), stored.value()).map(Some).map_err(Failure::Told)
}

/// The tables of a snapshot, or of a transaction that writes.
struct Tables<O, V, U, F> {
    objects: O,
    versions: V,
    user_metadata: U,
    facts: F,
}

impl<O, V, U, F> Tables<O, V, U, F>
where
    O: ReadableTable<ByKind, Stored>,
    V: ReadableTable<ByNumber, Stored>,
    U: ReadableTable<ByKind, Stored>,
    F: ReadableTable<ByName, Stored>,
{
    fn get(&self, key: &Key) -> Result<Option<Record>, Failure> {
        let found = match key {
            Key::Object { kind, project, name } => {
                self.objects.get((kind.plural(), project.as_str(), name.as_str()))?
            }
            Key::Version { project, view, number } => self.versions.get((project.as_str(), view.as_str(), *number))?,
            Key::UserMetadata { kind, project, view } => {
                self.user_metadata.get((kind.plural(), project.as_str(), view.as_str()))?
            }
            Key::Metadata { project, name } => self.facts.get((project.as_str(), name.as_str()))?,
        };
        Ok(found.map(|found| record(key.clone(), found.value())))
    }

    fn answer(&self, query: &Query) -> Result<Vec<Record>, Failure> {
        match query {
            Query::Keys(keys) => {
                let found: Result<Vec<Option<Record>>, Failure> = keys.iter().map(|key| self.get(key)).collect();
                Ok(found?.into_iter().flatten().collect())
            }
            Query::Objects { kind, project, updated_since, page } => {
                let limit = page.as_ref().map_or(usize::MAX, |page| page.limit);
                let is_new = |record: &Record| updated_since.is_none_or(|since| record.updated >= since);
                list(&self.objects, *kind, project.as_deref(), page.as_ref(), &mut { is_new }, limit)
            }
            Query::Versions { project, view, latest_only } => {
                let mut versions = self.versions(project, Some(view))?;
                if *latest_only {
                    versions.drain(..versions.len().saturating_sub(1));
                }
                Ok(versions)
            }
            Query::Metadata { project } => self.facts(project.as_deref()),
        }
    }

    /// The versions of a view by their numbers, or of all views of a project.
    fn versions(&self, project: &str, view: Option<&str>) -> Result<Vec<Record>, Failure> {
        let mut found = Vec::new();
        for entry in self.versions.range((project, view.unwrap_or_default(), i32::MIN)..)? {
            let (key, stored) = entry?;
            let (of_project, of_view, number) = key.value();
            if of_project != project || view.is_some_and(|view| view != of_view) {
                break;
            }
            let key = Key::Version { project: project.to_owned(), view: of_view.to_owned(), number };
            found.push(record(key, stored.value()));
        }
        Ok(found)
    }

    fn facts(&self, project: Option<&str>) -> Result<Vec<Record>, Failure> {
        let mut found = Vec::new();
        for entry in self.facts.range((project.unwrap_or_default(), "")..)? {
            let (key, stored) = entry?;
            let (of_project, name) = key.value();
            if project.is_some_and(|project| project != of_project) {
                break;
            }
            found.push(record(Key::metadata(of_project, name), stored.value()));
        }
        Ok(found)
    }
}

/// The objects of a kind by project and name, as the table has them: of one project or of all, after a place if there is one,
/// and at most so many of those that are `wanted`.
fn list(
    objects: &impl ReadableTable<ByKind, Stored>,
    kind: Kind,
    project: Option<&str>,
    page: Option<&Page>,
    wanted: &mut dyn FnMut(&Record) -> bool,
    limit: usize,
) -> Result<Vec<Record>, Failure> {
    let first = (kind.plural(), project.unwrap_or_default(), "");
    let after = page.and_then(|page| page.after.as_ref()).map(|(project, name)| (kind.plural(), &**project, &**name));
    let start = match after {
        Some(after) if after >= first => Bound::Excluded(after),
        _ => Bound::Included(first),
    };
    let mut found = Vec::new();
    for entry in objects.range::<(&str, &str, &str)>((start, Bound::Unbounded))? {
        let (key, stored) = entry?;
        let (of_kind, of_project, name) = key.value();
        if found.len() >= limit || of_kind != kind.plural() || project.is_some_and(|project| project != of_project) {
            break;
        }
        let record = record(Key::object(kind, of_project, name), stored.value());
        if wanted(&record) {
            found.push(record);
        }
    }
    Ok(found)
}

fn record(key: Key, (updated, value): (i64, &[u8])) -> Record {
    Record::new(key, Bytes::copy_from_slice(value), updated)
}

fn holds(expected: &Expected, found: Option<Record>) -> bool {
    match (expected, found) {
        (Expected::Absent, None) | (Expected::Present, Some(_)) => true,
        (Expected::Value(value), Some(record)) => record.value == *value,
        _ => false,
    }
}

type Writable<'t> = Tables<
    Table<'t, ByKind, Stored>,
    Table<'t, ByNumber, Stored>,
    Table<'t, ByKind, Stored>,
    Table<'t, ByName, Stored>,
>;

impl Writable<'_> {
    /// Does a write, and adds to `changes` what that changed.
    fn write(&mut self, write: Write, changes: &mut Vec<Change>) -> Result<(), Failure> {
        match write {
            Write::Put(record) => {
                if let Key::UserMetadata { kind, project, view } = &record.key
                    && self.get(&Key::object(*kind, project, view))?.is_none()
                {
                    return Ok(());
                }
                let before = self.get(&record.key)?.map(|before| before.value);
                self.put(&record)?;
                changes.push(Change::of_key(record.key, before.into(), Image::Value(record.value)));
            }
            Write::Delete(key) => {
                let with_view = match &key {
                    Key::Object { kind, project, name } => {
                        Some(Key::UserMetadata { kind: *kind, project: project.clone(), view: name.clone() })
                    }
                    _ => None,
                };
                for key in [Some(key), with_view].into_iter().flatten() {
                    self.delete(key, changes)?;
                }
            }
            Write::DeleteVersions { project, view } => {
                let versions = self.versions(&project, Some(&view))?;
                changes.push(Change::removal(Target::Versions { project, view }));
                self.delete_all(versions, changes)?;
            }
            Write::DeleteProject { project } => {
                let mut all = self.versions(&project, None)?;
                for kind in Kind::ALL {
                    for record in list(&self.objects, *kind, Some(&project), None, &mut |_| true, usize::MAX)? {
                        // With a view goes its user metadata.
                        if let Key::Object { kind, project, name } = record.key.clone() {
                            all.extend(self.get(&Key::UserMetadata { kind, project, view: name })?);
                        }
                        all.push(record);
                    }
                }
                all.extend(self.facts(Some(&project))?);
                changes.push(Change::removal(Target::Project { project }));
                self.delete_all(all, changes)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, record: &Record) -> Result<(), Failure> {
        let stored = (record.updated, &*record.value);
        match &record.key {
            Key::Object { kind, project, name } => {
                self.objects.insert((kind.plural(), project.as_str(), name.as_str()), stored)?;
            }
            Key::Version { project, view, number } => {
                self.versions.insert((project.as_str(), view.as_str(), *number), stored)?;
            }
            Key::UserMetadata { kind, project, view } => {
                self.user_metadata.insert((kind.plural(), project.as_str(), view.as_str()), stored)?;
            }
            Key::Metadata { project, name } => {
                self.facts.insert((project.as_str(), name.as_str()), stored)?;
            }
        }
        Ok(())
    }

    fn delete_all(&mut self, records: Vec<Record>, changes: &mut Vec<Change>) -> Result<(), Failure> {
        records.into_iter().try_for_each(|record| self.delete(record.key, changes))
    }

    fn delete(&mut self, key: Key, changes: &mut Vec<Change>) -> Result<(), Failure> {
        let Some(before) = self.get(&key)? else { return Ok(()) };
        match &key {
            Key::Object { kind, project, name } => {
                self.objects.remove((kind.plural(), project.as_str(), name.as_str()))?;
            }
            Key::Version { project, view, number } => {
                self.versions.remove((project.as_str(), view.as_str(), *number))?;
            }
            Key::UserMetadata { kind, project, view } => {
                self.user_metadata.remove((kind.plural(), project.as_str(), view.as_str()))?;
            }
            Key::Metadata { project, name } => {
                self.facts.remove((project.as_str(), name.as_str()))?;
            }
        }
        changes.push(Change::of_key(key, Image::Value(before.value), Image::Absent));
        Ok(())
    }
}

/// Why something was not done: redb's reason, or an error to be told as it is.
enum Failure {
    Redb(Box<redb::Error>),
    Told(Error),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

impl Failure {
    fn told_of(self, location: &str) -> Error {
        match self {
            Self::Redb(error) => failed(location, *error),
            Self::Told(error) => error,
        }
    }
}

/// What redb said, as the registry's error. With any of these nothing was done.
fn failed(location: &str, error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match &error {
        redb::Error::Io(_) => ErrorKind::Unavailable,
        // redb writes nothing more until the file is opened anew, so a retry cannot help.
        redb::Error::PreviousIo => {
            let text =
                format!("{location}: an earlier write failed, and nothing is written until the process is restarted");
            return Error::new(ErrorKind::Internal, text).with_source(error);
        }
        redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("{location}: {error}")).with_source(error)
}
