//! Connections to a database server, made alike and kept for reuse.
//!
//! Writers never hold all of them: a share is kept for reads, so that writers who wait for a lock on the server do not stop
//! those who wait for nobody.
//!
//! Callers with very short deadlines cost no connections: connecting goes on without its caller, for the next one, and a
//! read that was given up is mostly answered a moment later, after which its connection is as good as before.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use deadpool::Runtime;
use deadpool::Status;
use deadpool::managed::{self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts};
use feast_registry_core::config::PoolConfig;
use feast_registry_core::metrics::{POOL_CONNECTIONS, POOL_LIMIT, POOL_WAIT_SECONDS};
use feast_registry_core::{Deadline, Error, ErrorKind, Result};
use metrics::{Gauge, Histogram, SharedString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::Failure;

/// How many connections a pool without a limit may open; the database has a limit of its own.
const UNLIMITED: usize = 10_000;
/// How long to wait for the answer to a write beyond its deadline before the server is asked to stop. It has been told how
/// long to wait for locks, which is a little longer than the deadline, so that it mostly says so of its own accord.
const GIVES_UP_WITHIN: Duration = Duration::from_millis(150);
/// How long a read that nobody waits for any more is let run, before its connection is given up. To connect anew costs the
/// server more.
const READS_ON_FOR: Duration = Duration::from_millis(250);
/// The same for a connection that is being made. It takes a place meanwhile, and a server that does not answer is asked anew
/// by the next.
const CONNECTS_ON_FOR: Duration = Duration::from_secs(1);
/// How long to wait for the answer to a write after the server was asked to stop.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// How long the end of a connection may take; a place in the pool is held as long.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// For how long new sessions are believed to be as the last that could not be written with.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

/// What makes the connections of a database, and ends them.
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// A connection.
    type Connection: Send + 'static;

    /// A connection that was idle for longer is tried before it is used. `None`: never.
    const TRUSTED_FOR: Option<Duration>;

    /// Makes a connection. A server that cannot be reached is a [`Failure::Unusable`]. Cancel-safe.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;

    /// Whether a connection is open, as far as is known without asking.
    fn is_open(&self, connection: &Self::Connection) -> bool;

    /// Whether the server answers on a connection.
    fn answers(&self, connection: &mut Self::Connection) -> impl Future<Output = bool> + Send;

    /// Asks the server, on a connection of its own, to stop what this one has under way. What it returns does so when it is
    /// polled.
    fn stop(&self, connection: &Self::Connection) -> impl Future<Output = ()> + Send + 'static;

    /// Closes a connection in whatever state it is, and waits until it is closed.
    fn end(&self, connection: Self::Connection) -> impl Future<Output = ()> + Send + 'static;
}

/// A read under way on a connection.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To read, or to look whether the database is there: it waits for no lock of a writer.
    Read,
    /// To write.
    Write,
}

/// Connections to one database.
pub struct Pool<C: Connector> {
    pool: managed::Pool<Manager<C>>,
    connector: Arc<C>,
    /// As many as there may be connections. Who has one waits for no other caller, only for the server.
    places: Arc<Semaphore>,
    /// Connections that writers may hold.
    writers: Arc<Semaphore>,
    location: String,
    /// How long to wait for a connection, to make one, and for an answer.
    wait: Duration,
    create: Option<Duration>,
    answer: Duration,
    /// When the sessions at hand were last given up because they could not be written with.
    condemned: Mutex<Option<Instant>>,
    gauges: Arc<Gauges>,
}

/// What is measured of a pool.
struct Gauges {
    idle: Gauge,
    in_use: Gauge,
    wait: Histogram,
}

/// Host, port and name of a database: who asks for metrics need not know as whom it is used, nor how.
fn database_of(location: &str) -> &str {
    let without_options = location.split_once('?').map_or(location, |(before, _)| before);
    let without_scheme = without_options.split_once("://").map_or(without_options, |(_, after)| after);
    without_scheme.rsplit_once('@').map_or(without_scheme, |(_, after)| after)
}

