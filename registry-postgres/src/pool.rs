//! Connections, made alike and kept for reuse.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, QueueMode, RecycleError, RecycleResult, Timeouts};
use feast_registry_core::Result;
use feast_registry_core::config::PoolConfig;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Failure, failure, no_connection};
use crate::options::Options;
use crate::session::{Link, Session};
use crate::tls;

/// A connection that goes back to the pool when it is dropped.
pub(crate) type Connection = managed::Object<Manager>;

/// How many connections a pool without a limit may open; the database has a limit of its own.
const UNLIMITED: usize = 10_000;

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
    tls: MakeRustlsConnect,
    config: PoolConfig,
    location: String,
    /// Whether there is a pooler between us and the server, as far as has been seen.
    is_pooled: AtomicBool,
}

/// What a connection without a pooler tells the server about its session.
///
/// Every read by a key is to be by the index, whatever the planner thinks of a table that was small when it last looked;
/// so a plan can be made once and kept. And a machine that vanishes in the middle of a commit is not to keep its locks.
const SESSION: &str = "-c enable_seqscan=off -c plan_cache_mode=force_generic_plan \
     -c idle_in_transaction_session_timeout=120s -c feast_registry.session=";

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.location)
    }
}

impl Pool {
    /// A pool without connections yet.
    pub(crate) fn new(location: String, options: Options, config: PoolConfig) -> Result<Self> {
        let tls = tls::connector(&options)?;
        let size = match config.size {
            0 => UNLIMITED,
            size => (size as usize).saturating_add(config.max_overflow as usize).min(UNLIMITED),
        };
        let answer_timeout = options.answer_timeout;
        // A server that is paused takes connections and then says nothing: the driver's own limit is for the former alone.
        let hosts = options.config.get_hosts().len().max(1) as u32;
        let create = options.config.get_connect_timeout().map(|each| *each * hosts);
        let is_pooled = AtomicBool::new(false);
        let manager = Manager { options, tls, config, location: location.clone(), is_pooled };
        let pool = managed::Pool::builder(manager)
            .config(managed::PoolConfig {
                max_size: size,
                timeouts: Timeouts { wait: Some(config.timeout), create, recycle: Some(answer_timeout) },
                // The one used last is the least likely to be dead, and the others can age.
                queue_mode: QueueMode::Lifo,
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| feast_registry_core::Error::internal("no pool").with_source(error))?;
        Ok(Self { pool, location, answer_timeout, echo: config.echo })
    }

    /// A connection, newly made if none is idle.
    pub(crate) async fn get(&self) -> Result<Connection, Failure> {
        self.pool.get().await.map_err(|error| no_connection(error, &self.location))
    }

    /// Waits for what the database answers, but not forever. A connection of which an answer is outstanding, or whose
    /// transaction may be open, is not used again: neither after silence, nor when the caller no longer waits.
    pub(crate) async fn within<T>(
        &self,
        connection: Connection,
        call: impl AsyncFnOnce(Session<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let lease = Lease(Some(connection));
        let Some(link) = lease.0.as_deref() else { return Err(Failure::silence(&self.location, self.answer_timeout)) };
        let session = Session { link, location: &self.location, echo: self.echo };
        let answer = tokio::time::timeout(self.answer_timeout, call(session)).await;
        let outcome = answer.unwrap_or_else(|_| Err(Failure::silence(&self.location, self.answer_timeout)));
        match &outcome {
            // What the one has met, the idle ones are likely to.
            Err(Failure::Lost(_)) => drop(self.pool.retain(|link, _| !link.client.is_closed())),
            _ => lease.give_back(),
        }
        outcome
    }
}

/// A connection that is closed unless it is given back.
struct Lease(Option<Connection>);

impl Lease {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.take().map(Connection::take);
    }
}

impl managed::Manager for Manager {
    type Type = Link;
    type Error = Failure;

    /// A pooler in transaction mode gives each transaction whatever server connection is free: what one client prepared,
    /// another would run. It is told by what it does to the options of a session, which it refuses or keeps to itself.
    async fn create(&self) -> Result<Link, Failure> {
        if !self.is_pooled.load(Ordering::Relaxed) {
            let name = format!("{:032x}", fastrand::u128(..));
            let mut config = self.options.config.clone();
            // What the user says comes last, and counts.
            let options = format!("{SESSION}{name} {}", config.get_options().unwrap_or_default());
            match self.connect(config.options(options.trim_end())).await {
                Ok(client) => {
                    let seen = client.query_typed("SELECT current_setting('feast_registry.session', true)", &[]).await;
                    let seen = seen.map_err(|error| failure(error, &self.location))?;
                    let is_ours = seen.first().and_then(|row| row.try_get(0).ok()) == Some(name.as_str());
                    if is_ours {
                        return Ok(Link::new(client, true));
                    }
                    self.is_pooled.store(true, Ordering::Relaxed);
                    return Ok(Link::new(client, false));
                }
                // Refused for what it was told, and not for who asks, nor because there is no more room.
                Err(error) if error.as_db_error().is_some_and(|error| refuses_options(error.code().code())) => {
                    tracing::debug!(%error, location = self.location, "no options for a session: nothing is prepared");
                    self.is_pooled.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(failure(error, &self.location)),
            }
        }
        let client = self.connect(&self.options.config).await.map_err(|error| failure(error, &self.location))?;
        Ok(Link::new(client, false))
    }

    async fn recycle(&self, link: &mut Link, metrics: &Metrics) -> RecycleResult<Failure> {
        let is_old = self.config.recycle.is_some_and(|age| metrics.created.elapsed() > age);
        if is_old || link.client.is_closed() {
            return Err(RecycleError::message("it is closed or too old"));
        }
        if self.config.pre_ping {
            link.client
                .check_connection()
                .await
                .map_err(|error| RecycleError::Backend(failure(error, &self.location)))?;
        }
        Ok(())
    }
}

impl Manager {
    async fn connect(&self, config: &Config) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = config.connect(self.tls.clone()).await?;
        let location = self.location.clone();
        // It ends with the client, or with the connection.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, location, "a connection ended");
            }
        });
        Ok(client)
    }
}

/// A violation of the protocol is what PgBouncer calls a startup parameter that it does not know; class 42 and 22 are
/// settings that the server does not know or take.
fn refuses_options(state: &str) -> bool {
    state == "08P01" || state.starts_with("42") || state.starts_with("22")
}
