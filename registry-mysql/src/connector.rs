//! How connections to MySQL are made, told to stop, and closed; [`feast_registry_sql::pool`] keeps them.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use feast_registry_core::config::PoolConfig;
use feast_registry_core::{Deadline, Error, Result};
use feast_registry_sql::pool::Connector;
use feast_registry_sql::{Failure, Statement};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, IoError};

use crate::error::{failure, not_sent};
use crate::options::{Options, Tls};
use crate::session::{Session, column, plain, rows, unreadable};

/// What MariaDB takes at once by default, and less than what MySQL does.
const DEFAULT_MAX_PACKET: usize = 16 << 20;
/// Room in a packet for all but the largest value: its names, and what is beside it in a row.
const ROOM: usize = 64 * 1024;
/// Room in a packet for all but the values.
const ROOM_BESIDE_VALUES: usize = ROOM / 2;
/// The longest that a session waits for a lock on its own, whatever the deadline.
const LONGEST_LOCK_WAIT: u64 = 3600;

/// A connection.
pub(crate) struct Connection {
    pub(crate) conn: Conn,
    /// Whether a request was sent that has not been answered completely.
    pub(crate) is_at_work: bool,
    /// Which session of which server it is. `None` where the server does not say.
    identity: Option<Identity>,
    /// Whether the server lets a session say how long it waits for locks.
    has_lock_waits: bool,
    /// How long it was told to wait for locks. What it is told together with a statement that then fails it has been told
    /// all the same, since that comes first.
    lock_wait_seconds: Option<u64>,
}

/// A session, as the server itself knows it: what is in between may count in another way.
#[derive(Debug, Clone)]
struct Identity {
    server: String,
    session: u64,
}

/// Which of a session's work is to end.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// The statement that it runs now, which then fails.
    Query,
    /// All of it.
    Connection,
}

/// What makes connections to one database.
pub(crate) struct MySql {
    options: Arc<Options>,
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

impl std::fmt::Debug for MySql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.location)
    }
}

impl MySql {
    /// Connects as the options say; `location` is without secrets.
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
        Ok(Self { options: Arc::new(options), config, location, server: OnceLock::new() })
    }

    /// What the server said of itself, once there was a connection.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.server.get()
    }

    /// The largest value that can be stored. (`limits::an_object_as_large_as_promised` in `conformance-tests`)
    pub(crate) fn value_bytes(&self) -> usize {
        self.max_packet().saturating_sub(ROOM)
    }

    /// The most that the server takes in one request, as far as is known.
    fn max_packet(&self) -> usize {
        self.server().map_or(DEFAULT_MAX_PACKET, |server| server.max_packet)
    }

    /// The session of a connection.
    pub(crate) fn session<'a>(&'a self, connection: &'a mut Connection) -> Session<'a> {
        Session {
            connection,
            location: &self.location,
            max_packet: self.max_packet().saturating_sub(ROOM_BESIDE_VALUES),
            // Where it is no lock, it may be refused.
            has_shared_locks: !self.server().is_some_and(|server| server.version.contains("TiDB")),
            echo: self.config.echo,
        }
    }

    /// Makes a session what the registry relies on: names in utf8mb4, nothing cut short silently, and no setting of the
    /// server that changes what a statement means (`ANSI_QUOTES`, `EMPTY_STRING_IS_NULL`, …).
    async fn set_up(&self, connection: &mut Connection) -> Result<(), Failure> {
        let level = if self.config.serializable { "SERIALIZABLE" } else { "REPEATABLE READ" };
        let must = [
            plain("SET NAMES utf8mb4"),
            plain("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', SESSION autocommit = 1"),
            plain(format!("SET SESSION TRANSACTION ISOLATION LEVEL {level}")),
            plain("SELECT @@max_allowed_packet, VERSION()"),
        ];
        let may = [
            // A machine that vanishes in the middle of a commit leaves rows locked until its session is ended. The comment
            // is for MariaDB to read.
            plain("SET SESSION wait_timeout = 120 /*M!100300 , SESSION idle_transaction_timeout = 30 */"),
            lock_waits(lock_wait_seconds(self.options.answer_timeout)),
            plain("SELECT CONCAT(@@hostname, ':', @@port), CONNECTION_ID()"),
        ];
        let mut session = Session {
            connection,
            location: &self.location,
            max_packet: usize::MAX,
            has_shared_locks: false,
            echo: false,
        };
        let all: Vec<_> = must.iter().chain(&may).cloned().collect();
        let (mut answers, has_lock_waits) = match session.run(&all).await {
            Ok(answers) => (rows(answers), true),
            // Databases that are merely compatible may lack what is only good to have.
            Err((_, mysql_async::Error::Server(error))) => {
                tracing::debug!(%error, location = self.location, "setting up a session, one statement after the other");
                let mut answers = session.run_all(&must).await?;
                let mut has = [false; 3];
                for (statement, has) in may.into_iter().zip(&mut has) {
                    match session.run(&[statement]).await {
                        Ok(answer) => {
                            *has = true;
                            answers.extend(rows(answer));
                        }
                        Err((_, mysql_async::Error::Server(_))) => answers.push(Vec::new()),
                        Err((_, error)) => return Err(failure(error, &self.location)),
                    }
                }
                (answers, has[1])
            }
            Err((_, error)) => return Err(failure(error, &self.location)),
        };
        let unreadable = |error| Failure::Final(unreadable(&self.location, error));
        if let Some(mut row) = answers.pop().and_then(|mut rows| rows.pop()) {
            let server = column::<String>(&mut row, 0).map_err(unreadable)?;
            let session = column::<u64>(&mut row, 1).map_err(unreadable)?;
            connection.identity = Some(Identity { server, session });
        }
        connection.has_lock_waits = has_lock_waits;
        if let Some(mut row) = answers.into_iter().nth(must.len() - 1).and_then(|mut rows| rows.pop()) {
            let max_packet = column::<u64>(&mut row, 0).map_err(unreadable)?;
            let version = column::<String>(&mut row, 1).map_err(unreadable)?;
            let max_packet = usize::try_from(max_packet).unwrap_or(usize::MAX);
            tracing::debug!(version, max_packet, location = self.location, "connected");
            self.server.get_or_init(|| Server { version, max_packet });
        }
        Ok(())
    }
}

