//! Threads that are not held up: no call sleeps in the thread that polls it.
//!
//! A call runs on a runtime of one thread, beside a task that is always ready. So that thread has never a reason to sleep: if it
//! does while the call is under way, then because something waited in a poll for a disk, a lock or another thread, be it
//! the call itself or a task that it began. The system counts how often a thread gave up its processor by itself (`ru_nvcsw` of
//! getrusage(2)), which one that is merely interrupted does not: a machine that is busy with other things fails nobody. A lock
//! that is held for a moment may be met once in a while, so a call counts if it slept for a good part of its time,
//! and only most of many calls are a failure.

use std::future::Future;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use feast_registry_core::{Commit, JournalQuery, Kind, Query, Write};
use tokio::sync::oneshot;

use crate::handle::{or_fail, patience};
use crate::run::Setup;
use crate::sample::{object, whole_project};

/// So many calls of each sort are watched.
const CALLS: usize = 20;

/// What a thread has used and done so far.
#[derive(Debug, Clone, Copy)]
struct Account {
    at: Instant,
    /// How long it had a processor.
    busy: Duration,
    /// How often it gave its processor up by itself.
    sleeps: i64,
}

impl Account {
    /// That of this thread; `None` where the system does not keep one.
    #[cfg(target_os = "linux")]
    fn of_thread() -> Option<Self> {
        use nix::sys::resource::{UsageWho, getrusage};
        use nix::sys::time::TimeValLike as _;

        let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
        let micros = (usage.user_time() + usage.system_time()).num_microseconds();
        let busy = Duration::from_micros(micros.try_into().ok()?);
        Some(Self { at: Instant::now(), busy, sleeps: usage.voluntary_context_switches() })
    }

    #[cfg(not(target_os = "linux"))]
    fn of_thread() -> Option<Self> {
        None
    }
}

/// How long a thread has slept since it was first asked.
struct Meter {
    last: Account,
    slept: Duration,
}

impl Meter {
    fn read(&mut self) {
        let Some(now) = Account::of_thread() else { return };
        if now.sleeps > self.last.sleeps {
            // Between two looks that are a poll or two apart: it was asleep when it was not busy.
            self.slept += (now.at - self.last.at).saturating_sub(now.busy.saturating_sub(self.last.busy));
        }
        self.last = now;
    }
}

/// How long a call took, and how long its thread slept meanwhile.
#[derive(Debug, Clone, Copy)]
struct Watched {
    took: Duration,
    slept: Duration,
}

impl Watched {
    fn is_blocking(&self) -> bool {
        self.slept * 4 > self.took
    }
}

/// Runs a call on this thread, whose runtime has no other, and watches the thread. `None` where that cannot be.
async fn watched<T>(call: impl Future<Output = T>) -> (T, Option<Watched>) {
    let Some(last) = Account::of_thread() else { return (call.await, None) };
    let meter = Arc::new(Mutex::new(Meter { last, slept: Duration::ZERO }));
    let read = |meter: &Mutex<Meter>| meter.lock().unwrap_or_else(PoisonError::into_inner).read();
    let always_ready = tokio::spawn({
        let meter = Arc::clone(&meter);
        async move {
            loop {
                read(&meter);
                tokio::task::yield_now().await;
            }
        }
    });
    // Until it has had its first turn, the thread may sleep.
    tokio::task::yield_now().await;
    meter.lock().unwrap_or_else(PoisonError::into_inner).slept = Duration::ZERO;
    let began = Instant::now();
    let value = call.await;
    read(&meter);
    let took = began.elapsed();
    always_ready.abort();
    let slept = meter.lock().unwrap_or_else(PoisonError::into_inner).slept;
    (value, Some(Watched { took, slept }))
}

/// The calls of one sort that were watched.
struct Calls {
    what: &'static str,
    watched: Vec<Watched>,
}

impl Calls {
    fn of(what: &'static str) -> Self {
        Self { what, watched: Vec::new() }
    }

    async fn watch<T>(&mut self, call: impl Future<Output = T>) -> T {
        let (value, watched) = watched(call).await;
        self.watched.extend(watched);
        value
    }

