//! Making the contents fresh: one refresh at a time, in a task of its own, which no caller ends by leaving. Where the journal is
//! followed, a look at what has come to it is enough; otherwise, and when somebody asks for it, everything is read anew.

use std::collections::HashSet;
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::follow::{Position, Written};
use super::{Cache, Contents, Meanwhile, State, follow, outside};
use crate::backend::{Key, Query, Record};
use crate::config::CacheMode;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::JOURNAL_POLL;
use crate::kind::Kind;
use crate::metrics::{CACHE_BYTES, CACHE_OBJECTS, CACHE_REFRESH_SECONDS, CACHE_REFRESHED, CACHE_REFRESHES};

/// How long a refresh may take to read the storage.
const READ_FOR: Duration = Duration::from_secs(60);

/// How long after a refresh that failed the next one is started by itself.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// For how long after a refresh has begun readers wait for it, if the last one took no longer. See
/// [`Cache::freshen`].
const GRACE: Duration = Duration::from_millis(250);

/// For so long what comes to the journal is gathered before it is taken in.
const TOGETHER: Duration = Duration::from_millis(5);

/// How long closing waits until changes of others are journaled that were found.
const NOTES_END_WITHIN: Duration = Duration::from_secs(3);

/// How many records are taken in before others have their turn.
const BATCH: usize = 256;

/// How far refreshes are, which are numbered from 1.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    begun: u64,
    /// The highest number that somebody waits for.
    wanted: u64,
    /// Whether the one that is under way reads everything anew, and whether the one after it is to.
    is_whole: bool,
    is_next_whole: bool,
    began_at: Option<Instant>,
    is_running: bool,
    /// The number of the last one that succeeded.
    succeeded: u64,
    /// Why the last one failed, if it did.
    failed: Option<Error>,
    /// How long the last one took that succeeded.
    took: Option<Duration>,
    pub(super) is_closed: bool,
    task: Option<JoinHandle<()>>,
    /// The task that follows the journal, once there is something to follow it for.
    follower: Option<JoinHandle<()>>,
    /// Tasks that journal what was found to be in no journal.
    pub(super) notes: Vec<JoinHandle<()>>,
}

/// Which refresh a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The one that is under way, if one is; none if one has ended since the caller found the contents too old.
    IfDue,
    /// The one that is under way, if one is.
    Any,
    /// One that begins from now on.
    New,
}

impl Cache {
    pub(super) fn refreshes(&self) -> MutexGuard<'_, Refreshes> {
        self.refreshes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads everything anew, with a refresh that begins from now on; callers who come at once share one. The refresh goes
    /// on when its callers are gone.
    ///
    /// # Errors
    /// Why it failed; the contents are then as they were.
    pub(crate) async fn refresh(self: &Arc<Self>, deadline: &Deadline) -> Result<()> {
        let (number, _) = self.request(Wanted::New)?;
        self.outcome(number, deadline).await
    }

    /// Has the contents read that nobody has read yet, without waiting for it.
    pub(crate) fn fill_soon(self: &Arc<Self>) {
        if !self.is_warm() {
            // A cache that is closed needs nothing.
            drop(self.request(Wanted::Any));
        }
    }

    /// Starts a refresh that nobody waits for.
    pub(crate) fn refresh_soon(self: &Arc<Self>) {
        // A cache that is closed needs none.
        drop(self.request(Wanted::New));
    }

