//! The objects that wait, in the order in which they were acknowledged, and those of them that were lost.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{LONGEST, LOST_FOR, MAX_PAUSE, Overlay};
use crate::access::Access;
use crate::backend::{Key, Write};
use crate::encoded::Object;
use crate::error::Error;
use crate::registry::edit::Edit;
use crate::registry::transact::Call;
use crate::rules;

/// How many lost objects are remembered.
const MOST_LOST: usize = 1000;

/// An object that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    number: u64,
    pub(super) project: String,
    pub(super) object: Object,
    pub(super) author: Option<String>,
    pub(super) reason: Option<String>,
    /// On behalf of whom it was applied.
    pub(super) access: Option<Access>,
    /// What it changes, as far as is known before it is written.
    writes: Vec<Write>,
}

impl Waiting {
    /// Whether two may be written in one commit: where callers are known, it is to have one author.
    pub(super) fn is_of_same(&self, other: &Self) -> bool {
        match (&self.access, &other.access) {
            (None, None) => true,
            (Some(one), Some(another)) => {
                one.identity() == another.identity()
                    && one.is_admin() == another.is_admin()
                    && (&self.author, &self.reason) == (&other.author, &other.reason)
            }
            _ => false,
        }
    }
}

/// An object that was acknowledged and could not be written.
#[derive(Debug)]
struct Lost {
    number: u64,
    key: Key,
    at: Instant,
    error: Error,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// The number of the last apply that was acknowledged; they count from 1.
    acknowledged: u64,
    overlay: Arc<Overlay>,
    lost: VecDeque<Lost>,
    /// Attempts to write what waits are numbered from 1, too.
    begun: u64,
    wanted: u64,
    is_running: bool,
    /// The number of the last apply that the attempt under way knows of.
    includes: u64,
    /// Why the last attempt left something waiting, if it did.
    failed: Option<Error>,
    failures: u32,
}

impl State {
    fn begin(&mut self) {
        self.begun += 1;
        self.is_running = true;
        self.includes = self.acknowledged;
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::registry) struct Later {
    /// Whether anything waits: most of the time, nobody has to look.
    is_any: AtomicBool,
    is_any_lost: AtomicBool,
    state: Mutex<State>,
    /// An object is tried out after those that wait, and then waits itself: one after the other.
    append_lock: tokio::sync::Mutex<()>,
    /// The number of the last attempt that has ended.
    ended: watch::Sender<u64>,
}

impl Default for Later {
    fn default() -> Self {
        Self {
            is_any: AtomicBool::new(false),
            is_any_lost: AtomicBool::new(false),
            state: Mutex::default(),
            append_lock: tokio::sync::Mutex::default(),
            ended: watch::Sender::new(0),
        }
    }
}

impl Later {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn append_lock(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.append_lock.lock().await
    }

