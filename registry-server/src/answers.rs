//! How much memory answers take that are under way.
//!
//! A list of many objects stays in memory until its client has read it or is gone. So that many at once do not fill the
//! memory, large answers share a budget: one that finds no room is let go, waits a moment for it, and is made anew. It is made
//! then if there is any memory for it at all: clients who read slowly must not keep others from their answers at once. An
//! answer of which nothing is read for a while is given up.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use feast_registry_core::{Error, Registry};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Response, Status};

use crate::complaints::Complaint;
use crate::heavy::many;
use crate::parts::{self, Divided, InParts, Room};
use crate::status::status;
use crate::tenants::Memory;

/// Answers of up to so many bytes are sent as a whole, and not counted.
const SMALL: usize = 32 * 1024;

/// How many bytes of memory large answers may take before others wait for them. One that takes more goes alone.
const BUDGET: usize = 64 * 1024 * 1024;

/// How many bytes of memory large answers may take at the most.
const MOST: usize = 512 * 1024 * 1024;

/// What an answer takes for an object that the cache has too.
const SHARED_OBJECT: usize = 64;

/// How long an answer waits for room.
const WAITS_FOR: Duration = Duration::from_secs(1);

/// The size up to which gRPC's clients take a message unless they are told otherwise, as Feast's cannot be. grpc-core compares
/// it with what comes, and again with what that unpacks to, so that compressing is no way around it.
const CLIENTS_TAKE: usize = 4 * 1024 * 1024;

/// How many times smaller gzip makes an answer at the least, for the room that it takes. Definitions repeat themselves much.
const LEAST_RATIO: usize = 3;

/// What the budget is counted in.
const UNIT: usize = 1024;

/// Whose the objects of an answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objects {
    /// The cache has them too.
    Shared,
    /// The answer alone has them.
    Own,
}

impl Objects {
    /// Those of a list that may come from the cache.
    pub(crate) fn of(allow_cache: bool) -> Self {
        if allow_cache { Objects::Shared } else { Objects::Own }
    }
}

/// How large answers are sent, and the budget that they share.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    /// Room without a wait.
    room: Arc<Semaphore>,
    budget: usize,
    /// Room at all.
    memory: Arc<Semaphore>,
    most: usize,
    /// The largest answer, in bytes.
    max_size: usize,
    /// Larger answers are compressed for clients that offer it. `None`: none are.
    compress_above: Option<usize>,
    /// Of which calls it was said that clients may not take their answers.
    warned_of: Arc<Mutex<HashSet<&'static str>>>,
}

/// What an answer is to, and how it may be sent.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) call: &'static str,
    pub(crate) objects: Objects,
    /// Where it is compressed, if the client offers that.
    pub(crate) compressor: Option<&'a Registry>,
    /// Whose it is, if callers are known.
    pub(crate) caller: Option<&'a Memory>,
}

impl Answers {
    /// Answers of up to `max_size` bytes. What [`make`](Self::make) returns must go through [`parts::send`](crate::parts::send).
    pub(crate) fn new(max_size: usize) -> Self {
        Self::with_budget(max_size, BUDGET, MOST)
    }

    /// The same, with answers of more bytes compressed for clients that offer it.
    pub(crate) fn with_compression(mut self, above: Option<usize>) -> Self {
        self.compress_above = above;
        self
    }

    fn with_budget(max_size: usize, budget: usize, most: usize) -> Self {
        let semaphore = |bytes: usize| Arc::new(Semaphore::new(bytes.div_ceil(UNIT)));
        let warned_of = Arc::default();
        let compress_above = None;
        Self { room: semaphore(budget), budget, memory: semaphore(most), most, max_size, compress_above, warned_of }
    }

    /// Makes an answer; one that is large is divided, and takes room until it is sent. Cancel-safe.
    ///
    /// # Errors
    /// Those of `make`; OUT_OF_RANGE when the answer is larger than any may be, RESOURCE_EXHAUSTED when there is no memory for
    /// it.
    pub(crate) async fn make<T: InParts, F: Future<Output = Result<T, Status>>>(
        &self,
        asked: Asked<'_>,
        make: impl Fn() -> F,
    ) -> Result<Response<T>, Status> {
        let measure = |answer: &T| {
            let size = answer.encoded_len();
            let compressed = if self.compressor(asked, size).is_some() { size / LEAST_RATIO } else { 0 };
            let taken = match asked.objects {
                Objects::Shared => SHARED_OBJECT * answer.len() + compressed,
                Objects::Own => size,
            };
            (size, taken)
        };
        match self.with_room(asked.caller, measure, make).await? {
            (answer, None) => Ok(Response::new(answer)),
            (answer, Some(room)) => self.send(asked, answer, room).await,
        }
    }

