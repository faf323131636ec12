//! Telling of commits, and being told: PostgreSQL's `LISTEN` and `NOTIFY`.
//!
//! A notification says nothing but that somebody has committed; whoever waits then looks into the journal. It is never sent in
//! the transaction of a commit, since a transaction that notifies takes a lock of the whole database until it is committed,
//! and commits would wait for one another. It is a statement of its own, after the commit was answered, that nobody waits for:
//! one for all commits of a short time, on a connection of the pool that is taken for one round trip.
//!
//! One may be lost, since a process may end between its commit and the notification, and who writes without this library's
//! knowledge sends none. So those who wait look now and then all the same; and as often as by default where nothing can be
//! heard: behind a pooler, on a standby, in databases that only resemble PostgreSQL, and while the connection is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use feast_registry_core::{Backend as _, Deadline, JOURNAL_POLL, JournalQuery, Revision};
use feast_registry_sql::JOURNAL;
use feast_registry_sql::pool::{Pool, Purpose};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::PostgresBackend;
use crate::connect::Connect;
use crate::engine::Engine;
use crate::error::Failure;
use crate::session::{Link, Session, plain};

/// How often those who wait look into the journal though nothing was heard.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The same while the journal holds back a commit until nothing can come before it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A process sends no more than one notification in this time.
const SEND_EVERY: Duration = Duration::from_millis(20);
/// How long sending one may take, and with it the wait for a connection.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take until a connection listens.
const LISTEN_WITHIN: Duration = Duration::from_secs(15);
/// How often a connection that listens is tried, and how long its answer may take: one that is dead is silent too.
const TRY_EVERY: Duration = Duration::from_secs(30);
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// The pauses between attempts to listen, and how long a connection must have lasted for the next to be the first again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LASTED: Duration = Duration::from_secs(60);

/// The channel of a registry: that of the schema in which its journal is, or will be made. Channels are those of a database.
fn channel() -> String {
    format!(
        "'{JOURNAL}_' || coalesce((SELECT relnamespace FROM pg_class WHERE oid = to_regclass('{JOURNAL}')), \
         (SELECT oid FROM pg_namespace WHERE nspname = current_schema()))::text"
    )
}

/// What is heard on a backend's connection, and said on those of its pool.
#[derive(Debug)]
pub(crate) struct Notifications {
    pool: Arc<Pool<Connect>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    heard: watch::Sender<Heard>,
    is_closed: watch::Sender<bool>,
    /// Whether a task listens, or tries to.
    has_listener: AtomicBool,
    /// Whether there is something to tell of, and whether a task tells of it.
    is_due: AtomicBool,
    is_sending: AtomicBool,
    /// Whether the database has no notifications.
    is_mute: AtomicBool,
}

/// What has been heard.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    /// How often there was something.
    times: u64,
    /// Whether everything is heard that is told.
    is_listening: bool,
}

impl Drop for Notifications {
    fn drop(&mut self) {
        self.close();
    }
}

impl Notifications {
    pub(crate) fn new(pool: Arc<Pool<Connect>>) -> Self {
        Self { pool, shared: Arc::default() }
    }

    /// Ends what this keeps open. Does not wait.
    pub(crate) fn close(&self) {
        self.shared.is_closed.send_replace(true);
    }

    /// Tells everybody that something was committed. Does not wait.
    pub(crate) fn send(&self) {
        let shared = &self.shared;
        shared.hear();
        if *shared.is_closed.borrow() || shared.is_mute.load(Ordering::Relaxed) {
            return;
        }
        shared.is_due.store(true, Ordering::SeqCst);
        if let Some(sending) = Sending::begin(shared) {
            tokio::spawn(sending.serve(Arc::clone(&self.pool)));
        }
    }

    /// Has a task listen, unless there is one.
    fn listen(&self) {
        if !*self.shared.is_closed.borrow() && !self.shared.has_listener.swap(true, Ordering::SeqCst) {
            tokio::spawn(listen(Arc::clone(&self.pool), Listener(Arc::clone(&self.shared))));
        }
    }
}

impl Shared {
    fn hear(&self) {
        self.heard.send_modify(|heard| heard.times = heard.times.wrapping_add(1));
    }

    fn set_listening(&self, is_listening: bool) {
        self.heard.send_if_modified(|heard| std::mem::replace(&mut heard.is_listening, is_listening) != is_listening);
    }

    async fn closed(&self) {
        // The sender is part of `self`.
        let _ = self.is_closed.subscribe().wait_for(|is_closed| *is_closed).await;
    }
}

/// What a look into the journal finds.
enum Look {
    /// Something that comes after the revision.
    There,
    /// That there is something, which is not shown yet.
    HeldBack,
    Nothing,
    /// It failed: who waits will see how.
    Failed,
}

async fn look(backend: &PostgresBackend, after: Option<Revision>, deadline: &Deadline) -> Look {
    match backend.journal(&JournalQuery::after(after, 1).without_images(), deadline).await {
        Ok(entries) if !entries.is_empty() => return Look::There,
        Ok(_) => {}
        Err(_) => return Look::Failed,
    }
    match backend.newest_revision(deadline).await {
        Ok(newest) if newest > after => Look::HeldBack,
        Ok(_) => Look::Nothing,
        Err(_) => Look::Failed,
    }
}

