//! A way to a storage in memory that can be interrupted, and handles that make the wrong thing of it.

use std::sync::Arc;

use async_trait::async_trait;
use feast_registry_conformance::Link;
use feast_registry_core::{
    Backend, Commit, CommitId, Deadline, Error, ErrorKind, JournalEntry, JournalQuery, Limits, Outcome, Query, Record,
    Result, Retention,
};
use tokio::sync::watch;

use crate::backend::{Flaw, patience};

/// What the way lets pass.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Requests that the storage has got.
    requests: usize,
    /// The request whose answer is the first that is held.
    holds_from: Option<usize>,
    is_stalled: bool,
    /// How often everything was cut.
    cuts: usize,
}

/// The way, whose connections are as many as there are calls.
#[derive(Debug, Default)]
pub(crate) struct Way(watch::Sender<State>);

impl Link for Way {
    fn hold_answers(&self, after: usize) {
        self.0.send_modify(|state| state.holds_from = Some(state.requests + after + 1));
    }

    fn stall(&self) {
        self.0.send_modify(|state| state.is_stalled = true);
    }

    fn cut(&self) {
        self.0
            .send_modify(|state| *state = State { requests: state.requests, cuts: state.cuts + 1, ..State::default() });
    }

    fn resume(&self) {
        self.0.send_modify(|state| (state.holds_from, state.is_stalled) = (None, false));
    }
}

/// What was on its way when everything was cut is lost.
#[derive(Debug)]
struct Lost;

impl Way {
    /// The way's state once that lets something pass; lost if it was cut meanwhile.
    async fn passes(&self, since: usize, passes: impl Fn(&State) -> bool) -> Result<State, Lost> {
        let mut receiver = self.0.subscribe();
        let state = *receiver.wait_for(|state| state.cuts > since || passes(state)).await.expect("the way is there");
        if state.cuts > since { Err(Lost) } else { Ok(state) }
    }

    fn cuts(&self) -> usize {
        self.0.borrow().cuts
    }
}

/// A handle at one end of the way.
#[derive(Debug)]
pub(crate) struct Linked {
    flaw: Flaw,
    inner: Arc<dyn Backend>,
    way: Arc<Way>,
}

impl Linked {
    pub(crate) fn new(inner: Arc<dyn Backend>, flaw: Flaw, way: Arc<Way>) -> Self {
        Self { flaw, inner, way }
    }

    fn deadline(&self, deadline: &Deadline) -> Deadline {
        if self.flaw == Flaw::HangsWithItsServer { patience() } else { deadline.clone() }
    }

    /// Sends a request once.
    async fn sent<T>(&self, call: impl Future<Output = Result<T>>) -> Result<Result<T>, Lost> {
        let since = self.way.cuts();
        if self.flaw == Flaw::KeepsDeadSessions && since > 0 {
            return Err(Lost);
        }
        self.way.passes(since, |state| !state.is_stalled).await?;
        let mut number = 0;
        self.way.0.send_modify(|state| {
            state.requests += 1;
            number = state.requests;
        });
        let answer = call.await;
        let passes = |state: &State| !state.is_stalled && state.holds_from.is_none_or(|from| number < from);
        self.way.passes(since, passes).await?;
        Ok(answer)
    }

    /// What a handle does about a connection that was lost: nothing, but for some.
    fn goes_on(&self, _: Lost) -> Result<()> {
        let is_dead = self.flaw == Flaw::KeepsDeadSessions;
        if is_dead { Err(Error::new(ErrorKind::Unavailable, "the session has ended")) } else { Ok(()) }
    }
}

#[async_trait]
impl Backend for Linked {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn prepare(&self, deadline: &Deadline) -> Result<()> {
        self.inner.prepare(deadline).await
    }

    async fn read(&self, queries: &[Query], deadline: &Deadline) -> Result<Vec<Vec<Record>>> {
        let (deadline, patience) = (self.deadline(deadline), patience());
        let answer = async {
            loop {
                match self.sent(self.inner.read(queries, &patience)).await {
                    Ok(answer) => return answer,
                    Err(lost) => self.goes_on(lost)?,
                }
            }
        };
        deadline.wait_for("an answer", answer).await?
    }

    async fn commit(&self, mut commit: Commit, deadline: &Deadline) -> Result<Outcome> {
        let (deadline, patience) = (self.deadline(deadline), patience());
        loop {
            let before = self.way.0.borrow().requests;
            let call = self.sent(self.inner.commit(commit.clone(), &patience));
            match deadline.wait_for("an answer", call).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(_)) if self.flaw == Flaw::TakesLostForDone => return Ok(Outcome::Committed { revision: None }),
                Ok(Err(_)) if self.flaw == Flaw::GuessesFromExpectations => commit.id = CommitId::random(),
                Ok(Err(lost)) => self.goes_on(lost)?,
                Err(exceeded) if self.way.0.borrow().requests == before => return Err(exceeded),
                Err(exceeded) if self.flaw == Flaw::TakesSilenceForNotDone => return Err(exceeded),
                Err(_) => return Err(Error::new(ErrorKind::UnknownOutcome, "nothing answers")),
            }
        }
    }

    async fn journal(&self, query: &JournalQuery, deadline: &Deadline) -> Result<Vec<JournalEntry>> {
        let (deadline, patience) = (self.deadline(deadline), patience());
        let answer = async {
            loop {
                match self.sent(self.inner.journal(query, &patience)).await {
                    Ok(answer) => return answer,
                    Err(lost) => self.goes_on(lost)?,
                }
            }
        };
        deadline.wait_for("an answer", answer).await?
    }

    async fn prune_journal(&self, retention: &Retention, deadline: &Deadline) -> Result<u64> {
        self.inner.prune_journal(retention, deadline).await
    }

    async fn remove_if_empty(&self, deadline: &Deadline) -> Result<bool> {
        self.inner.remove_if_empty(deadline).await
    }
}