    /// Makes sure that a refresh is under way, and waits for it if nothing was ever read.
    ///
    /// Otherwise readers get what is there while it runs. Yet with `cache_mode: sync`, who reads after the time to live
    /// expects to see what others have written (Feast reads the storage before it answers), so a reader gives the refresh
    /// a chance: until [`GRACE`] after it began, but for no more than half of the time that the reader has, and only if
    /// the last refresh succeeded and was as fast. A storage that is silent or large, then, has nobody wait.
    pub(crate) async fn freshen(self: &Arc<Self>, deadline: impl FnOnce() -> Deadline) -> Result<()> {
        let is_warm = self.is_warm();
        let (number, chance) = match self.request(Wanted::IfDue) {
            Err(_) if is_warm => return Ok(()),
            requested => requested?,
        };
        if !is_warm {
            return self.outcome(number, &deadline()).await;
        }
        if !chance.is_zero() {
            let chance = chance.min(deadline().remaining() / 2);
            // Whether it is over in time or not, the reader has something to read.
            drop(tokio::time::timeout(chance, self.has_ended(number)).await);
        }
        Ok(())
    }

    /// The number of a refresh, which is started if it does not run yet, and for how long it is worth a reader's wait.
    fn request(self: &Arc<Self>, wanted: Wanted) -> Result<(u64, Duration)> {
        let mut refreshes = self.refreshes();
        if refreshes.is_closed {
            return Err(Error::new(ErrorKind::Unavailable, "the registry is closed"));
        }
        if !refreshes.is_running {
            if wanted == Wanted::IfDue && self.read_if_fresh(|_| ()).is_ok() {
                return Ok((refreshes.begun, Duration::ZERO));
            }
            refreshes.is_next_whole |= wanted == Wanted::New;
            refreshes.begin();
            refreshes.task = Some(tokio::spawn(Arc::clone(self).run()));
        } else if wanted == Wanted::New {
            refreshes.is_next_whole = true;
            refreshes.wanted = refreshes.begun + 1;
            return Ok((refreshes.wanted, Duration::ZERO));
        }
        Ok((refreshes.begun, refreshes.chance()))
    }

    /// Completes when a refresh has ended, or a later one.
    async fn has_ended(&self, number: u64) {
        // The sender is this cache's own, so it is there.
        drop(self.ended.subscribe().wait_for(|ended| *ended >= number).await);
    }

