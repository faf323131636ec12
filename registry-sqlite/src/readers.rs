//! The connections that read.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use feast_registry_core::{Deadline, Error};
use feast_registry_sql::Failure;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::Semaphore;

use crate::connection::{self, Location};
use crate::error::Problem;
use crate::files::Files;
use crate::untouched::Untouched;
use crate::writer::closed;

/// How many connections read at the same time; more readers wait.
pub(crate) const READERS: usize = 16;

/// After so many steps of a statement SQLite asks whether anybody still waits for it: some tens of microseconds.
const STEPS_BETWEEN_LOOKS: i32 = 1000;

/// Connections for reading. A registry in memory has none, since another connection would see another database.
pub(crate) struct Readers {
    location: Location,
    /// How a file is read that cannot be written; each read has a connection of its own then.
    untouched: Option<Untouched>,
    files: Option<Arc<Files>>,
    /// `None` once closed.
    idle: Mutex<Option<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(location: Location, files: Option<Arc<Files>>) -> Self {
        let permits = Arc::new(Semaphore::new(READERS));
        Self { location, untouched: None, files, idle: Mutex::new(Some(Vec::new())), permits }
    }

    /// Readers of a file that this process may not write.
    pub(crate) fn of_untouched(location: Location, path: PathBuf) -> Self {
        Self { untouched: Some(Untouched::new(location.clone(), path)), ..Self::new(location, None) }
    }

    /// Reads on a thread for blocking work. When the caller leaves or its deadline is over, SQLite is interrupted; the permit is
    /// held until it has stopped, so that callers who leave never make for more than [`READERS`] reads at once.
    /// (`callers_who_leave_do_not_pile_up_work`)
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: &Deadline,
        work: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        const WAITS_FOR: &str = "a connection that reads";
        deadline.check(WAITS_FOR).map_err(Failure::Final)?;
        let permit = Arc::clone(&self.permits).acquire_owned();
        let permit = deadline.wait_for(WAITS_FOR, permit).await.map_err(Failure::Final)?;
        let permit = permit.map_err(|_| Failure::Final(closed(&self.location.to_string())))?;
        let abandoned = Arc::new(AtomicBool::new(false));
        let (readers, of_read) = (Arc::clone(self), Arc::clone(&abandoned));
        let task = tokio::task::spawn_blocking(move || {
            let read = readers.read_now(work, &of_read);
            drop(permit);
            read
        });
        let _abandoned_when_dropped = AbandonOnDrop(abandoned);
        let read = deadline.wait_for("the answer to a read", task).await.map_err(Failure::Final)?;
        let aborted = |error| Failure::Final(Error::internal("a read of the registry was aborted").with_source(error));
        read.map_err(aborted)?.map_err(Failure::from)
    }

    fn read_now<T>(
        &self,
        work: impl Fn(&Connection) -> rusqlite::Result<T>,
        abandoned: &Arc<AtomicBool>,
    ) -> Result<T, Problem> {
        if let Some(untouched) = &self.untouched {
            let is_awaited = || !abandoned.load(Ordering::Relaxed);
            return untouched.read(is_awaited, |connection| {
                attend(connection, Some(abandoned))?;
                work(connection)
            });
        }
        let problem = |error| Problem::of(error, &self.location);
        let mut connection = self.connection()?;
        attend(&mut connection, Some(abandoned)).map_err(problem)?;
        // A connection that failed is not used again.
        let read = work(&connection).map_err(problem)?;
        attend(&mut connection, None).map_err(problem)?;
        match &mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(idle) => idle.push(connection),
            None => self.close_connection(connection),
        }
        Ok(read)
    }

    /// A connection on the file that the registry was opened with.
    fn connection(&self) -> Result<Connection, Problem> {
        if let Some(files) = &self.files {
            files.check_for_reader()?;
        }
        let idle = match &mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(idle) => idle.pop(),
            None => {
                let closed = closed(&self.location.to_string());
                return Err(Problem::new(closed.kind(), closed.to_string()));
            }
        };
        if let Some(connection) = idle {
            return Ok(connection);
        }
        let connection = connection::open_reader(&self.location).map_err(|error| Problem::of(error, &self.location))?;
        if let Some(files) = &self.files {
            files.check_new(&connection)?;
        }
        Ok(connection)
    }

    /// Closes the connections that are idle, and each other one when its read ends.
    pub(crate) fn close(&self) {
        self.permits.close();
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take();
        idle.into_iter().flatten().for_each(|connection| self.close_connection(connection));
    }

    /// See [`Session`](crate::session::Session), which does the same.
    fn close_connection(&self, connection: Connection) {
        if self.files.as_ref().is_some_and(|files| files.check().is_err()) {
            drop(connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true));
        }
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("location", &self.location).finish_non_exhaustive()
    }
}

/// Says that nobody waits any more, when it is dropped.
struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes a connection stop what it does, and no longer wait for a lock, once it is abandoned; `None` for one that is idle.
fn attend(connection: &mut Connection, abandoned: Option<&Arc<AtomicBool>>) -> rusqlite::Result<()> {
    let is_abandoned = |abandoned: &Arc<AtomicBool>| {
        let abandoned = Arc::clone(abandoned);
        move || abandoned.load(Ordering::Relaxed)
    };
    connection.progress_handler(STEPS_BETWEEN_LOOKS, abandoned.map(is_abandoned))?;
    connection.busy_handler(abandoned.map(is_abandoned).map(|is_abandoned| {
        // Readers of a file in WAL mode wait when it is being recovered; others also for a writer.
        move |waited: i32| {
            thread::sleep(Duration::from_millis(waited.clamp(1, 25).unsigned_abs().into()));
            !is_abandoned()
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use feast_registry_core::ErrorKind;

    use super::*;

    /// Never ends.
    const FOREVER: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_ends_and_holds_its_permit_until_then() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let location = Location::file(&folder.path().join("registry.db"));
        drop(connection::open_writer(&location).expect("a file is made"));
        let readers = Arc::new(Readers::new(location, None));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let reads = (0..4 * READERS).map(|_| {
            let (readers, running, most) = (Arc::clone(&readers), Arc::clone(&running), Arc::clone(&most));
            tokio::spawn(async move {
                let read = move |connection: &Connection| {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let read = connection.query_row(FOREVER, (), |row| row.get::<_, i64>(0));
                    running.fetch_sub(1, Ordering::SeqCst);
                    read
                };
                readers.read(&Deadline::after(Duration::from_millis(50)), read).await
            })
        });
        for read in reads.collect::<Vec<_>>() {
            let error = read.await.expect("no panic").expect_err("it never ends").into_error();
            assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        }
        // All permits come back, so all reads have ended.
        let all = readers.permits.acquire_many(READERS as u32);
        drop(tokio::time::timeout(Duration::from_secs(60), all).await.expect("they end").expect("not closed"));
        assert_eq!(running.load(Ordering::SeqCst), 0);
        assert!(most.load(Ordering::SeqCst) <= READERS, "{most:?} at once");
        let patient = Deadline::after(Duration::from_secs(60));
        let read =
            readers.read(&patient, |connection| connection.query_row("SELECT 1", (), |row| row.get::<_, i64>(0)));
        assert_eq!(read.await.expect("a patient read"), 1);
    }
}
