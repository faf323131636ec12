//! How much memory answers take that are under way.
//!
//! A list of many megabytes stays in memory until its client has read it or is gone. So that many at once do not fill the
//! memory, large answers share a budget: one that finds no room is let go, waits a moment for it, and is made anew. It is made
//! in any case then: clients who do not read what they have asked for must not keep others from theirs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use feast_registry_core::Result;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Response;

/// Answers of up to so many bytes are not counted.
const SMALL: usize = 256 * 1024;

/// How many bytes of large answers may be under way at once. One that is larger goes alone.
const BUDGET: usize = 64 * 1024 * 1024;

/// How long an answer waits for room.
const WAITS_FOR: Duration = Duration::from_secs(1);

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

impl Room {
    /// Bytes of the answer, which take the room as long as any of them are kept: by HTTP/2 until they are sent.
    pub(crate) fn hold(&self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: self.clone() })
    }
}

/// Bytes and the room that they take.
struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
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

    /// Makes an answer, which takes room as long as what it carries in its extensions. Cancel-safe.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) async fn make<T: Message, F: Future<Output = Result<T>>>(
        &self,
        make: impl Fn() -> F,
    ) -> Result<Response<T>> {
        let answer = make().await?;
        let size = answer.encoded_len();
        if size <= SMALL {
            return Ok(Response::new(answer));
        }
        let needed = u32::try_from(size.min(self.budget).div_ceil(UNIT)).unwrap_or(u32::MAX);
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_many_owned(needed) {
            return Ok(with_room(answer, permit));
        }
        drop(answer);
        let acquired = tokio::time::timeout(WAITS_FOR, Arc::clone(&self.room).acquire_many_owned(needed)).await;
        let answer = make().await?;
        Ok(match acquired {
            Ok(Ok(permit)) => with_room(answer, permit),
            _ => Response::new(answer),
        })
    }
}

fn with_room<T>(answer: T, permit: OwnedSemaphorePermit) -> Response<T> {
    let mut response = Response::new(answer);
    response.extensions_mut().insert(Room { _permit: Arc::new(permit) });
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;

    const SIZE: usize = 1024 * 1024;

    async fn list() -> Result<Vec<u8>> {
        Ok(vec![7; SIZE])
    }

    fn room<T>(response: &Response<T>) -> Option<&Room> {
        response.extensions().get()
    }

    #[tokio::test(start_paused = true)]
    async fn answers_wait_for_room_without_being_held_and_not_for_long() {
        let answers = Answers::new(2 * SIZE + SIZE / 2);
        let made = AtomicUsize::new(0);
        let counted = || {
            made.fetch_add(1, Ordering::Relaxed);
            list()
        };
        let first = answers.make(counted).await.expect("a list");
        let second = answers.make(counted).await.expect("a list");
        assert!(room(&first).is_some() && room(&second).is_some());
        let began = Instant::now();
        let third = answers.make(counted).await.expect("a list");
        assert!(room(&third).is_none() && began.elapsed() >= WAITS_FOR, "{:?}", began.elapsed());
        assert_eq!(made.load(Ordering::Relaxed), 4, "it was let go while it waited");
        // What is on its way takes room too, in whatever parts.
        let mut sent = room(&first).expect("room").hold(Bytes::from_static(b"a part"));
        drop(first);
        let part = sent.split_off(2);
        drop(sent);
        let (waited, ()) = tokio::join!(answers.make(counted), async {
            tokio::time::sleep(WAITS_FOR / 2).await;
            drop(part);
        });
        assert!(room(&waited.expect("a list")).is_some(), "there is room again");
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_the_budget_takes_all_of_it_and_what_is_small_is_not_counted() {
        let answers = Answers::new(SIZE / 2);
        let large = answers.make(list).await.expect("a list");
        assert!(room(&large).is_some());
        let small = answers.make(|| async { Ok(vec![7_u8; SMALL / 2]) }).await.expect("a list");
        assert!(room(&small).is_none());
        drop(large);
        assert!(room(&answers.make(list).await.expect("a list")).is_some());
    }
}