    /// Makes an answer, of which `measure` says how many bytes are sent and how many of memory are taken, and has room for it unless it is
    /// small. Cancel-safe.
    ///
    /// # Errors
    /// Those of `make`; RESOURCE_EXHAUSTED when there is no memory for it.
    pub(crate) async fn with_room<T, E: From<Status>, F: Future<Output = Result<T, E>>>(
        &self,
        caller: Option<&Memory>,
        measure: impl Fn(&T) -> (usize, usize),
        make: impl Fn() -> F,
    ) -> Result<(T, Option<Room>), E> {
        let answer = make().await?;
        let (size, taken) = measure(&answer);
        if size <= SMALL {
            return Ok((answer, None));
        }
        let units = |budget: usize| u32::try_from(taken.min(budget).div_ceil(UNIT)).unwrap_or(u32::MAX);
        let memory = || Arc::clone(&self.memory).try_acquire_many_owned(units(self.most)).map_err(|_| exhausted());
        let of_caller = caller.map(|caller| caller.take(taken));
        if of_caller.as_ref().is_none_or(Option::is_some)
            && let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(units(self.budget))
        {
            return Ok((answer, Some((Some(room), memory()?, of_caller.flatten()))));
        }
        drop((answer, of_caller));
        // Who has taken all that one may waits for themselves alone.
        let of_caller = match caller {
            Some(caller) => match timeout(WAITS_FOR, caller.wait_for(taken)).await {
                Ok(room) => room,
                Err(_) => return Err(exhausted_by_caller().into()),
            },
            None => None,
        };
        let acquired = timeout(WAITS_FOR, Arc::clone(&self.room).acquire_many_owned(units(self.budget)));
        let room = acquired.await.ok().and_then(Result::ok);
        let memory = memory()?;
        Ok((make().await?, Some((room, memory, of_caller))))
    }

    async fn send<T: InParts>(&self, asked: Asked<'_>, answer: T, room: Room) -> Result<Response<T>, Status> {
        let size = answer.encoded_len();
        let limit = self.max_size;
        let Some(length) = u32::try_from(size).ok().filter(|_| size <= limit) else {
            return Err(Status::out_of_range(format!(
                "the answer has {size} bytes, and this server sends at most {limit}: ask for pages, or raise --max-message-size"
            )));
        };
        self.warn_of(asked.call, size);
        let divided = match self.compressor(asked, size) {
            Some(registry) => {
                let compress = move || {
                    parts::compress(answer)
                        .map_err(|error| Error::internal("an answer was not compressed").with_source(error))
                };
                let compressed =
                    registry.compute(many(size), compress).await.map_err(|error| status(asked.call, error))?;
                // It is no longer than what it was made of, but for some bytes.
                let length = u32::try_from(compressed.len()).unwrap_or(u32::MAX);
                Divided::compressed(compressed, length, room)
            }
            None => Divided::new(answer, length, room),
        };
        let mut response = Response::new(T::default());
        response.extensions_mut().insert(divided);
        Ok(response)
    }

    /// What compresses an answer of so many bytes, if it is to be.
    fn compressor<'a>(&self, asked: Asked<'a>, size: usize) -> Option<&'a Registry> {
        asked.compressor.filter(|_| self.compress_above.is_some_and(|above| size > above))
    }

    /// Says once of each call that its answers have become larger than clients take by themselves.
    fn warn_of(&self, call: &'static str, size: usize) {
        let is_new = || self.warned_of.lock().unwrap_or_else(PoisonError::into_inner).insert(call);
        if size > CLIENTS_TAKE && is_new() {
            tracing::warn!(
                call,
                bytes = size,
                "an answer is larger than the 4 MiB that gRPC clients take unless told otherwise; with Feast's client such a \
                 call fails (RESOURCE_EXHAUSTED: Received message larger than max). Ask for pages, by project or by tag, or set \
                 grpc.max_receive_message_length in a client of your own; this is said once for each call"
            );
        }
    }
}

