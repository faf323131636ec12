//! What a call waited for, for those who want to know why it was slow.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Shorter waits are not worth a word.
const WORTH_NOTING: Duration = Duration::from_millis(1);

/// What a call waited for and how long, as its [`Deadline`](crate::Deadline) was told. Waits may lie within one another: a call
/// that waits for a connection waits for the storage.
///
/// Given to a call by [`CallOptions::with_waits`](crate::CallOptions::with_waits). `Display` has the longest waits first.
#[derive(Debug, Clone, Default)]
pub struct Waits(Arc<Mutex<Vec<(String, Duration)>>>);

impl Waits {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a wait that begins now, and ends when what is returned is dropped.
    pub(crate) fn begin<'a>(&self, what: &'a str) -> Waiting<'a> {
        Waiting { what, began: Instant::now(), waits: self.clone() }
    }

    fn note(&self, what: &str, time: Duration) {
        if time < WORTH_NOTING {
            return;
        }
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match waits.iter_mut().find(|(noted, _)| noted == what) {
            Some((_, total)) => *total += time,
            None => waits.push((what.to_owned(), time)),
        }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        waits.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        if waits.is_empty() {
            return f.write_str("nothing");
        }
        for (number, (what, time)) in waits.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{what} ({:.3} s)", time.as_secs_f64())?;
        }
        Ok(())
    }
}

/// A wait under way.
pub(crate) struct Waiting<'a> {
    what: &'a str,
    began: Instant,
    waits: Waits,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waits.note(self.what, self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Deadline, ErrorKind};

    #[tokio::test(start_paused = true)]
    async fn what_was_waited_for_is_noted_also_when_it_was_in_vain() {
        let waits = Waits::new();
        let deadline = Deadline::after(Duration::from_secs(5)).with_waits(waits.clone());
        let (tied, _caller) = deadline.tied_to_caller();
        deadline.wait_for("nothing long", std::future::ready(())).await.expect("in time");
        assert_eq!(waits.to_string(), "nothing");
        for _ in 0..2 {
            let sleep = tokio::time::sleep(Duration::from_millis(250));
            deadline.wait_for("earlier writers", sleep).await.expect("in time");
        }
        let late = tied.at_most(Duration::from_secs(2)).wait_for("a connection", std::future::pending::<()>()).await;
        assert_eq!(late.expect_err("never there").kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(waits.to_string(), "a connection (2.000 s), earlier writers (0.500 s)");
    }
}