    /// Whether anything waits.
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Acquire)
    }

    pub(super) fn len(&self) -> usize {
        if self.is_any() { self.state().waiting.len() } else { 0 }
    }

    pub(super) fn overlay(&self) -> Option<Arc<Overlay>> {
        self.is_any().then(|| Arc::clone(&self.state().overlay))
    }

    /// The number of the last apply that was acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.state().acknowledged
    }

    /// All that waits.
    pub(super) fn all(&self) -> Vec<Waiting> {
        self.state().waiting.iter().cloned().collect()
    }

    pub(super) fn objects_of(&self, project: &str) -> Vec<Object> {
        let state = self.state();
        let of_project = state.waiting.iter().filter(|waiting| waiting.project == project);
        of_project.map(|waiting| waiting.object.clone()).collect()
    }

    /// Adds an object, which is acknowledged by that. Returns whether nothing else waits.
    pub(super) fn add(
        &self,
        project: &str,
        object: Object,
        writes: Vec<Write>,
        call: Call,
        access: Option<Access>,
    ) -> bool {
        let mut state = self.state();
        state.acknowledged += 1;
        let number = state.acknowledged;
        let Call { author, reason, .. } = call;
        state.waiting.push_back(Waiting {
            number,
            project: project.to_owned(),
            object,
            author,
            reason,
            access,
            writes,
        });
        self.waiting_has_changed(&mut state);
        state.waiting.len() == 1
    }

    /// Removes what has been written.
    pub(super) fn remove(&self, written: &[Waiting]) {
        let mut state = self.state();
        state.waiting.retain(|waiting| written.iter().all(|written| written.number != waiting.number));
        self.waiting_has_changed(&mut state);
    }

    fn waiting_has_changed(&self, state: &mut State) {
        state.overlay = Arc::new(Overlay::of(state.waiting.iter().flat_map(|waiting| &waiting.writes)));
        self.is_any.store(!state.waiting.is_empty(), Ordering::Release);
    }

    /// Removes what can never be written, and notes it for commits to tell.
    pub(super) fn lose(&self, waiting: &Waiting, error: Error) {
        let name = rules::stored_name(&waiting.object).unwrap_or_default();
        let key = Key::object(waiting.object.kind, &waiting.project, name);
        tracing::error!(%error, %key, "an object that was accepted without a commit could not be written, and is lost");
        let error = error
            .with_context(format_args!("{key} was accepted without a commit and could not be written; apply it again"));
        let mut state = self.state();
        state.lost.push_back(Lost { number: waiting.number, key, at: Instant::now(), error });
        if state.lost.len() > MOST_LOST {
            state.lost.pop_front();
        }
        self.is_any_lost.store(true, Ordering::Release);
        drop(state);
        self.remove(std::slice::from_ref(waiting));
    }

    /// What was lost of the applies up to a number.
    pub(super) fn lost(&self, answers_for: u64) -> Option<Error> {
        if !self.is_any_lost.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.state();
        state.lost.retain(|lost| lost.at.elapsed() < LOST_FOR);
        let mut lost = state.lost.iter().filter(|lost| lost.number <= answers_for);
        let first = lost.next()?.error.clone();
        match lost.count() {
            0 => Some(first),
            more => Some(first.with_context(format_args!("{more} more were lost besides this one"))),
        }
    }

    /// Forgets the loss of objects that have been written again.
    pub(in crate::registry) fn forgive(&self, project: &str, edits: &[Edit]) {
        if !self.is_any_lost.load(Ordering::Acquire) {
            return;
        }
        let targets = edits.iter().filter_map(|edit| edit.target().ok());
        let keys =
            targets.flat_map(|(kinds, name)| kinds.iter().map(move |kind| Key::object(*kind, project, name.as_str())));
        let keys: Vec<Key> = keys.collect();
        let mut state = self.state();
        state.lost.retain(|lost| !keys.contains(&lost.key));
        self.is_any_lost.store(!state.lost.is_empty(), Ordering::Release);
    }

    /// Why something of the applies up to a number still waits, if it does.
    pub(super) fn waits(&self, answers_for: u64) -> Option<Error> {
        let state = self.state();
        state.waiting.front().filter(|first| first.number <= answers_for)?;
        let failed = state.failed.clone();
        Some(
            failed.unwrap_or_else(|| Error::internal("what was applied before still waits, and no attempt has failed")),
        )
    }

    /// The number of an attempt that includes all applies up to `answers_for`, or that just takes place; and whether the
    /// caller has to start it. `None` if nothing waits.
    pub(super) fn request(&self, answers_for: Option<u64>) -> Option<(u64, bool)> {
        let mut state = self.state();
        if state.waiting.is_empty() {
            return None;
        }
        if !state.is_running {
            state.begin();
            return Some((state.begun, true));
        }
        if answers_for.is_some_and(|number| number > state.includes) {
            state.wanted = state.begun + 1;
            return Some((state.wanted, false));
        }
        Some((state.begun, false))
    }

    /// Completes when an attempt has ended, or a later one.
    pub(super) async fn has_ended(&self, number: u64) {
        // The sender is this queue's own, so it is there.
        drop(self.ended.subscribe().wait_for(|ended| *ended >= number).await);
    }

    /// What the task of an attempt has to say of its end.
    pub(super) fn attempts(&self) -> Attempts<'_> {
        Attempts { later: self, is_over: false }
    }

    fn end(&self, failed: Option<Error>, may_go_on: bool) -> Ended {
        let mut state = self.state();
        let ended = if may_go_on { state.begun } else { state.begun.max(state.wanted) };
        state.failures = if failed.is_some() { state.failures.saturating_add(1) } else { 0 };
        let pause = LONGEST.saturating_mul(1 << state.failures.min(10)).min(MAX_PAUSE);
        if let Some(error) = &failed {
            let waiting = state.waiting.len();
            tracing::warn!(%error, waiting, "what waits for a commit cannot be written now, and goes on waiting");
        }
        state.failed = failed;
        state.is_running = may_go_on && state.wanted > state.begun;
        if state.is_running {
            state.begin();
        }
        let try_again_after = (!state.is_running && !state.waiting.is_empty()).then_some(pause);
        self.ended.send_replace(ended);
        Ended { goes_on: state.is_running, try_again_after }
    }
}

/// How an attempt has ended.
pub(super) struct Ended {
    /// Whether the next one has begun.
    pub(super) goes_on: bool,
    /// After which pause what still waits is to be tried again, unless somebody wants it earlier.
    pub(super) try_again_after: Option<Duration>,
}

/// A task that writes what waits. However it ends, nobody waits for it in vain.
pub(super) struct Attempts<'a> {
    later: &'a Later,
    is_over: bool,
}

impl Attempts<'_> {
    pub(super) fn ended(&mut self, failed: Option<Error>) -> Ended {
        let ended = self.later.end(failed, true);
        self.is_over = !ended.goes_on;
        ended
    }
}

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.later.end(Some(Error::internal("writing what waits was broken off")), false);
        }
    }
}
