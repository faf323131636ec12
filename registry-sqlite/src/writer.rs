//! The one thread of a process that writes: it takes the commits that are waiting into one transaction.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Commit, Error, ErrorKind, Outcome, Query, Record, Result};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use crate::connection::{self, Location};
use crate::error::sqlite_error;
use crate::{rows, schema};

/// The most commits that share a transaction, so that the first of them does not wait long for the last.
const MAX_BATCH: usize = 256;

type Reply<T> = oneshot::Sender<Result<T>>;

enum Job {
    Commit(Commit, Reply<Outcome>),
    Prepare(SchemaMode, Reply<()>),
    Read(Vec<Query>, Reply<Vec<Vec<Record>>>),
    RemoveIfEmpty(Reply<bool>),
    IsEmpty(Reply<bool>),
}

/// The handle of the writing thread. Dropping it waits until what has been handed over is done.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    makes_tables: Arc<AtomicBool>,
}

impl Writer {
    pub(crate) fn start(location: &Location) -> Result<Self> {
        let makes_tables = Arc::new(AtomicBool::new(false));
        let work = Work {
            connection: connection::open_writer(location)?,
            location: location.clone(),
            makes_tables: Arc::clone(&makes_tables),
            is_wal: *location == Location::Memory,
        };
        let (jobs, queue) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("registry-sqlite".to_owned())
            .spawn(move || work.run(&queue))
            .map_err(|error| Error::internal("the writing thread cannot be started").with_source(error))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), makes_tables })
    }

    /// Whether tables that are missing are made (`schema_mode: auto`).
    pub(crate) fn makes_tables(&self) -> bool {
        self.makes_tables.load(Ordering::Relaxed)
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<Outcome> {
        self.ask(|reply| Job::Commit(commit, reply)).await
    }

    pub(crate) async fn prepare(&self, mode: SchemaMode) -> Result<()> {
        self.ask(|reply| Job::Prepare(mode, reply)).await
    }

    pub(crate) async fn read(&self, queries: Vec<Query>) -> Result<Vec<Vec<Record>>> {
        self.ask(|reply| Job::Read(queries, reply)).await
    }

    pub(crate) async fn remove_if_empty(&self) -> Result<bool> {
        self.ask(Job::RemoveIfEmpty).await
    }

    /// Whether there are no tables at all.
    pub(crate) async fn is_empty(&self) -> Result<bool> {
        self.ask(Job::IsEmpty).await
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T> {
        let stopped = || Error::internal("the writing thread has stopped");
        let (reply, answer) = oneshot::channel();
        self.jobs.as_ref().ok_or_else(stopped)?.send(job(reply)).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the registry has panicked");
        }
    }
}

struct Work {
    connection: Connection,
    location: Location,
    makes_tables: Arc<AtomicBool>,
    /// Whether the file is in WAL mode. It is put there before it is first changed: who only looks changes nothing.
    is_wal: bool,
}

impl Work {
    fn run(mut self, queue: &mpsc::Receiver<Job>) {
        let mut next = queue.recv().ok();
        while let Some(job) = next.take() {
            match job {
                Job::Commit(commit, reply) => {
                    let mut batch = vec![(commit, reply)];
                    while batch.len() < MAX_BATCH {
                        match queue.try_recv() {
                            Ok(Job::Commit(commit, reply)) => batch.push((commit, reply)),
                            other => {
                                next = other.ok();
                                break;
                            }
                        }
                    }
                    self.commit_batch(batch);
                }
                // Whoever no longer waits for an answer gets none.
                Job::Prepare(mode, reply) => drop(reply.send(self.prepare(mode))),
                Job::Read(queries, reply) => drop(reply.send(rows::read(&self.connection, &queries))),
                Job::RemoveIfEmpty(reply) => drop(reply.send(self.remove_if_empty())),
                Job::IsEmpty(reply) => drop(reply.send(self.is_empty())),
            }
            if next.is_none() {
                next = queue.recv().ok();
            }
        }
    }

    /// Commits all in one transaction; if that fails, each in its own, so that none fails for another's sake.
    fn commit_batch(&mut self, batch: Vec<(Commit, Reply<Outcome>)>) {
        let (commits, replies): (Vec<Commit>, Vec<Reply<Outcome>>) = batch.into_iter().unzip();
        let outcomes = match self.transaction(&commits) {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(error) if commits.len() == 1 => vec![Err(error)],
            Err(_) => {
                let alone = |commit: Commit| self.transaction(&[commit]).map(|mut outcomes| outcomes.remove(0));
                commits.into_iter().map(alone).collect::<Vec<_>>()
            }
        };
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            drop(reply.send(outcome));
        }
    }

    fn transaction(&mut self, commits: &[Commit]) -> Result<Vec<Outcome>> {
        match self.try_transaction(commits, false) {
            // The tables may be gone because the last project is. They are made again in the very transaction that
            // writes, so that another process cannot remove them in between.
            Err(error) if error.kind() == ErrorKind::SchemaMissing && self.makes_tables.load(Ordering::Relaxed) => {
                self.try_transaction(commits, true)
            }
            outcomes => outcomes,
        }
    }

    fn try_transaction(&mut self, commits: &[Commit], makes_tables: bool) -> Result<Vec<Outcome>> {
        self.use_wal()?;
        let mut run = || {
            // The write lock is taken before anything is checked. Dropping the transaction unfinished rolls it back.
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if makes_tables {
                schema::create_missing(&transaction)?;
            }
            let outcomes = commits
                .iter()
                .map(|commit| rows::commit(&transaction, commit))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            transaction.commit()?;
            Ok(outcomes)
        };
        run().map_err(|error| sqlite_error(error, &self.location))
    }

    fn prepare(&mut self, mode: SchemaMode) -> Result<()> {
        self.makes_tables.store(mode == SchemaMode::Auto, Ordering::Relaxed);
        if mode == SchemaMode::Auto {
            self.use_wal()?;
        }
        schema::prepare(&mut self.connection, mode).map_err(|error| sqlite_error(error, &self.location))?
    }

    fn use_wal(&mut self) -> Result<()> {
        if !self.is_wal {
            connection::use_wal(&self.connection, &self.location)?;
            self.is_wal = true;
        }
        Ok(())
    }

    fn is_empty(&self) -> Result<bool> {
        schema::is_empty(&self.connection).map_err(|error| sqlite_error(error, &self.location))
    }

    fn remove_if_empty(&mut self) -> Result<bool> {
        if !self.makes_tables.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match schema::remove_if_empty(&mut self.connection).map_err(|error| sqlite_error(error, &self.location)) {
            // Another process was faster.
            Err(error) if error.kind() == ErrorKind::SchemaMissing => Ok(true),
            outcome => outcome,
        }
    }
}
