//! Connections, made alike and kept for reuse.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, QueueMode, RecycleError, RecycleResult, Timeouts};
use feast_registry_core::config::PoolConfig;
use feast_registry_core::{Error, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, IoError};

use crate::error::{Failure, failure, no_connection};
use crate::options::{Options, Tls};
use crate::session::{Session, column, plain, unreadable};

/// A connection that goes back to the pool when it is dropped.
pub(crate) type Connection = managed::Object<Manager>;

/// How many connections a pool without a limit may open; the database has a limit of its own.
const UNLIMITED: usize = 10_000;
/// A connection that was idle for longer is tried before it is used: servers and networks drop those silently.
const TRUSTED_FOR: Duration = Duration::from_secs(15);
/// How long to be polite to a connection that is closed.
const GOODBYE: Duration = Duration::from_secs(1);
/// What MariaDB takes at once by default, and less than what MySQL does.
const DEFAULT_MAX_PACKET: usize = 16 << 20;
/// Room in a packet for all but the largest value.
const ROOM: usize = 64 * 1024;

/// Connections to one database.
#[derive(Debug)]
pub(crate) struct Pool {
    pool: managed::Pool<Manager>,
    /// Where the database is, without secrets.
    pub(crate) location: String,
    answer_timeout: Duration,
    echo: bool,
}

/// What makes connections, and looks whether one can be used again.
pub(crate) struct Manager {
    options: Options,
    config: PoolConfig,
    location: String,
    server: OnceLock<Server>,
}

/// What a server said of itself.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) version: String,
    max_packet: usize,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.location)
    }
}

impl Pool {
    /// A pool without connections yet.
    pub(crate) fn new(location: String, options: Options, config: PoolConfig) -> Result<Self> {
        for (option, file) in &options.files {
            std::fs::metadata(file).map_err(|error| {
                Error::config(format!("{option}: {} cannot be read: {error}", file.display())).with_source(error)
            })?;
        }
        if options.tls > Tls::Disabled && rustls::crypto::CryptoProvider::get_default().is_none() {
            // The driver takes the process's own, and a program that also has another one compiled in has none unless
            // it says so. If someone just did, that one is as good.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let size = match config.size {
            0 => UNLIMITED,
            size => (size as usize).saturating_add(config.max_overflow as usize).min(UNLIMITED),
        };
        let (answer_timeout, create) = (options.answer_timeout, options.connect_timeout);
        let manager = Manager { options, config, location: location.clone(), server: OnceLock::new() };
        let pool = managed::Pool::builder(manager)
            .config(managed::PoolConfig {
                max_size: size,
                timeouts: Timeouts { wait: Some(config.timeout), create: Some(create), recycle: Some(answer_timeout) },
                // The one used last is the least likely to be dead, and the others can age.
                queue_mode: QueueMode::Lifo,
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::internal("no pool").with_source(error))?;
        Ok(Self { pool, location, answer_timeout, echo: config.echo })
    }

    /// A connection, newly made if none is idle.
    pub(crate) async fn get(&self) -> Result<Connection, Failure> {
        self.pool.get().await.map_err(|error| no_connection(error, &self.location))
    }

    /// What the server said of itself, once there was a connection.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.pool.manager().server.get()
    }

    /// The largest value that can be stored.
    pub(crate) fn value_bytes(&self) -> usize {
        self.server().map_or(DEFAULT_MAX_PACKET, |server| server.max_packet).saturating_sub(ROOM)
    }

    /// Waits for what the database answers, but not forever.
    pub(crate) async fn within<T>(
        &self,
        connection: Connection,
        call: impl AsyncFnOnce(Session<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.within_time(self.answer_timeout, connection, call).await
    }

    /// [`within`](Self::within) a time of the caller's choice.
    pub(crate) async fn within_time<T>(
        &self,
        time: Duration,
        connection: Connection,
        call: impl AsyncFnOnce(Session<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut lent = Lent(Some(connection));
        let Some(conn) = &mut lent.0 else { return Err(Failure::silence(&self.location, time)) };
        let session = Session { conn, location: &self.location, max_packet: self.value_bytes(), echo: self.echo };
        let answer = tokio::time::timeout(time, call(session)).await;
        let outcome = answer.unwrap_or_else(|_| Err(Failure::silence(&self.location, time)));
        if let Err(Failure::Lost(_)) = &outcome {
            drop(lent);
            // What the one has met, the idle ones are likely to, and nothing tells them apart without asking.
            self.pool.retain(|_, _| false);
        } else {
            lent.0 = None;
        }
        outcome
    }
}

/// A connection in use. Unless it is taken out, when all that was asked has been answered, it is closed: the caller may
/// have stopped waiting in the middle of an answer, or of a transaction.
struct Lent(Option<Connection>);

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            close(Connection::take(connection));
        }
    }
}