    fn check(&self) {
        let blocking = self.watched.iter().filter(|watched| watched.is_blocking()).count();
        assert!(
            blocking * 2 < self.watched.len() || self.watched.is_empty(),
            "{} blocks the thread that polls it: of {} calls, {blocking} let it sleep for more than a quarter of their time: \
             {:?}",
            self.what,
            self.watched.len(),
            self.watched,
        );
    }
}

/// Runs a test of calls on a thread and a runtime of its own, if this system tells who sleeps.
async fn on_one_thread<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    const LONGEST: Duration = Duration::from_secs(120);
    let (ended, end) = oneshot::channel::<()>();
    let thread = thread::spawn(move || {
        let _ended = ended;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime of one thread").block_on(async {
            let (_, seen) = watched(async { thread::sleep(Duration::from_millis(5)) }).await;
            match seen {
                Some(seen) if seen.is_blocking() => test().await,
                _ => eprintln!("this system does not tell when a thread sleeps: it is not known whether calls block"),
            }
        });
    });
    // Nothing is sent: its end is what is waited for.
    let is_over = tokio::time::timeout(LONGEST, end).await.is_ok();
    assert!(
        is_over,
        "on a runtime of one thread a call never ends: it waits in a poll for what only that thread could do"
    );
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

pub(crate) async fn commits_do_not_block(setup: Setup) {
    let store = setup.store().await;
    on_one_thread(move || async move {
        let handle = store.handle().await;
        let mut calls = Calls::of("a commit");
        for number in 0..CALLS + 2 {
            let records = whole_project(&format!("p{number}"), "note");
            let commit = Commit::new(Vec::new(), records.into_iter().map(Write::Put).collect());
            let deadline = patience();
            let call = handle.0.commit(commit, &deadline);
            // The first ones connect, and start threads.
            let outcome = if number < 2 { call.await } else { calls.watch(call).await };
            or_fail("a commit", outcome);
        }
        handle.0.close().await;
        calls.check();
    })
    .await;
}

pub(crate) async fn reads_do_not_block(setup: Setup) {
    let store = setup.store().await;
    on_one_thread(move || async move {
        let (handle, other) = (store.handle().await, store.handle().await);
        let records = whole_project("p", "note");
        let queries = [
            Query::Keys(records.iter().map(|record| record.key.clone()).collect()),
            Query::objects(Kind::FeatureView, None),
            Query::Metadata { project: None },
        ];
        handle.put(records).await;
        let mut calls = Calls::of("a read");
        for number in 0..CALLS + 2 {
            // What is read was not read before.
            other.put([object(Kind::FeatureView, "p", &format!("view {number}"), "")]).await;
            let deadline = patience();
            let call = handle.0.read(&queries, &deadline);
            let answers = if number < 2 { call.await } else { calls.watch(call).await };
            or_fail("a read", answers);
        }
        handle.0.close().await;
        other.0.close().await;
        calls.check();
    })
    .await;
}

pub(crate) async fn no_other_call_blocks(setup: Setup) {
    let store = setup.store().await;
    on_one_thread(move || async move {
        let mut preparations = Calls::of("a preparation");
        let mut journals = Calls::of("a look at the journal");
        let mut refused = Calls::of("a removal of a storage with a project");
        let mut removals = Calls::of("a removal of the storage");
        let handle = store.handle().await;
        let deadline = patience();
        let has_project = object(Kind::Project, "p", "p", "");
        handle.put([has_project.clone()]).await;
        for number in 0..CALLS / 2 {
            handle.put([object(Kind::Entity, "p", &format!("entity {number}"), "")]).await;
            // Where there is no journal, that is soon said.
            drop(journals.watch(handle.0.journal(&JournalQuery::after(None, 10), &deadline)).await);
            or_fail("preparing again", preparations.watch(handle.0.prepare(&deadline)).await);
            let removed = or_fail("a removal", refused.watch(handle.0.remove_if_empty(&deadline)).await);
            assert!(!removed, "a storage with a project is not removed");
        }
        // These take their time: tables are made anew.
        for _ in 0..3 {
            handle.write(vec![Write::DeleteProject { project: "p".to_owned() }]).await;
            let removed = or_fail("a removal", removals.watch(handle.0.remove_if_empty(&deadline)).await);
            assert!(removed, "a storage without a project is removed");
            handle.put([has_project.clone()]).await;
        }
        handle.0.close().await;
        for calls in [preparations, journals, refused, removals] {
            calls.check();
        }
    })
    .await;
}
