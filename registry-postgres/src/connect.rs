//! Making connections, and ending them.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use feast_registry_core::Result;
use feast_registry_core::config::PoolConfig;
use feast_registry_sql::pool::Connector;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::engine::Engine;
use crate::error::{Failure, failure};
use crate::options::{Options, duration};
use crate::session::{Begin, Link};
use crate::tls;

/// How long a connection that is closed is left to what it has under way, before it is cut.
const GOODBYE: Duration = Duration::from_secs(1);

/// What makes connections.
#[derive(Debug)]
pub(crate) struct Connect {
    options: Options,
    tls: Tls,
    is_serializable: bool,
    location: String,
    /// Whether there is a pooler between us and the server, as far as has been seen.
    is_pooled: AtomicBool,
}

/// What is called for each notification.
pub(crate) type OnNotification = Arc<dyn Fn() + Send + Sync>;

/// Has no `Debug` of its own.
#[derive(Clone)]
struct Tls(MakeRustlsConnect);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("rustls")
    }
}

/// What a connection without a pooler tells the server about its session.
///
/// Every read by a key is to be by the index, whatever the planner thinks of a table that was small when it last looked;
/// so a plan can be made once and kept. A list of a whole table then seems so dear that the server would compile it, which
/// takes much longer than to run it. And a machine that vanishes in the middle of a commit is not to keep its locks.
const SESSION: &str = "-c enable_seqscan=off -c jit=off -c plan_cache_mode=force_generic_plan \
     -c idle_in_transaction_session_timeout=120s -c feast_registry.session=";

/// What is asked on each new connection: the session's name, the server, and what the user or an administrator has set.
const ASK: &str = "SELECT current_setting('feast_registry.session', true), version(), \
     current_setting('default_transaction_read_only', true), current_setting('lock_timeout', true)";

impl Connect {
    pub(crate) fn new(location: String, options: Options, config: &PoolConfig) -> Result<Self> {
        let tls = Tls(tls::connector(&options)?);
        Ok(Self { options, tls, is_serializable: config.serializable, location, is_pooled: AtomicBool::new(false) })
    }