impl Gauges {
    fn new(location: &str, size: usize) -> Self {
        crate::attempts::begin_counting();
        let database = SharedString::from_owned(database_of(location).to_owned());
        metrics::gauge!(POOL_LIMIT.name, "database" => database.clone()).set(size as f64);
        Self {
            idle: metrics::gauge!(POOL_CONNECTIONS.name, "database" => database.clone(), "state" => "idle"),
            in_use: metrics::gauge!(POOL_CONNECTIONS.name, "database" => database.clone(), "state" => "in_use"),
            wait: metrics::histogram!(POOL_WAIT_SECONDS.name, "database" => database),
        }
    }

    fn measure(&self, status: &Status) {
        self.idle.set(status.available as f64);
        self.in_use.set(status.size.saturating_sub(status.available) as f64);
    }
}

impl<C: Connector> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.pool.status();
        f.debug_struct("Pool").field("location", &self.location).field("status", &status).finish_non_exhaustive()
    }
}

/// A connection in the pool.
struct Slot<T> {
    /// There is none while it is being closed.
    connection: Option<T>,
    generation: u64,
}

/// What deadpool makes connections with.
struct Manager<C> {
    connector: Arc<C>,
    config: PoolConfig,
    /// Connections of an earlier one are not used again.
    generation: Arc<AtomicU64>,
}

impl<C: Connector> managed::Manager for Manager<C> {
    type Type = Slot<C::Connection>;
    type Error = Failure;

    async fn create(&self) -> Result<Self::Type, Failure> {
        // Read before: what changes while this connects, it may not have seen.
        let generation = self.generation.load(Ordering::Acquire);
        Ok(Slot { connection: Some(self.connector.connect().await?), generation })
    }

    async fn recycle(&self, slot: &mut Self::Type, metrics: &Metrics) -> RecycleResult<Failure> {
        let refuse = |why: &'static str| Err(RecycleError::message(why));
        let is_old = self.config.recycle.is_some_and(|age| metrics.created.elapsed() > age);
        if is_old || slot.generation != self.generation.load(Ordering::Acquire) {
            return refuse("it is too old");
        }
        let Some(connection) = slot.connection.as_mut().filter(|connection| self.connector.is_open(connection)) else {
            return refuse("it is closed");
        };
        let is_doubtful = self.config.pre_ping || C::TRUSTED_FOR.is_some_and(|time| metrics.last_used() > time);
        if is_doubtful && !self.connector.answers(connection).await {
            return refuse("it does not answer");
        }
        Ok(())
    }
}

/// A connection in use. Once it is at work it is closed unless [`Pool::within`] gives it back, when all that was asked has
/// been answered: the caller may have stopped waiting in the middle of an answer, or of a transaction. Its place in the
/// pool is free when it is closed.
struct Lease<C: Connector> {
    object: Option<Object<Manager<C>>>,
    connector: Arc<C>,
    permits: Option<Permits>,
    state: State,
    gauges: Arc<Gauges>,
}

/// What allows a caller to have a connection.
struct Permits {
    writer: Option<OwnedSemaphorePermit>,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was sent, or all is answered: it can be used again.
    Idle,
    /// Something is under way, which the server is to be asked to stop.
    AtWork,
    /// Nothing is under way, but it is of no use any more.
    Useless,
}

impl<C: Connector> Drop for Lease<C> {
    fn drop(&mut self) {
        let Some(mut object) = self.object.take() else { return };
        let (pool, gauges) = (Object::pool(&object), Arc::clone(&self.gauges));
        let measure = move || pool.iter().for_each(|pool| gauges.measure(&pool.status()));
        if self.state == State::Idle {
            drop(object);
            return measure();
        }
        let Some(connection) = object.connection.take() else { return };
        let (connector, permits) = (Arc::clone(&self.connector), self.permits.take());
        let stop = (self.state == State::AtWork).then(|| connector.stop(&connection));
        // Without a runtime the process is about to end.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Some(stop) = stop {
                drop(tokio::time::timeout(ENDS_WITHIN, stop).await);
            }
            drop(tokio::time::timeout(ENDS_WITHIN, connector.end(connection)).await);
            drop(Object::take(object));
            drop(permits);
            measure();
        });
    }
}