impl Connection {
    /// What a session is told before it waits for locks: to wait no longer than until a deadline. The server counts in
    /// whole seconds.
    /// It is not told again what it was told last.
    pub(crate) fn lock_waits(&mut self, deadline: &Deadline) -> Option<Statement> {
        let seconds = lock_wait_seconds(deadline.remaining());
        if !self.has_lock_waits || self.lock_wait_seconds == Some(seconds) {
            return None;
        }
        self.lock_wait_seconds = Some(seconds);
        Some(lock_waits(seconds))
    }
}

/// As the server counts: in whole seconds, at least one.
fn lock_wait_seconds(time: Duration) -> u64 {
    time.as_secs().clamp(1, LONGEST_LOCK_WAIT)
}

/// Has a session wait for locks so long, of rows and of tables.
fn lock_waits(seconds: u64) -> Statement {
    plain(format!("SET SESSION innodb_lock_wait_timeout = {seconds}, SESSION lock_wait_timeout = {seconds}"))
}

/// A connection as the server gives it.
async fn connect(options: &Options) -> Result<Conn, mysql_async::Error> {
    match (Conn::new(options.opts.clone()).await, &options.without_tls) {
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

/// Ends the work of a session, on a connection of its own, unless that leads to another server. Users may end their own.
async fn kill(options: Arc<Options>, identity: Option<Identity>, what: Kill) {
    let Some(Identity { server, session }) = identity else { return };
    let killed = async {
        let mut conn = connect(&options).await?;
        let here: Option<String> = conn.query_first("SELECT CONCAT(@@hostname, ':', @@port)").await?;
        if here.as_ref() == Some(&server) {
            let what = match what {
                Kill::Query => "QUERY",
                Kill::Connection => "CONNECTION",
            };
            match conn.query_drop(format!("KILL {what} {session}")).await {
                // It has ended of itself.
                Err(mysql_async::Error::Server(error)) if error.code == 1094 => {}
                killed => killed?,
            }
        }
        conn.disconnect().await
    };
    if let Err(error) = killed.await {
        tracing::warn!(%error, session, "a session that was given up cannot be told to stop");
    }
}

impl Connector for MySql {
    type Connection = Connection;

    /// Servers and networks drop connections silently.
    const TRUSTED_FOR: Option<Duration> = Some(Duration::from_secs(15));

    async fn connect(&self) -> Result<Connection, Failure> {
        let connected = connect(&self.options).await.map_err(|error| not_sent(failure(error, &self.location)));
        let mut connection = Connection {
            conn: connected?,
            is_at_work: false,
            identity: None,
            has_lock_waits: false,
            lock_wait_seconds: None,
        };
        self.set_up(&mut connection).await.map_err(not_sent)?;
        Ok(connection)
    }

    fn is_open(&self, connection: &Connection) -> bool {
        !connection.is_at_work && !connection.conn.is_disconnected()
    }

    async fn answers(&self, connection: &mut Connection) -> bool {
        connection.conn.ping().await.is_ok()
    }

    fn stop(&self, connection: &Connection) -> impl Future<Output = ()> + Send + 'static {
        kill(Arc::clone(&self.options), connection.identity.clone(), Kill::Query)
    }

    fn end(&self, connection: Connection) -> impl Future<Output = ()> + Send + 'static {
        let options = Arc::clone(&self.options);
        async move {
            // A session notices that its client is gone when it next has to say something, which may be after a commit.
            // What `stop` ends is the statement under way, and there may be none yet.
            if connection.is_at_work {
                kill(options, connection.identity, Kill::Connection).await;
            } else {
                drop(connection.conn.disconnect().await);
            }
        }
    }
}