/// Closes a connection in whatever state it is. The driver's own way waits for what the server has to say.
fn close(conn: Conn) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(tokio::time::timeout(GOODBYE, conn.disconnect()));
    }
}

impl Manager {
    /// A connection as the server gives it.
    async fn connect(&self) -> Result<Conn, mysql_async::Error> {
        match (Conn::new(self.options.opts.clone()).await, &self.options.without_tls) {
            (
                Err(
                    mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer)
                    | mysql_async::Error::Io(IoError::Tls(_)),
                ),
                Some(plain),
            ) => Conn::new(plain.clone()).await,
            (connected, _) => connected,
        }
    }

    /// Makes a session what the registry relies on: names in utf8mb4, nothing cut short silently, and no setting of the
    /// server that changes what a statement means (`ANSI_QUOTES`, `EMPTY_STRING_IS_NULL`, …).
    async fn set_up(&self, conn: &mut Conn) -> Result<(), Failure> {
        let level = if self.config.serializable { "SERIALIZABLE" } else { "REPEATABLE READ" };
        // A lock is waited for on the server no longer than the answer is waited for here: then it says so itself.
        let lock_wait = (self.options.answer_timeout.as_secs() * 2 / 3).clamp(1, 20);
        let ask = plain("SELECT @@max_allowed_packet, VERSION()");
        let must = [
            plain("SET NAMES utf8mb4"),
            plain("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', SESSION autocommit = 1"),
            plain(format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}")),
        ];
        // A machine that vanishes in the middle of a commit leaves rows locked until its session is ended. The comment is
        // for MariaDB to read.
        let patience = "SET SESSION wait_timeout = 120 /*M!100300 , SESSION idle_transaction_timeout = 30 */";
        let may = [
            plain(patience),
            plain(format!("SET SESSION innodb_lock_wait_timeout = {lock_wait}")),
            plain(format!("SET SESSION lock_wait_timeout = {lock_wait}")),
        ];
        let location = &self.location;
        let mut session = Session { conn, location, max_packet: usize::MAX, echo: false };
        let all: Vec<_> = must.iter().chain(&may).chain([&ask]).cloned().collect();
        let mut answers = match session.run(&all).await {
            Ok(answers) => answers,
            // Databases that are merely compatible may lack what is only good to have.
            Err((_, mysql_async::Error::Server(error))) => {
                tracing::debug!(%error, location, "setting up a session, one statement after the other");
                session.run_all(&must).await?;
                for statement in may {
                    if let Err((_, error @ (mysql_async::Error::Driver(_) | mysql_async::Error::Io(_)))) =
                        session.run(&[statement]).await
                    {
                        return Err(failure(error, location));
                    }
                }
                session.run_all(&[ask]).await?
            }
            Err((_, error)) => return Err(failure(error, location)),
        };
        let mut row = answers.pop().and_then(|mut rows| rows.pop());
        if let Some(row) = &mut row {
            let unreadable = |error| Failure::Final(unreadable(location, error));
            let max_packet = column::<u64>(row, 0).map_err(unreadable)?;
            let version = column::<String>(row, 1).map_err(unreadable)?;
            let max_packet = usize::try_from(max_packet).unwrap_or(usize::MAX);
            tracing::debug!(version, max_packet, location, "connected");
            self.server.get_or_init(|| Server { version, max_packet });
        }
        Ok(())
    }
}

impl managed::Manager for Manager {
    type Type = Conn;
    type Error = Failure;

    async fn create(&self) -> Result<Conn, Failure> {
        let mut conn = self.connect().await.map_err(|error| failure(error, &self.location))?;
        self.set_up(&mut conn).await?;
        Ok(conn)
    }

    fn recycle(&self, conn: &mut Conn, metrics: &Metrics) -> impl Future<Output = RecycleResult<Failure>> + Send {
        let is_old = self.config.recycle.is_some_and(|age| metrics.created.elapsed() > age);
        let is_doubtful = self.config.pre_ping || metrics.last_used() > TRUSTED_FOR;
        async move {
            if is_old || conn.is_disconnected() {
                return Err(RecycleError::message("it is closed or too old"));
            }
            if is_doubtful {
                conn.ping().await.map_err(|error| RecycleError::Backend(failure(error, &self.location)))?;
            }
            Ok(())
        }
    }
}
