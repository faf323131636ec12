//! What a registry's one object is kept in: all that is different between a local file and an object in a cloud.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use feast_registry_core::{Error, Result};

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
    /// There is no object.
    Absent,
    /// It is in another state.
    Changed(Bytes, Tag),
}

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Swapped {
    /// It is written, durably, and is now in this state.
    Done(Tag),
    /// It was no longer in the expected state; nothing is written, or, where the store repeats what it was not answered,
    /// perhaps it is: whoever reads the object can tell by its `version_id`.
    Changed,
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// There is no object.
    Done,
    /// It was no longer in the expected state; nothing is removed.
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
    #[cfg(feature = "local")]
    pub(crate) fn certain(error: Error) -> Self {
        Self { error, is_in_doubt: false }
    }
}

/// The right to write, as long as it lives.
pub(crate) type Turn = Option<Box<dyn Any + Send + Sync>>;

/// A place for one object.
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// Where it is, without secrets.
    fn location(&self) -> String;

    /// Finds out whether the store can be relied on. Called before anything is made.
    async fn check(&self) -> Result<()>;

    /// Whether a turn keeps other processes out. Where it does not, [`Self::swap`] finds them out.
    fn keeps_others_out(&self) -> bool;

    /// Waits for the right to write. What is there when it returns survives a crash, whoever wrote it: what is decided from it
    /// may be acknowledged. Whoever stops waiting leaves nothing behind.
    async fn turn(&self) -> Result<Turn>;

    /// Reads the object unless it is in the state that is known.
    async fn load(&self, known: Option<&Tag>) -> Result<Loaded>;

    /// Replaces the object if it is still in the expected state (`None`: if there is none). The whole object is replaced or
    /// nothing; it is durable when this returns. If it is written and perhaps not durable, that is a failure that is in doubt, and
    /// no turn comes before it is. Where a turn keeps others out, one must be held; the write holds on to it to its end.
    async fn swap(&self, expected: Option<&Tag>, bytes: Bytes) -> Result<Swapped, Failure>;

    /// Removes the object if it is still in the expected state; that is durable when this returns. An error may leave it
    /// removed.
    async fn remove(&self, expected: &Tag) -> Result<Removal>;
}