fn exhausted_by_caller() -> Status {
    Status::resource_exhausted(
        "the caller's other requests and answers take all the memory that one caller may have; read those first, or ask for pages",
    )
}

fn exhausted() -> Status {
    static REFUSED: Complaint = Complaint::new();
    REFUSED.say(|more| {
        tracing::warn!(
            "a large answer was refused: others that their clients have not read yet take all the memory for them{more}"
        );
    });
    Status::resource_exhausted(
        "too many large answers of this server have not been read by their clients yet; try again later, or ask for pages",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use feast_registry_core::Encoded;
    use tokio::time::Instant;
    use tonic::Code;

    use super::*;
    use crate::proto::ListEntitiesResponse;

    const SIZE: usize = 1024 * 1024;

    /// About a megabyte.
    async fn list() -> Result<ListEntitiesResponse, Status> {
        let entity = Encoded::from_bytes(Bytes::from(vec![0; SIZE / 16]));
        Ok(ListEntitiesResponse { entities: vec![entity; 16], pagination: None })
    }

    fn asked(objects: Objects) -> Asked<'static> {
        Asked { call: "list_entities", objects, compressor: None, caller: None }
    }

    fn free(answers: &Answers) -> usize {
        answers.room.available_permits() * UNIT
    }

    #[tokio::test(start_paused = true)]
    async fn answers_wait_for_room_without_being_held_and_not_for_long() {
        let budget = 2 * SIZE + SIZE / 2;
        let answers = Answers::with_budget(usize::MAX, budget, 4 * SIZE);
        let made = AtomicUsize::new(0);
        let counted = || {
            made.fetch_add(1, Ordering::Relaxed);
            list()
        };
        let first = answers.make(asked(Objects::Own), counted).await.expect("a list");
        let second = answers.make(asked(Objects::Own), counted).await.expect("a list");
        assert!(free(&answers) < SIZE);
        let began = Instant::now();
        let third = answers.make(asked(Objects::Own), counted).await.expect("a list");
        assert!(began.elapsed() >= WAITS_FOR, "{:?}", began.elapsed());
        assert_eq!(made.load(Ordering::Relaxed), 4, "it was let go while it waited");
        drop(third);
        assert!(free(&answers) < SIZE, "what was sent without room leaves none");
        let began = Instant::now();
        let (waited, ()) = tokio::join!(answers.make(asked(Objects::Own), counted), async {
            tokio::time::sleep(WAITS_FOR / 2).await;
            drop(first);
        });
        assert_eq!(began.elapsed(), WAITS_FOR / 2, "there is room again");
        drop((waited, second));
        assert!(free(&answers) >= budget);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_the_budget_takes_all_of_it_and_what_is_small_or_shared_takes_little() {
        let answers = Answers::with_budget(usize::MAX, SIZE / 2, 4 * SIZE);
        let large = answers.make(asked(Objects::Own), list).await.expect("a list");
        assert_eq!(free(&answers), 0);
        let began = Instant::now();
        let small = || async { Ok(ListEntitiesResponse::default()) };
        answers.make(asked(Objects::Own), small).await.expect("a list");
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(large);
        let shared = answers.make(asked(Objects::Shared), list).await.expect("a list");
        assert!(free(&answers) >= SIZE / 2 - 16 * SHARED_OBJECT - UNIT);
        drop(shared);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_not_read_are_refused_memory_in_the_end_and_given_up() {
        let answers = Answers::with_budget(usize::MAX, SIZE, 4 * SIZE);
        let mut unread = Vec::new();
        while let Ok(answer) = answers.make(asked(Objects::Own), list).await {
            unread.push(answer);
            assert!(unread.len() < 5);
        }
        assert_eq!(unread.len(), 3, "a megabyte and a little, three times");
        let status = answers.make(asked(Objects::Own), list).await.expect_err("there is no memory");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        tokio::time::sleep(crate::parts::READ_WITHIN * 2).await;
        answers.make(asked(Objects::Own), list).await.expect("what was not read is gone");
        drop(unread);
    }

    #[tokio::test]
    async fn what_is_larger_than_a_message_may_be_is_an_error_that_says_so() {
        let answers = Answers::new(SIZE / 2);
        let status = answers.make(asked(Objects::Shared), list).await.expect_err("it is too large");
        assert_eq!(status.code(), Code::OutOfRange);
        assert!(status.message().contains("--max-message-size"), "{status:?}");
        assert_eq!(free(&answers), BUDGET);
    }
}
