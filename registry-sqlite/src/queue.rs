//! What waits for the thread that writes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use feast_registry_core::{Deadline, Retention};

/// How much waits at the most.
const MAX_WAITING: usize = 4096;

/// So much is done first while the journal waits to be pruned.
const MAX_BEFORE_PRUNING: usize = 1024;

/// Something to do for a caller who waits for it, until it is withdrawn or claimed.
pub(crate) struct Ticket<W> {
    deadline: Deadline,
    work: Mutex<Option<W>>,
}

impl<W> Ticket<W> {
    pub(crate) fn new(work: W, deadline: Deadline) -> Self {
        Self { deadline, work: Mutex::new(Some(work)) }
    }

    /// Takes what is to be done, if somebody still waits for it. From then on it is seen through.
    pub(crate) fn claim(&self) -> Option<W> {
        if self.deadline.is_over() { None } else { self.take() }
    }

    /// Whether it was not claimed; then it never will be.
    pub(crate) fn withdraw(&self) -> bool {
        self.take().is_some()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.deadline.is_over() && self.work.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn take(&self) -> Option<W> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the thread does next.
pub(crate) enum Next<C, T> {
    /// Commits, as many as are in line.
    Commits(Vec<Arc<Ticket<C>>>),
    /// Something else.
    Task(Arc<Ticket<T>>),
    /// Removes a part of what the journal need not keep.
    Prune(Retention),
    /// Ends.
    End,
}

/// What may be waited for.
pub(crate) enum Job<C, T> {
    Commit(Arc<Ticket<C>>),
    Task(Arc<Ticket<T>>),
}

impl<C, T> Job<C, T> {
    fn is_waiting(&self) -> bool {
        match self {
            Job::Commit(ticket) => ticket.is_waiting(),
            Job::Task(ticket) => ticket.is_waiting(),
        }
    }
}

/// Why something was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
}

/// The queue of the thread that writes.
pub(crate) struct Queue<C, T> {
    state: Mutex<State<C, T>>,
    changed: Condvar,
}

struct State<C, T> {
    jobs: VecDeque<Job<C, T>>,
    prune: Option<Retention>,
    done_before_pruning: usize,
    is_closed: bool,
}

impl<C, T> Queue<C, T> {
    pub(crate) fn new() -> Self {
        let state = State { jobs: VecDeque::new(), prune: None, done_before_pruning: 0, is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<C, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts something in line.
    pub(crate) fn push(&self, job: Job<C, T>) -> Result<(), Refusal> {
        let mut state = self.state();
        if state.is_closed {
            return Err(Refusal::Closed);
        }
        if state.jobs.len() >= MAX_WAITING {
            state.jobs.retain(Job::is_waiting);
            if state.jobs.len() >= MAX_WAITING {
                return Err(Refusal::Full);
            }
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Prunes the journal when there is nothing else to do, or after a while.
    pub(crate) fn prune(&self, retention: Retention) {
        let mut state = self.state();
        if state.prune.is_none() {
            state.prune = Some(retention);
            state.done_before_pruning = 0;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Lets nothing in any more. What is in line is done.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
    }

    /// Waits for what is to be done next, at most `limit` commits of it.
    pub(crate) fn next(&self, limit: usize) -> Next<C, T> {
        let mut state = self.state();
        loop {
            if let Some(retention) = state.prune
                && !state.is_closed
                && (state.jobs.is_empty() || state.done_before_pruning >= MAX_BEFORE_PRUNING)
            {
                state.prune = None;
                return Next::Prune(retention);
            }
            match state.jobs.pop_front() {
                Some(Job::Task(task)) => return Next::Task(task),
                Some(Job::Commit(first)) => {
                    let mut commits = vec![first];
                    state.take_commits(&mut commits, limit);
                    state.done_before_pruning = state.done_before_pruning.saturating_add(commits.len());
                    return Next::Commits(commits);
                }
                None if state.is_closed => return Next::End,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Adds commits that have come in line meanwhile, up to `limit` of them.
    pub(crate) fn add_commits(&self, commits: &mut Vec<Arc<Ticket<C>>>, limit: usize) {
        self.state().take_commits(commits, limit);
    }
}

impl<C, T> State<C, T> {
    fn take_commits(&mut self, commits: &mut Vec<Arc<Ticket<C>>>, limit: usize) {
        while commits.len() < limit {
            match self.jobs.pop_front() {
                Some(Job::Commit(commit)) if commit.is_waiting() => commits.push(commit),
                Some(Job::Commit(_)) => {}
                Some(task) => return self.jobs.push_front(task),
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Numbers = Queue<usize, usize>;

    fn ticket(number: usize) -> Arc<Ticket<usize>> {
        Arc::new(Ticket::new(number, Deadline::after(Duration::from_secs(60))))
    }

    #[test]
    fn a_full_queue_lets_nobody_in_until_others_left() {
        let queue = Numbers::new();
        let tickets: Vec<_> = (0..MAX_WAITING).map(ticket).collect();
        for ticket in &tickets {
            queue.push(Job::Commit(Arc::clone(ticket))).expect("there is room");
        }
        assert_eq!(queue.push(Job::Task(ticket(0))), Err(Refusal::Full));
        assert!(tickets[7].withdraw());
        queue.push(Job::Task(ticket(0))).expect("one has left");
        queue.close();
        assert_eq!(queue.push(Job::Task(ticket(0))), Err(Refusal::Closed));
        let mut done = 0;
        while let Next::Commits(commits) = queue.next(256) {
            assert!(commits.len() <= 256);
            done += commits.len();
        }
        assert_eq!(done, MAX_WAITING - 1);
    }

    #[test]
    fn the_journal_is_pruned_when_nothing_waits_or_after_much_was_done() {
        let queue = Numbers::new();
        queue.prune(Retention::default());
        for number in 0..2 * MAX_BEFORE_PRUNING {
            queue.push(Job::Commit(ticket(number))).expect("there is room");
        }
        let mut done = 0;
        while let Next::Commits(commits) = queue.next(100) {
            done += commits.len();
        }
        assert!((MAX_BEFORE_PRUNING..MAX_BEFORE_PRUNING + 100).contains(&done), "{done} were done before");
        // The rest is done first again.
        queue.prune(Retention::default());
        assert!(matches!(queue.next(MAX_WAITING), Next::Commits(_)));
        assert!(matches!(queue.next(MAX_WAITING), Next::Prune(_)));
    }
}
