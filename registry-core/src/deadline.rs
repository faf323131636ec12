//! How long a caller waits: one deadline for all that its call goes through.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::waits::{Waiting, Waits};

/// The moment after which nobody waits for a call any more.
///
/// It covers queueing, the pool of connections, reading and committing. It is over when its time has come, or when the
/// caller is gone ([`tied_to_caller`](Self::tied_to_caller)), whichever is first. Cloning gives the same deadline.
///
/// The clock is tokio's, so a test may pause it.
#[derive(Debug, Clone)]
pub struct Deadline {
    at: Instant,
    /// Its sender is dropped when the caller is gone.
    caller: Option<watch::Receiver<()>>,
    /// Where it is noted what was waited for.
    waits: Option<Waits>,
}

/// The caller of a call that goes on in a task of its own. When this is dropped, the deadline of that task is over.
#[derive(Debug)]
#[must_use = "the deadline is over as soon as this is dropped"]
pub struct Caller(#[allow(dead_code, reason = "it is held to be dropped")] watch::Sender<()>);

impl Deadline {
    /// A deadline so much from now. What is too long to be counted is some decades.
    pub fn after(time: Duration) -> Self {
        const DECADES: Duration = Duration::from_secs(30 * 365 * 86_400);
        Self::at(Instant::now() + time.min(DECADES))
    }

    /// A deadline at a moment.
    pub fn at(at: Instant) -> Self {
        Self { at, caller: None, waits: None }
    }

    /// The same, noting what is waited for until then.
    #[must_use]
    pub fn with_waits(mut self, waits: Waits) -> Self {
        self.waits = Some(waits);
        self
    }

    /// Notes a wait, if waits are noted, until what is returned is dropped.
    pub(crate) fn waiting<'a>(&self, what: &'a str) -> Option<Waiting<'a>> {
        self.waits.as_ref().map(|waits| waits.begin(what))
    }

    /// This deadline, or one so much from now if that is earlier.
    #[must_use]
    pub fn at_most(&self, time: Duration) -> Self {
        Self { at: self.at.min(Self::after(time).at), ..self.clone() }
    }

    /// The same moment for a task that goes on without its caller, until the [`Caller`] is dropped.
    pub fn tied_to_caller(&self) -> (Self, Caller) {
        let (sender, receiver) = watch::channel(());
        (Self { caller: Some(receiver), ..self.clone() }, Caller(sender))
    }

    /// Its moment, whether the caller is gone or not.
    pub fn instant(&self) -> Instant {
        self.at
    }

    /// How long until it is over: zero when it is.
    pub fn remaining(&self) -> Duration {
        if self.is_over() { Duration::ZERO } else { self.at.saturating_duration_since(Instant::now()) }
    }

    /// Whether nobody waits any more.
    pub fn is_over(&self) -> bool {
        self.is_caller_gone() || Instant::now() >= self.at
    }

    /// Completes when it is over. Cancel-safe.
    pub async fn over(&self) {
        let gone = async {
            match self.caller.clone() {
                // Nothing is ever sent: it ends when the sender is dropped.
                Some(mut caller) => while caller.changed().await.is_ok() {},
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(self.at) => {}
            () = gone => {}
        }
    }

    /// Whether it is over, as an error that says that nothing was done; `what` was waited for, as in "a connection".
    ///
    /// # Errors
    /// [`ErrorKind::DeadlineExceeded`] when it is over.
    pub fn check(&self, what: &str) -> Result<()> {
        if self.is_over() { Err(self.exceeded(what)) } else { Ok(()) }
    }

    /// Waits for something without an effect that would have to be seen through, as a place in a queue. When the deadline
    /// is over first, it is dropped, and nothing was done. What is ready at once is had even if the deadline is over.
    ///
    /// # Errors
    /// [`ErrorKind::DeadlineExceeded`] when the deadline is over first.
    pub async fn wait_for<T>(&self, what: &str, future: impl Future<Output = T>) -> Result<T> {
        let _waiting = self.waiting(what);
        tokio::select! {
            biased;
            value = future => Ok(value),
            () = self.over() => Err(self.exceeded(what)),
        }
    }

    /// The error of a call whose deadline was over while it waited for `what`. Nothing was done.
    pub fn exceeded(&self, what: &str) -> Error {
        let text = if self.is_caller_gone() {
            format!("the caller went away while its call waited for {what}; nothing was done")
        } else {
            format!("the deadline of the call was over while it waited for {what}; nothing was done: try again")
        };
        Error::new(ErrorKind::DeadlineExceeded, text)
    }

    fn is_caller_gone(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.has_changed().is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_its_time_has_come_or_its_caller_is_gone() {
        let deadline = Deadline::after(Duration::from_secs(5));
        let (tied, caller) = deadline.tied_to_caller();
        assert!(!deadline.is_over() && !tied.is_over());
        drop(caller);
        assert!(tied.is_over() && !deadline.is_over());
        tied.over().await;
        assert_eq!(deadline.remaining(), Duration::from_secs(5));
        let waited = deadline.wait_for("a connection", std::future::pending::<()>()).await.expect_err("never there");
        assert_eq!(waited.kind(), ErrorKind::DeadlineExceeded);
        assert!(deadline.is_over());
        assert_eq!(deadline.wait_for("nothing", std::future::ready(7)).await.expect("what is ready is had"), 7);
    }

    #[test]
    fn a_time_that_cannot_be_counted_is_no_panic() {
        assert!(Deadline::after(Duration::MAX).remaining() > Duration::from_secs(86_400));
    }
}