/// A connection that is held for one call.
pub struct Connection<C: Connector>(Lease<C>);

impl<C: Connector> fmt::Debug for Connection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("is_for_writing", &self.0.is_for_writing()).finish()
    }
}

impl<C: Connector> Lease<C> {
    fn is_for_writing(&self) -> bool {
        self.permits.as_ref().is_some_and(|permits| permits.writer.is_some())
    }
}

impl<C: Connector> Pool<C> {
    /// A pool without connections yet. `connect` is the longest time that connecting may take, `answer` that of an answer.
    ///
    /// # Errors
    /// `Internal` when a pool cannot be built.
    pub fn new(
        connector: C,
        location: String,
        config: PoolConfig,
        connect: Option<Duration>,
        answer: Duration,
    ) -> Result<Self> {
        let connector = Arc::new(connector);
        let size = match config.size {
            0 => UNLIMITED,
            size => (size as usize).saturating_add(config.max_overflow as usize).min(UNLIMITED),
        };
        let manager = Manager { connector: Arc::clone(&connector), config, generation: Arc::default() };
        let pool = managed::Pool::builder(manager)
            .config(managed::PoolConfig {
                max_size: size,
                timeouts: Timeouts::default(),
                // The one used last is the least likely to be dead, and the others can age.
                queue_mode: QueueMode::Lifo,
            })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::internal("no pool").with_source(error))?;
        let (places, writers) = (Arc::new(Semaphore::new(size)), Arc::new(Semaphore::new(for_writers(size))));
        let (wait, condemned) = (config.timeout, Mutex::default());
        let gauges = Arc::new(Gauges::new(&location, size));
        Ok(Self { pool, connector, places, writers, location, wait, create: connect, answer, condemned, gauges })
    }

    /// Where the database is, without secrets.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// What makes the connections.
    pub fn connector(&self) -> &C {
        &self.connector
    }

    /// A connection, newly made if none is idle. Waits until the deadline, or as long as the pool's configuration says.
    /// Cancel-safe: what is being made when the caller leaves is there for the next.
    ///
    /// # Errors
    /// [`Failure::Final`] with [`ErrorKind::DeadlineExceeded`] when the deadline is over, with [`ErrorKind::Unavailable`] when
    /// none became free or the pool is closed; what [`Connector::connect`] fails with.
    pub async fn get(&self, purpose: Purpose, deadline: &Deadline) -> Result<Connection<C>, Failure> {
        const WHAT: &str = "a connection to the database";
        let began = tokio::time::Instant::now();
        let permit = async |permits: &Arc<Semaphore>| {
            let left = self.wait.saturating_sub(began.elapsed());
            let permit = tokio::time::timeout(left, Arc::clone(permits).acquire_owned()).await;
            permit.map_err(|_| Failure::no_free_connection(&self.location))?.map_err(|_| self.closed())
        };
        let get = async {
            let writer = match purpose {
                Purpose::Read => None,
                Purpose::Write => Some(permit(&self.writers).await?),
            };
            let permits = Permits { writer, _place: permit(&self.places).await? };
            let timeouts = Timeouts { wait: None, create: self.create, recycle: Some(self.answer) };
            let (pool, connector, gauges) = (self.pool.clone(), Arc::clone(&self.connector), Arc::clone(&self.gauges));
            let mut lease = Box::pin(async move {
                let object = pool.timeout_get(&timeouts).await?;
                Ok(Lease { object: Some(object), connector, permits: Some(permits), state: State::Idle, gauges })
            });
            // Mostly one is idle, and there is nothing to wait for that would have to go on without the caller.
            let lease = match poll_fn(|cx| Poll::Ready(lease.as_mut().poll(cx))).await {
                Poll::Ready(lease) => Some(lease),
                Poll::Pending => {
                    let (tied, _caller) = deadline.tied_to_caller();
                    joined(tokio::spawn(for_a_while(CONNECTS_ON_FOR, tied, lease))).await.flatten()
                }
            };
            lease.ok_or_else(|| self.closed())?.map_err(|error| self.no_connection(error))
        };
        deadline.check(WHAT).map_err(Failure::Final)?;
        let connection = deadline.wait_for(WHAT, get).await;
        self.gauges.wait.record(began.elapsed());
        self.gauges.measure(&self.pool.status());
        connection.map_err(Failure::Final)?.map(Connection)
    }

    /// Makes a connection beside those of the pool, for work that no caller waits for; it is closed after use.
    ///
    /// # Errors
    /// What [`Connector::connect`] fails with, and [`Failure::Unusable`] when that takes too long.
    pub async fn connect_beside(&self) -> Result<C::Connection, Failure> {
        match tokio::time::timeout(self.create.unwrap_or(self.answer), self.connector.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(Failure::not_connected(&self.location)),
        }
    }

    /// Has a connection for a read, and waits for what the database answers, as [`within`](Self::within) does. When the
    /// caller leaves, or the deadline is over, the read goes on for a moment without it, so that its connection can be used
    /// again.
    ///
    /// # Errors
    /// What [`get`](Self::get) and [`within`](Self::within) fail with.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        deadline: &Deadline,
        call: impl for<'a> FnOnce(&'a mut C::Connection) -> Answering<'a, T> + Send + 'static,
    ) -> Result<T, Failure> {
        const WHAT: &str = "the answer of the database";
        let connection = self.get(Purpose::Read, deadline).await?;
        let pool = Arc::clone(self);
        let (tied, _caller) = deadline.tied_to_caller();
        let read = async move {
            // While its caller waits, only the time that an answer may take ends it, and says that the server is silent. That
            // must not come before the caller's own end of patience, which says nothing of the server.
            let (patient, time) = (Deadline::after(Duration::MAX), pool.answer + 2 * READS_ON_FOR);
            let call = async |connection: &mut C::Connection| call(connection).await;
            for_a_while(READS_ON_FOR, tied, pool.within_time(time, connection, &patient, call)).await
        };
        let answer = deadline.wait_for(WHAT, joined(tokio::spawn(read))).await.map_err(Failure::Final)?;
        // It is there as long as the caller is, unless the runtime ends.
        answer.flatten().unwrap_or_else(|| Err(self.closed()))
    }

    /// Waits for what the database answers, until the deadline, and no longer than an answer may take.
    ///
    /// The answer to a write is waited for a moment longer, after the server was asked to stop: mostly it then says what
    /// became of it. A connection of which an answer is outstanding is closed, also when this is dropped, and the server is
    /// asked to stop.
    ///
    /// # Errors
    /// What `call` fails with. [`Failure::Final`] with [`ErrorKind::DeadlineExceeded`] when the deadline of a read is over,
    /// else [`Failure::Lost`] when there was no answer in time.
    pub async fn within<T>(
        &self,
        connection: Connection<C>,
        deadline: &Deadline,
        call: impl AsyncFnOnce(&mut C::Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.within_time(self.answer, connection, deadline, call).await
    }

    /// [`within`](Self::within) with an answer that may take so long.
    ///
    /// # Errors
    /// As [`within`](Self::within).
    pub async fn within_time<T>(
        &self,
        time: Duration,
        connection: Connection<C>,
        deadline: &Deadline,
        call: impl AsyncFnOnce(&mut C::Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Connection(mut lease) = connection;
        lease.state = State::AtWork;
        let is_write = lease.is_for_writing();
        let Some(slot) = lease.object.as_mut().and_then(|object| object.connection.as_mut()) else {
            return Err(Failure::not_connected(&self.location));
        };
        let stop = self.connector.stop(slot);
        let limit = deadline.at_most(time);
        let began = Instant::now();
        let mut was_asked_to_stop = false;
        let answer = {
            let mut call = pin!(call(slot));
            let in_time = tokio::select! {
                biased;
                answer = &mut call => Some(answer),
                () = limit.over() => None,
            };
            let of_its_own = match in_time {
                None if is_write => tokio::time::timeout(GIVES_UP_WITHIN, &mut call).await.ok(),
                in_time => in_time,
            };
            match of_its_own {
                None if is_write => {
                    was_asked_to_stop = true;
                    let when_stopped = async {
                        tokio::select! {
                            biased;
                            answer = &mut call => answer,
                            () = stop => call.as_mut().await,
                        }
                    };
                    tokio::time::timeout(ANSWERS_WITHIN, when_stopped).await.ok()
                }
                answered => answered,
            }
        };
        let outcome = match answer {
            Some(Err(Failure::Final(error))) if error.kind() == ErrorKind::Unavailable && deadline.is_over() => {
                Err(Failure::Final(deadline.exceeded("another transaction").with_source(error)))
            }
            Some(answer) => answer,
            None if !is_write && deadline.is_over() => {
                return Err(Failure::Final(deadline.exceeded("the answer of the database")));
            }
            None => Err(Failure::silence(&self.location, began.elapsed())),
        };
        match &outcome {
            Err(Failure::Lost(_)) => {
                drop(lease);
                self.discard_idle();
            }
            Err(Failure::Unusable(error)) => {
                tracing::warn!(%error, location = self.location, "a session is given up");
                lease.state = State::Useless;
                drop(lease);
                if error.kind() != ErrorKind::ReadOnly || self.condemn() {
                    self.discard_idle();
                } else if let Err(failure) = outcome {
                    // The new session is as the last.
                    return Err(Failure::Final(failure.into_error()));
                }
            }
            // The request to stop may be late, and would meet another call.
            _ if was_asked_to_stop => lease.state = State::Useless,
            _ => lease.state = State::Idle,
        }
        outcome
    }

    /// Whether sessions that cannot be written with are worth being replaced: not again when that was just done.
    fn condemn(&self) -> bool {
        let mut condemned = self.condemned.lock().unwrap_or_else(PoisonError::into_inner);
        let was_just_done = condemned.is_some_and(|at| at.elapsed() < BELIEVED_FOR);
        if !was_just_done {
            *condemned = Some(Instant::now());
        }
        !was_just_done
    }

    /// Uses none of the connections again that there are: what one has met, the others are likely to, and nothing tells
    /// them apart without asking.
    fn discard_idle(&self) {
        self.pool.manager().generation.fetch_add(1, Ordering::AcqRel);
        self.pool.retain(|_, _| false);
    }

    /// Closes what is idle, and makes no more connections. Calls that are under way are seen through. Does not wait.
    pub fn close(&self) {
        self.writers.close();
        self.places.close();
        self.pool.close();
    }

    fn closed(&self) -> Failure {
        let text = format!("{}: the registry is closed; nothing was done", self.location);
        Failure::Final(Error::new(ErrorKind::Unavailable, text))
    }

    fn no_connection(&self, error: PoolError<Failure>) -> Failure {
        match error {
            PoolError::Backend(failure) => failure,
            PoolError::Closed => self.closed(),
            _ => Failure::not_connected(&self.location),
        }
    }
}

/// What a future returns, if it does so before its caller has left or in so much time after that.
async fn for_a_while<T>(time: Duration, caller: Deadline, future: impl Future<Output = T>) -> Option<T> {
    let given_up = async {
        caller.over().await;
        tokio::time::sleep(time).await;
    };
    tokio::select! {
        biased;
        value = future => Some(value),
        () = given_up => None,
    }
}

/// What a task returns; `None` when the runtime ends before it does.
async fn joined<T>(task: JoinHandle<T>) -> Option<T> {
    match task.await {
        Ok(value) => Some(value),
        Err(error) => error.try_into_panic().map(|panic| std::panic::resume_unwind(panic)).ok(),
    }
}

/// How many of so many connections writers may hold.
const fn for_writers(size: usize) -> usize {
    match size {
        0 | 1 => size,
        2..8 => size - 1,
        _ => size - size / 4,
    }
}

#[cfg(test)]
mod tests;