/// [`Backend::wait_for_commit`](feast_registry_core::Backend::wait_for_commit). Cancel-safe.
pub(crate) async fn wait_for_commit(backend: &PostgresBackend, after: Option<Revision>, deadline: &Deadline) {
    let notifications = &backend.notifications;
    notifications.listen();
    let mut heard = notifications.shared.heard.subscribe();
    while !deadline.is_over() {
        // What is heard from here on ends the wait, and what was committed before is seen by the look.
        let is_listening = heard.borrow_and_update().is_listening;
        if !is_listening {
            let _ = timeout(JOURNAL_POLL.min(deadline.remaining()), heard.changed()).await;
            return;
        }
        match look(backend, after, deadline).await {
            Look::There => return,
            Look::HeldBack => sleep(LOOK_AGAIN.min(deadline.remaining())).await,
            Look::Nothing => drop(timeout(LOOK_EVERY.min(deadline.remaining()), heard.changed()).await),
            Look::Failed => return sleep(JOURNAL_POLL.min(deadline.remaining())).await,
        }
    }
}

/// That a task sends notifications. Another may when this is dropped, however the task ends.
struct Sending(Arc<Shared>);

impl Sending {
    fn begin(shared: &Arc<Shared>) -> Option<Self> {
        (!shared.is_sending.swap(true, Ordering::SeqCst)).then(|| Self(Arc::clone(shared)))
    }

    /// Sends as long as there is something to tell of.
    async fn serve(self, pool: Arc<Pool<Connect>>) {
        let shared = Arc::clone(&self.0);
        let mut sending = Some(self);
        while let Some(current) = sending.take() {
            while shared.is_due.swap(false, Ordering::SeqCst) {
                let sent = tokio::select! {
                    biased;
                    () = shared.closed() => return,
                    sent = send(&pool, &shared) => sent,
                };
                if let Err(failure) = sent {
                    let error = failure.into_error();
                    tracing::debug!(%error, location = pool.location(), "others were not told of a commit");
                }
                sleep(SEND_EVERY).await;
            }
            drop(current);
            // Whoever committed meanwhile has left it to this task.
            if shared.is_due.load(Ordering::SeqCst) {
                sending = Self::begin(&shared);
            }
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.is_sending.store(false, Ordering::SeqCst);
    }
}

async fn send(pool: &Arc<Pool<Connect>>, shared: &Shared) -> Result<(), Failure> {
    let deadline = Deadline::after(SEND_WITHIN);
    let connection = pool.get(Purpose::Read, &deadline).await?;
    let call = async |link: &mut Link| {
        if link.engine == Engine::Compatible {
            shared.is_mute.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let session = Session { link, location: pool.location(), echo: false };
        session.run_all(&[plain(format!("SELECT pg_notify({}, '')", channel()))]).await.map(drop)
    };
    pool.within(connection, &deadline, call).await
}

/// That a task listens. Another may when this is dropped.
struct Listener(Arc<Shared>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.set_listening(false);
        self.0.has_listener.store(false, Ordering::SeqCst);
    }
}

/// Listens until the backend is closed. Where nothing can be heard, it stays until then, so that nobody tries again.
async fn listen(pool: Arc<Pool<Connect>>, listener: Listener) {
    let shared = &listener.0;
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let ended = tokio::select! {
            biased;
            () = shared.closed() => return,
            ended = listen_once(&pool, shared) => ended,
        };
        shared.set_listening(false);
        match ended {
            Ok(Ended::Impossible) => {
                tracing::debug!(
                    location = pool.location(),
                    "nobody can be told of commits here: the journal is polled"
                );
                return shared.closed().await;
            }
            Ok(Ended::Lost) => tracing::debug!(location = pool.location(), "the connection that listens was lost"),
            Err(failure) => {
                let error = failure.into_error();
                tracing::debug!(%error, location = pool.location(), "cannot listen for commits: the journal is polled");
            }
        }
        if began.elapsed() > LASTED {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = shared.closed() => return,
            // Those that lost their server at once do not come back at once.
            () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How listening ends.
enum Ended {
    Lost,
    /// It could not begin, and never will.
    Impossible,
}

async fn listen_once(pool: &Pool<Connect>, shared: &Arc<Shared>) -> Result<Ended, Failure> {
    let heard = {
        let shared = Arc::clone(shared);
        Arc::new(move || shared.hear())
    };
    let silence = || Failure::silence(pool.location(), LISTEN_WITHIN);
    let begin = async {
        let link = pool.connector().connect_listening(heard).await?;
        // Behind a pooler each transaction may have another session, and a session that listens goes on to others.
        if !link.has_own_session() || link.engine == Engine::Compatible {
            return Ok(None);
        }
        let session = Session { link: &link, location: pool.location(), echo: false };
        let answers = session.run_all(&[plain(format!("SELECT {}", channel()))]).await?;
        let name = answers.first().and_then(|rows| rows.first()).map(|row| row.try_get::<_, Option<String>>(0));
        let Some(name) = name.transpose().map_err(|error| session.failure(error))?.flatten() else {
            return Err(Failure::not_connected(pool.location()));
        };
        session.run_all(&[plain(format!("LISTEN \"{name}\""))]).await?;
        Ok(Some(link))
    };
    let Some(mut link) = timeout(LISTEN_WITHIN, begin).await.unwrap_or_else(|_| Err(silence()))? else {
        return Ok(Ended::Impossible);
    };
    shared.set_listening(true);
    while timeout(TRY_EVERY, &mut link.task).await.is_err() {
        if !matches!(timeout(ANSWERS_WITHIN, link.client.check_connection()).await, Ok(Ok(()))) {
            break;
        }
    }
    Ok(Ended::Lost)
}
