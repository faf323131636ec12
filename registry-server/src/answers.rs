//! How much memory answers take that are under way.
//!
//! A list of many megabytes stays in memory until its client has read it or is gone. So that clients who read slowly, or
//! not at all, do not fill the memory, large answers share a budget: one that finds no room is let go, waits for it, and is
//! made anew.

use std::sync::Arc;

use feast_registry_core::{Error, ErrorKind, Result};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tonic::Response;

/// Answers of up to so many bytes are not counted.
const SMALL: usize = 256 * 1024;

/// How many bytes of large answers may be under way at once. One that is larger goes alone.
const BUDGET: usize = 64 * 1024 * 1024;

/// What the budget is counted in.
const UNIT: usize = 1024;

/// The budget of a server.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    room: Arc<Semaphore>,
    budget: usize,
}

/// Room that an answer takes until the last clone of this is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Default for Answers {
    fn default() -> Self {
        Self::new(BUDGET)
    }
}

impl Answers {
    fn new(budget: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(budget.div_ceil(UNIT))), budget }
    }

    /// Makes an answer that there is room for, which it takes as long as what it carries in its extensions. Cancel-safe.
    ///
    /// # Errors
    /// Those of `make`; `Overloaded` when there is no room before `until`.
    pub(crate) async fn make<T: Message, F: Future<Output = Result<T>>>(
        &self,
        until: Instant,
        make: impl Fn() -> F,
    ) -> Result<Response<T>> {
        let mut room: Option<(u32, OwnedSemaphorePermit)> = None;
        loop {
            let answer = make().await?;
            let size = answer.encoded_len();
            if size <= SMALL {
                return Ok(Response::new(answer));
            }
            let needed = u32::try_from(size.min(self.budget).div_ceil(UNIT)).unwrap_or(u32::MAX);
            room = match room {
                // It has grown while there was no room for it.
                Some((had, _)) if had < needed => None,
                None => Arc::clone(&self.room).try_acquire_many_owned(needed).ok().map(|permit| (needed, permit)),
                room => room,
            };
            if let Some((_, permit)) = room {
                let mut response = Response::new(answer);
                response.extensions_mut().insert(Room { _permit: Arc::new(permit) });
                return Ok(response);
            }
            drop(answer);
            let acquired = tokio::time::timeout_at(until, Arc::clone(&self.room).acquire_many_owned(needed)).await;
            room = Some((needed, acquired.ok().and_then(std::result::Result::ok).ok_or_else(overloaded)?));
        }
    }
}

fn overloaded() -> Error {
    Error::new(
        ErrorKind::Overloaded,
        "large answers that other clients have not read yet take all the room that there is for them; try again later, or \
         ask for pages",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    const SIZE: usize = 1024 * 1024;

    async fn list() -> Result<Vec<u8>> {
        Ok(vec![7; SIZE])
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[tokio::test(start_paused = true)]
    async fn answers_wait_for_room_without_being_held_and_without_end() {
        let answers = Answers::new(2 * SIZE + SIZE / 2);
        let made = AtomicUsize::new(0);
        let counted = || {
            made.fetch_add(1, Ordering::Relaxed);
            list()
        };
        let first = answers.make(soon(), counted).await.expect("there is room");
        let second = answers.make(soon(), counted).await.expect("there is room");
        let error = answers.make(soon(), counted).await.expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}");
        assert_eq!(made.load(Ordering::Relaxed), 3);
        let waiting = answers.make(soon(), counted);
        let read = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(first);
        };
        let (third, ()) = tokio::join!(waiting, read);
        third.expect("there is room again");
        assert_eq!(made.load(Ordering::Relaxed), 5, "it was let go while it waited");
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_the_budget_goes_alone_and_what_is_small_is_not_counted() {
        let answers = Answers::new(SIZE / 2);
        let large = answers.make(soon(), list).await.expect("it goes alone");
        answers.make(soon(), list).await.expect_err("it waits");
        answers.make(soon(), || async { Ok(vec![7_u8; SMALL / 2]) }).await.expect("it is small");
        drop(large);
        answers.make(soon(), list).await.expect("it goes alone");
    }
}