    async fn open(
        &self,
        config: &Config,
        heard: Option<OnNotification>,
    ) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let (client, mut connection) = config.connect(self.tls.0.clone()).await?;
        let location = self.location.clone();
        // It ends with the client, when all is answered, or with the connection.
        let task = tokio::spawn(async move {
            let ended = loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(_))) => heard.iter().for_each(|heard| heard()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Err(error),
                    None => break Ok(()),
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, location, "a connection ended");
            }
        });
        Ok((client, task))
    }

    /// A connection beside those of the pool on which notifications are heard.
    pub(crate) async fn connect_listening(&self, heard: OnNotification) -> Result<Link, Failure> {
        self.connect_hearing(Some(heard)).await
    }

    /// A pooler in transaction mode gives each transaction whatever server connection is free: what one client prepared,
    /// another would run. It is told by what it does to the options of a session, which it refuses or keeps to itself.
    async fn connect_hearing(&self, heard: Option<OnNotification>) -> Result<Link, Failure> {
        if !self.is_pooled.load(Ordering::Relaxed) {
            let name = format!("{:032x}", fastrand::u128(..));
            let mut config = self.options.config.clone();
            // What the user says comes last, and counts.
            let options = format!("{SESSION}{name} {}", config.get_options().unwrap_or_default());
            match self.open(config.options(options.trim_end()), heard.clone()).await {
                Ok((client, task)) => return self.set_up(client, task, Some(&name)).await,
                // Refused for what it was told, and not for who asks, nor because there is no more room.
                Err(error) if error.as_db_error().is_some_and(|error| refuses_options(error.code().code())) => {
                    tracing::debug!(%error, location = self.location, "no options for a session: nothing is prepared");
                    self.is_pooled.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(self.unusable(error)),
            }
        }
        let (client, task) = self.open(&self.options.config, heard).await.map_err(|error| self.unusable(error))?;
        self.set_up(client, task, None).await
    }

    /// Nothing has been asked for yet that could have been done.
    fn unusable(&self, error: tokio_postgres::Error) -> Failure {
        match failure(error, &self.location) {
            Failure::Lost(error) => Failure::Unusable(error),
            failure => failure,
        }
    }

    async fn is_standby(&self, client: &Client) -> Result<bool, Failure> {
        let rows = client.query_typed("SELECT pg_is_in_recovery()", &[]).await.map_err(|error| self.unusable(error))?;
        Ok(rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default())
    }

    /// Looks what a new session is, and makes it what is relied on. `name` is what it was called when it was opened.
    async fn set_up(&self, client: Client, task: JoinHandle<()>, name: Option<&str>) -> Result<Link, Failure> {
        let rows = client.query_typed(ASK, &[]).await.map_err(|error| self.unusable(error))?;
        let column = |index: usize| rows.first().and_then(|row| row.try_get::<_, Option<String>>(index).ok().flatten());
        let is_ours = name.is_some() && column(0).as_deref() == name;
        if !is_ours {
            self.is_pooled.store(true, Ordering::Relaxed);
        }
        let version = column(1).unwrap_or_default();
        let engine = Engine::of(&version, self.is_serializable);
        tracing::debug!(version, ?engine, is_pooled = !is_ours, "connected to {}", self.location);
        // Sessions that someone made read-only on purpose stay so.
        let is_protected = is_ours
            && column(2).as_deref() == Some("off")
            && client.batch_execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").await.is_ok();
        let begin = if is_protected { Begin::Pipelined } else { Begin::Awaited };
        let lock_timeout = column(3).filter(|_| is_ours).and_then(|setting| duration(&setting));
        // Only PostgreSQL has standbys, and only where reads are to take part in SERIALIZABLE does it matter.
        let is_standby = match engine {
            Engine::Serializable => self.is_standby(&client).await?,
            Engine::AdvisoryLocks | Engine::Compatible => false,
        };
        let read_level = engine.read_level(is_standby);
        Ok(Link::new(client, task, engine, read_level, begin, lock_timeout, is_ours))
    }
}

impl Connector for Connect {
    type Connection = Link;

    // A read that meets a dead connection is tried again, and so is a commit.
    const TRUSTED_FOR: Option<Duration> = None;

    async fn connect(&self) -> Result<Link, Failure> {
        self.connect_hearing(None).await
    }

    fn is_open(&self, link: &Link) -> bool {
        !link.client.is_closed()
    }

    async fn answers(&self, link: &mut Link) -> bool {
        link.client.check_connection().await.is_ok()
    }

    /// What is committing is left to it: a COMMIT that waits for replicas would be answered as if they had it.
    fn stop(&self, link: &Link) -> impl Future<Output = ()> + Send + 'static {
        let (token, tls, is_committing) =
            (link.client.cancel_token(), self.tls.clone(), Arc::clone(&link.is_committing));
        let location = self.location.clone();
        async move {
            if is_committing.load(Ordering::Acquire) {
                return;
            }
            if let Err(error) = token.cancel_query(tls.0).await {
                tracing::debug!(%error, location, "a statement that was given up could not be cancelled");
            }
        }
    }

    /// Its session on the server ends when what was cancelled has been answered.
    fn end(&self, link: Link) -> impl Future<Output = ()> + Send + 'static {
        close(link)
    }
}

async fn close(link: Link) {
    let Link { client, mut task, .. } = link;
    drop(client);
    if tokio::time::timeout(GOODBYE, &mut task).await.is_err() {
        task.abort();
    }
}

/// A violation of the protocol is what PgBouncer calls a startup parameter that it does not know; class 42 and 22 are
/// settings that the server does not know or take.
fn refuses_options(state: &str) -> bool {
    state == "08P01" || state.starts_with("42") || state.starts_with("22")
}