    async fn outcome(&self, number: u64, deadline: &Deadline) -> Result<()> {
        deadline.wait_for("the registry to be read into memory", self.has_ended(number)).await?;
        let refreshes = self.refreshes();
        match &refreshes.failed {
            Some(error) if refreshes.succeeded < number => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Refreshes until nobody wants another.
    async fn run(self: Arc<Self>) {
        let mut running = Running { cache: &self, is_over: false };
        loop {
            let is_whole = self.refreshes().is_whole;
            let mut outcome = if is_whole { self.read_anew().await } else { self.bring_up_to_date().await };
            if outcome.as_ref().is_err_and(follow::is_lost) {
                // From a new place in the journal.
                outcome = self.read_anew().await;
            }
            if outcome.is_ok() {
                self.start_following();
            }
            if !running.ended(outcome) {
                return;
            }
        }
    }

    /// Takes in what has come to the journal, and if that cannot be, reads everything anew.
    async fn bring_up_to_date(self: &Arc<Self>) -> Result<()> {
        if self.is_warm() && !self.state().has_gap {
            match self.catch_up().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if follow::is_lost(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.read_anew().await
    }

    /// Reads the storage, builds new contents without holding up readers, and puts them in the place of the old.
    async fn read_anew(&self) -> Result<()> {
        let deadline = Deadline::after(READ_FOR);
        self.take_position(&deadline).await?;
        let mut queries: Vec<Query> = Kind::ALL.iter().copied().map(|kind| Query::objects(kind, None)).collect();
        queries.push(Query::Metadata { project: None });
        let began = Instant::now();
        // Also where a backend overlooks its deadline: there is only one refresh, and it must not hang for ever.
        let read = self.source.read(&queries, &deadline);
        let answers = deadline.wait_for("the registry to be read into memory", read).await??;
        let mut contents = Contents::new(self.keeps_order);
        for answer in answers {
            let mut records = answer.into_iter().peekable();
            while records.peek().is_some() {
                records.by_ref().take(BATCH).for_each(|record| self.take_in(&mut contents, record));
                tokio::task::yield_now().await;
            }
        }
        // Nobody else follows the journal until what was read has taken the place of what was there, so that the two can be
        // compared.
        let alone = self.following.lock().await;
        let is_complete = match self.position() {
            Position::Unknown => false,
            Position::At(_) => self.has_all_that_is_journaled(&deadline).await?,
        };
        let mut unexplained = HashSet::new();
        // What came meanwhile is caught up with in parts, so that readers do not wait for long.
        while !self.replay_a_part(&mut contents, &mut unexplained)? {
            tokio::task::yield_now().await;
        }
        // Readers do not wait for this.
        let size = contents.size();
        let (old, had_gap) = self.put_in_place(contents, unexplained, began)?;
        measure(size, began);
        let differences = self.compare_with(old.as_ref().filter(|_| is_complete && !had_gap));
        drop(old);
        self.note_soon(differences);
        drop(alone);
        self.forget_what_is_sound();
        Ok(())
    }

    /// Takes in a record. What is held already with the same bytes is shared with it and need not be checked again.
    ///
    /// Not shared is what is a part of something larger, as of a whole file: as long as one part is held, so is the whole.
    fn take_in(&self, contents: &mut Contents, mut record: Record) {
        if let Key::Object { kind, project, name } = &record.key {
            let state = self.state();
            let held = state.contents.as_ref().and_then(|contents| contents.entry(*kind, project, name));
            if let Some(held) = held.filter(|held| held.is_sound && held.bytes == record.value) {
                if record.value.is_unique() {
                    record.value = held.bytes.clone();
                }
                drop(state);
                return contents.take_in(record, true);
            }
        }
        let is_sound = self.check(&record).is_ok();
        contents.take_in(record, is_sound);
    }

    /// Sees to it that what is read from now on and what comes by in the journal join up. Objects can be read where the journal
    /// cannot, so only a storage that is away is an error; without a place in the journal, it is not followed.
    async fn take_position(&self, deadline: &Deadline) -> Result<()> {
        let found = async {
            self.find_position(deadline).await?;
            // What the journal has by now will be read, and must not come on top of what is read: a value that came back since,
            // without a journal, would be taken for the one before.
            let _alone = self.following.lock().await;
            self.follow().await
        };
        match found.await {
            Ok(_) => {}
            Err(error) if error.is_retryable() || follow::is_lost(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be followed; what others write shows when everything is read anew");
                self.lose_position();
            }
        }
        self.state_mut().meanwhile = Meanwhile::Steps(Vec::new());
        Ok(())
    }

    /// Takes in some of what came since the refresh began; returns whether little is left.
    fn replay_a_part(&self, contents: &mut Contents, unexplained: &mut HashSet<Key>) -> Result<bool> {
        let mut state = self.state_mut();
        let State { meanwhile: Meanwhile::Steps(steps), ahead, .. } = &mut *state else { return Err(too_much()) };
        let rest = steps.split_off(steps.len().min(BATCH));
        for step in std::mem::replace(steps, rest) {
            contents.take_in_step(step, ahead, unexplained);
        }
        Ok(steps.len() <= BATCH)
    }

    /// Puts new contents in the place of the old, which are returned.
    fn put_in_place(
        &self,
        mut contents: Contents,
        mut unexplained: HashSet<Key>,
        began: Instant,
    ) -> Result<(Option<Contents>, bool)> {
        let mut state = self.state_mut();
        let Meanwhile::Steps(steps) = std::mem::take(&mut state.meanwhile) else { return Err(too_much()) };
        for step in steps {
            contents.take_in_step(step, &state.ahead, &mut unexplained);
        }
        if let Some(before) = &state.contents {
            contents.keep_what_is_ahead(before, &state.ahead);
        }
        let old = state.contents.replace(contents);
        let had_gap = std::mem::take(&mut state.has_gap);
        state.written = Some(Written::of(None));
        state.doubted.clear();
        state.generation += 1;
        state.unexplained.extend(unexplained);
        self.note_fresh(&mut state, began);
        Ok((old, had_gap))
    }

    /// Notes that the contents are as the storage was at a moment.
    pub(super) fn note_fresh(&self, state: &mut State, at: Instant) {
        state.refreshed = Some(at);
        state.due = match self.config.mode {
            CacheMode::Sync if !self.config.ttl.is_zero() => at.checked_add(self.config.ttl),
            _ => None,
        };
    }

    fn forget_what_is_sound(&self) {
        let state = self.state();
        self.unsound.keep(|key| match (key, &state.contents) {
            (Key::Object { kind, project, name }, Some(contents)) => {
                contents.entry(*kind, project, name).is_some_and(|entry| !entry.is_sound)
            }
            _ => true,
        });
    }

    /// Notes how a refresh ended, and says so to those who wait. Returns whether another has begun.
    fn end(&self, outcome: Result<()>, may_go_on: bool) -> bool {
        if outcome.is_err() {
            let mut state = self.state_mut();
            state.meanwhile = Meanwhile::Unneeded;
            let next = Instant::now() + RETRY_AFTER;
            state.due = state.due.map(|due| due.max(next));
        }
        let age = self.age();
        let mut refreshes = self.refreshes();
        let ended = if may_go_on { refreshes.begun } else { refreshes.begun.max(refreshes.wanted) };
        match outcome {
            Ok(()) => {
                refreshes.succeeded = refreshes.begun;
                refreshes.took = refreshes.began_at.map(|began| began.elapsed());
                metrics::counter!(CACHE_REFRESHES.name, "outcome" => "ok").increment(1);
                if let Some(took) = refreshes.took {
                    metrics::histogram!(CACHE_REFRESH_SECONDS.name).record(took);
                }
                if refreshes.failed.take().is_some() {
                    tracing::info!("the cached registry is refreshed again");
                }
            }
            Err(error) => {
                metrics::counter!(CACHE_REFRESHES.name, "outcome" => "error").increment(1);
                // Whoever closes it wants no more of it.
                if !refreshes.is_closed {
                    let age = age.map(|age| age.as_secs());
                    tracing::warn!(%error, seconds_old = age, "the cached registry could not be refreshed");
                }
                refreshes.failed = Some(error);
            }
        }
        refreshes.is_running = may_go_on && !refreshes.is_closed && refreshes.wanted > refreshes.begun;
        if refreshes.is_running {
            refreshes.begin();
        }
        self.ended.send_replace(ended);
        refreshes.is_running
    }

    /// Follows the journal from now on, unless that is done already or there is none.
    pub(crate) fn start_following(self: &Arc<Self>) {
        let mut refreshes = self.refreshes();
        if refreshes.is_closed
            || self.position() == Position::Unknown
            || refreshes.follower.as_ref().is_some_and(|task| !task.is_finished())
        {
            return;
        }
        refreshes.follower = Some(tokio::spawn(Self::follow_forever(Arc::downgrade(self))));
    }

    /// Takes in what comes to the journal, for as long as somebody else has the cache. When the journal is lost, everything is
    /// read anew.
    async fn follow_forever(cache: Weak<Self>) {
        let mut is_failing = false;
        // What has just been read need not be followed at once: a process that reads once follows nothing.
        tokio::time::sleep(JOURNAL_POLL).await;
        loop {
            let Some(this) = cache.upgrade() else { return };
            let pause = match this.catch_up().await {
                Ok(true) => {
                    if std::mem::take(&mut is_failing) {
                        tracing::info!("the journal of the registry is followed again");
                    }
                    TOGETHER
                }
                Ok(false) if !this.state().has_gap => return,
                Ok(false) => {
                    drop(this.find_position(&Deadline::after(READ_FOR)).await);
                    RETRY_AFTER
                }
                Err(error) if follow::is_lost(&error) => {
                    tracing::info!(%error, "reading the registry into memory anew");
                    // Those who watch are told, and go on from here.
                    drop(this.find_position(&Deadline::after(READ_FOR)).await);
                    TOGETHER
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(%error, "the journal of the registry cannot be followed; trying again");
                    }
                    RETRY_AFTER
                }
            };
            if this.state().has_gap {
                this.refresh_soon();
            }
            let (source, position) = (Arc::clone(&this.source), this.position());
            drop(this);
            tokio::time::sleep(pause).await;
            if let Position::At(position) = position
                && !is_failing
            {
                source.wait_for_commit(position, &Deadline::after(outside::LOOK_EVERY)).await;
            }
        }
    }

    /// Refreshes once per time to live, for as long as somebody else has the cache (Feast: `cache_mode: thread`).
    pub(crate) async fn refresh_forever(cache: Weak<Self>) {
        loop {
            let Some(cache) = cache.upgrade() else { return };
            let Ok((number, _)) = cache.request(Wanted::Any) else { return };
            cache.has_ended(number).await;
            let pause = if cache.refreshes().failed.is_some() { RETRY_AFTER } else { cache.config.ttl };
            drop(cache);
            tokio::time::sleep(pause).await;
        }
    }

    /// Starts no refresh any more, and ends the one that is under way and the following of the journal: when this returns,
    /// nothing is read from the storage.
    pub(crate) async fn close(&self) {
        let (task, follower, notes) = {
            let mut refreshes = self.refreshes();
            refreshes.is_closed = true;
            (refreshes.task.take(), refreshes.follower.take(), std::mem::take(&mut refreshes.notes))
        };
        if let Some(follower) = follower {
            follower.abort();
            drop(follower.await);
        }
        self.recent.end();
        let until = Instant::now() + NOTES_END_WITHIN;
        for mut note in notes {
            if tokio::time::timeout_at(until, &mut note).await.is_err() {
                note.abort();
                // It says itself what is left.
                drop(note.await);
            }
        }
        if let Some(task) = task {
            task.abort();
            // It ends at its next await. That it was broken off is no news.
            drop(task.await);
            // One that had not begun yet has told nobody.
            if self.refreshes().is_running {
                self.end(Err(Error::new(ErrorKind::Unavailable, "the registry is closed")), false);
            }
        }
    }
}

impl Refreshes {
    fn begin(&mut self) {
        self.begun += 1;
        self.is_whole = std::mem::take(&mut self.is_next_whole);
        self.began_at = Some(Instant::now());
        self.is_running = true;
    }

    /// For how long the refresh that is under way is worth a reader's wait.
    fn chance(&self) -> Duration {
        let was_fast = self.failed.is_none() && self.took.is_some_and(|took| took <= GRACE);
        match self.began_at {
            Some(began) if was_fast => GRACE.saturating_sub(began.elapsed()),
            _ => Duration::ZERO,
        }
    }
}

fn too_much() -> Error {
    Error::new(ErrorKind::Unavailable, "more was written while the registry was read into memory than could be noted")
}

/// Tells how large the contents are, and that they are of a refresh that began at a moment.
fn measure((objects, bytes): (usize, usize), began: Instant) {
    metrics::gauge!(CACHE_OBJECTS.name).set(objects as f64);
    metrics::gauge!(CACHE_BYTES.name).set(bytes as f64);
    measure_age(began);
}

/// Tells that the contents are as the storage was at a moment.
pub(super) fn measure_age(at: Instant) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!(CACHE_REFRESHED.name).set(now.saturating_sub(at.elapsed()).as_secs_f64());
}

/// A task that refreshes. However it ends, by a panic or by being aborted, nobody waits for it in vain and nothing goes on
/// being noted for it.
struct Running<'a> {
    cache: &'a Cache,
    is_over: bool,
}

impl Running<'_> {
    fn ended(&mut self, outcome: Result<()>) -> bool {
        self.is_over = !self.cache.end(outcome, true);
        !self.is_over
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.cache.end(Err(Error::internal("reading the registry into memory was broken off")), false);
        }
    }
}
