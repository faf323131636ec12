//! What a registry's one object is kept in: all that is different between a local file and an object in a cloud.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use feast_registry_core::{Deadline, Error, Result};

/// Identifies a state of the object: as long as the store says that it is still so, the bytes are the same.
pub(crate) type Tag = Arc<dyn AnyTag>;

/// What a store knows a state by; each store has its own.
pub(crate) trait AnyTag: Any + Send + Sync + fmt::Debug {}

impl<T: Any + Send + Sync + fmt::Debug> AnyTag for T {}

/// A tag as the store that made it knows it.
pub(crate) fn tag_of<T: 'static>(tag: &Tag) -> Option<&T> {
    let tag: &dyn Any = &**tag;
    tag.downcast_ref()
}

/// What a look at the object found.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// It is in the state that was known.
    Unchanged,
    /// There is no object; where one was removed, perhaps what was to be left of it ([`Store::remove`]).
    Absent(Option<Bytes>),
    /// It is in another state.
    Changed(Bytes, Tag),
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Swapped {
    /// It is written, durably, and is now in this state.
    Done(Tag),
    /// It was no longer in the expected state; nothing is written, for certain.
    Changed,
    /// The same, or this very write had been done: the client of the store repeats what is not answered.
    #[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "nothing repeats what is done with a local file"))]
    ChangedOrDone,
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// There is no object.
    #[cfg_attr(not(feature = "local"), expect(dead_code, reason = "no other store can do it"))]
    Done,
    /// It was no longer in the expected state; nothing is removed.
    #[cfg_attr(not(feature = "local"), expect(dead_code, reason = "no other store can do it"))]
    Changed,
    /// This store cannot remove an object on a condition. A note is to be written in its place.
    #[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "a local file can be removed"))]
    Impossible,
}

/// Why a write failed, and whether it may have been done.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Whether the write may be done, or still be under way.
    pub(crate) is_in_doubt: bool,
}

impl Failure {
    /// Nothing was written, nor will be.
    pub(crate) fn certain(error: Error) -> Self {
        Self { error, is_in_doubt: false }
    }
}

/// The right to write, as long as it lives.
pub(crate) type WriteLock = Option<Box<dyn Any + Send + Sync>>;

/// A place for one object.
///
/// What is given a deadline ends when that is over, with `DeadlineExceeded`, unless it says otherwise.
#[async_trait]
pub(crate) trait Store: fmt::Debug + Send + Sync + 'static {
    /// Where it is, without secrets.
    fn location(&self) -> String;

    /// Which promises this store cannot keep, as far as is known.
    fn unkept(&self) -> Vec<String> {
        Vec::new()
    }

    /// Finds out whether the store can be relied on. Called before anything is made.
    async fn check(&self, deadline: &Deadline) -> Result<()>;

    /// Whether a lock keeps other processes out. Where it does not, [`Self::swap`] finds them out.
    fn keeps_others_out(&self) -> bool;

    /// Waits for the right to write. What is there when it returns survives a crash, whoever wrote it: what is decided from it
    /// may be acknowledged. Whoever stops waiting leaves nothing behind.
    async fn lock(&self, deadline: &Deadline) -> Result<WriteLock>;

    /// Reads the object unless it is in the state that is known.
    async fn load(&self, known: Option<&Tag>, deadline: &Deadline) -> Result<Loaded>;

    /// Replaces the object if it is still in the expected state (`None`: if there is none). The whole object is replaced or
    /// nothing; it is durable when this returns. If it is written and perhaps not durable, that is a failure that is in doubt, and
    /// nobody has the lock before it is. Where a lock keeps others out, it must be held; the write holds on to it to its end,
    /// beyond the deadline if need be.
    async fn swap(&self, expected: Option<&Tag>, bytes: Bytes, deadline: &Deadline) -> Result<Swapped, Failure>;

    /// Removes the object if it is still in the expected state, and keeps `left` for whoever finds that there is none; that is
    /// durable when this returns. An error may leave it removed. It is seen through: nobody who waits for it has to be told
    /// what became of a commit.
    async fn remove(&self, expected: &Tag, left: Bytes) -> Result<Removal>;
}
