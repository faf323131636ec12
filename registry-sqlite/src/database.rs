//! Single attempts at what the backend does; what follows from how they fail is [`attempts`](feast_registry_sql::attempts).

use async_trait::async_trait;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{
    Backend as _, Commit, CommitId, Deadline, Error, JournalEntry, JournalQuery, Outcome, Query, Record, Retention,
    Revision,
};
use feast_registry_sql::journal::entries;
use feast_registry_sql::{Database, Failure, Found, JournalState};
use rusqlite::Connection;

use crate::connection::Location;
use crate::error::Problem;
use crate::{SqliteBackend, rows, schema};

impl SqliteBackend {
    /// Reads with a connection that does not wait for writers, where there are such.
    async fn look<T: Send + 'static>(
        &self,
        deadline: &Deadline,
        work: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        match &self.location {
            Location::File(_) => self.readers.read(deadline, work).await,
            Location::Memory => {
                let read = move |connection: &Connection| {
                    work(connection).map_err(|error| Problem::of(error, Location::Memory))
                };
                self.writer()?.run(deadline, move |session, _| read(session.connection())).await
            }
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        deadline: &Deadline,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.writer()?.run(deadline, move |session, is_awaited| session.write(is_awaited, work)).await
    }
}

#[async_trait]
impl Database for SqliteBackend {
    fn schema_mode(&self) -> SchemaMode {
        self.mode
    }

    fn journal_state(&self) -> &JournalState {
        &self.journal
    }

    async fn try_read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>, Failure> {
        let queries = queries.to_vec();
        self.look(deadline, move |connection| rows::read(connection, &queries)).await
    }

    async fn try_commit(&self, commit: &Commit, makes_tables: bool, deadline: &Deadline) -> Result<Outcome, Failure> {
        self.writer()?.commit(commit.clone(), makes_tables, self.journal.is_kept(), deadline).await
    }

    async fn try_find(&self, id: CommitId, deadline: &Deadline) -> Result<Option<Found>, Failure> {
        self.look(deadline, move |connection| rows::find(connection, id)).await
    }

    async fn try_fence(&self, commit: &Commit, deadline: &Deadline) -> Result<(), Failure> {
        let commit = commit.clone();
        self.write(deadline, move |connection| rows::fence(connection, &commit)).await
    }

    async fn try_journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>, Failure> {
        let asked = query.clone();
        let read = self.look(deadline, move |connection| rows::read_journal(connection, &asked)).await?;
        match (read, query.cursor()) {
            (Some(rows), _) => entries(query, rows).map_err(Failure::Final),
            (None, Some(after)) => Err(Failure::Final(Error::compacted(&self.location(), after))),
            (None, None) => Ok(Vec::new()),
        }
    }

    async fn try_newest_revision(&self, deadline: &Deadline) -> Result<Option<Revision>, Failure> {
        self.look(deadline, rows::newest_revision).await
    }

    async fn try_prune(&self, retention: Retention, deadline: &Deadline) -> Result<u64, Failure> {
        self.write(deadline, move |connection| rows::prune(connection, retention)).await
    }

    fn prune_in_background(&self) {
        if let Ok(writer) = &self.writer {
            writer.prune(self.journal.retention());
        }
    }

    async fn missing_tables(&self, deadline: &Deadline) -> Result<Vec<&'static str>, Failure> {
        let missing = self.look(deadline, schema::missing).await?;
        Ok(missing.into_iter().map(|table| table.name).collect())
    }

    async fn make_tables(&self, deadline: &Deadline) -> Result<(), Failure> {
        let made = self.write(deadline, schema::create_missing).await?;
        if self.location != Location::Memory {
            feast_registry_sql::tell_if_new(&self.location(), &made);
        }
        Ok(())
    }

    async fn try_remove(&self, deadline: &Deadline) -> Result<bool, Failure> {
        self.write(deadline, schema::remove_if_empty).await
    }
}
