//! The registry's file: its last known state, and looking whether that is still so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Deadline, Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::copy_of;
use crate::document::Document;
use crate::journal::Journal;
use crate::store::{Failure, Loaded, Removal, Store, Swapped, Tag, WriteLock};

/// How long a look goes on at the least, however soon those leave who wait for it: a large file takes its time, and who
/// comes later must not have to begin anew.
const LOOK_FOR: Duration = Duration::from_secs(10);

/// A state of the file, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// `None` where there is no registry.
    pub(crate) document: Option<Document>,
    /// `None` where there is no object.
    pub(crate) tag: Option<Tag>,
    /// What is left of a registry that was removed.
    removed: Option<Document>,
    /// The bytes of that, where they are not those of the object.
    left: Option<Bytes>,
}

impl Snapshot {
    pub(crate) fn new(document: Document, tag: Tag) -> Self {
        if document.is_removed {
            Self { tag: Some(tag), removed: Some(document), ..Self::default() }
        } else {
            Self { document: Some(document), tag: Some(tag), ..Self::default() }
        }
    }

    /// That there is no object. What is left of an earlier one is only believed if it is whole.
    pub(crate) fn absent(left: Option<Bytes>) -> Self {
        let removed = left.as_ref().and_then(|left| Document::parse(left).ok()).filter(|document| document.is_removed);
        Self { removed, left, ..Self::default() }
    }

    /// What a new registry goes on from.
    pub(crate) fn blank(&self) -> Document {
        self.removed.as_ref().map_or_else(Document::new, Document::blank)
    }

    /// Whether the registry was removed with its last project, and its journal is left.
    pub(crate) fn is_removed(&self) -> bool {
        self.document.is_none() && self.removed.is_some()
    }

    pub(crate) fn journal(&self) -> Arc<Journal> {
        self.content().map(|document| Arc::clone(&document.journal)).unwrap_or_default()
    }

    /// Whether the object is in the same state in both: then a write that expects the one may still be done on the other.
    pub(crate) fn is_same_state(&self, other: &Self) -> bool {
        match (&self.tag, &other.tag) {
            (None, None) => true,
            (Some(_), Some(_)) => self.content().zip(other.content()).is_some_and(|(one, two)| one.is_same_state(two)),
            _ => false,
        }
    }

    fn content(&self) -> Option<&Document> {
        self.document.as_ref().or(self.removed.as_ref())
    }
}

/// The file, and its last known state.
#[derive(Debug)]
pub(crate) struct File {
    store: Box<dyn Store>,
    mode: SchemaMode,
    /// `None` until it was first looked at.
    known: Mutex<Option<Arc<Snapshot>>>,
    looks: Mutex<LoadQueue>,
}

/// Who waits for a look.
#[derive(Debug, Default)]
struct LoadQueue {
    waiting: Vec<(Deadline, oneshot::Sender<Result<Arc<Snapshot>>>)>,
    /// Whether a task is at work that will see who is added.
    is_served: bool,
}

impl File {
    pub(crate) fn new(store: impl Store, mode: SchemaMode) -> Self {
        Self { store: Box::new(store), mode, known: Mutex::default(), looks: Mutex::default() }
    }

    pub(crate) fn location(&self) -> String {
        self.store.location()
    }

    pub(crate) fn mode(&self) -> SchemaMode {
        self.mode
    }

    /// Whether a registry that is missing is made.
    pub(crate) fn makes(&self) -> bool {
        self.mode == SchemaMode::Auto
    }

    pub(crate) fn missing(&self) -> Error {
        let location = self.location();
        Error::new(
            ErrorKind::SchemaMissing,
            format!("there is no registry at {location}; `feast apply`, or `schema_mode: auto`, makes it"),
        )
    }

    pub(crate) fn unkept(&self) -> Vec<String> {
        self.store.unkept()
    }

    pub(crate) async fn check(&self, deadline: &Deadline) -> Result<()> {
        self.store.check(deadline).await
    }

    pub(crate) fn keeps_others_out(&self) -> bool {
        self.store.keeps_others_out()
    }

    pub(crate) async fn lock(&self, deadline: &Deadline) -> Result<WriteLock> {
        self.store.lock(deadline).await
    }

    pub(crate) async fn swap(
        &self,
        expected: Option<&Tag>,
        bytes: Bytes,
        deadline: &Deadline,
    ) -> Result<Swapped, Failure> {
        self.store.swap(expected, bytes, deadline).await
    }

    pub(crate) async fn remove(&self, expected: &Tag, left: Bytes) -> Result<Removal> {
        self.store.remove(expected, left).await
    }

    /// The last known state, which others may have changed since.
    pub(crate) fn known(&self) -> Option<Arc<Snapshot>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a state for the one that is known.
    pub(crate) fn set_known(&self, known: Arc<Snapshot>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    #[cfg(test)]
    pub(crate) fn looks_waiting(&self) -> usize {
        self.looks().waiting.len()
    }

    fn looks(&self) -> MutexGuard<'_, LoadQueue> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the file at a moment after this was called. One look at a time, which all who ask before it begins
    /// share; it is a task of its own, so that whoever leaves neither ends it for the others nor has it begun anew.
    pub(crate) async fn fresh(self: &Arc<Self>, deadline: &Deadline) -> Result<Arc<Snapshot>> {
        let what = format!("a look at the registry {}", self.location());
        deadline.check(&what)?;
        let (sender, answer) = oneshot::channel();
        let is_served = {
            let mut looks = self.looks();
            looks.waiting.push((deadline.clone(), sender));
            std::mem::replace(&mut looks.is_served, true)
        };
        if !is_served {
            let served = LoadQueueGuard(Some(Arc::clone(self)));
            tokio::spawn(served.serve());
        }
        let answer = deadline.wait_for(&what, answer).await?;
        answer.map_err(|_| Error::new(ErrorKind::Unavailable, format!("{what} was aborted")))?
    }

    /// Looks at the file, and reads it if it is not as it is known.
    pub(crate) async fn look(&self, deadline: &Deadline) -> Result<Arc<Snapshot>> {
        let known = self.known();
        let found = match self.store.load(known.as_ref().and_then(|known| known.tag.as_ref()), deadline).await? {
            Loaded::Unchanged => return known.ok_or_else(|| Error::internal("a file that is not known is unchanged")),
            Loaded::Absent(left) => match known {
                Some(known) if known.tag.is_none() && known.left == left => return Ok(known),
                _ => Snapshot::absent(left),
            },
            Loaded::Changed(bytes, tag) => Snapshot::new(self.parse(bytes).await?, tag),
        };
        let found = Arc::new(found);
        let mut current = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // What a writer of this process has done meanwhile is newer than what was read.
        if current.as_ref().map(Arc::as_ptr) == known.as_ref().map(Arc::as_ptr) {
            *current = Some(Arc::clone(&found));
        }
        Ok(found)
    }

    /// Takes in the bytes of a file.
    pub(crate) async fn parse(&self, bytes: Bytes) -> Result<Document> {
        let parsed = tokio::task::spawn_blocking(move || Document::parse(&bytes)).await;
        let parsed =
            parsed.map_err(|error| Error::internal("the reading of a registry was aborted").with_source(error))?;
        parsed.map_err(|error| {
            let text =
                format!("what is at {} is not a registry of Feast, and is left as it is: {error}", self.location());
            Error::new(error.kind(), text).with_source(error)
        })
    }
}

/// That a task looks for those who wait. If it is dropped half way (its runtime ends), the next one who asks starts another.
struct LoadQueueGuard(Option<Arc<File>>);

impl LoadQueueGuard {
    async fn serve(mut self) {
        while let Some(file) = &self.0 {
            let waiting = {
                let mut looks = file.looks();
                looks.waiting.retain(|(_, waiting)| !waiting.is_closed());
                if looks.waiting.is_empty() {
                    looks.is_served = false;
                    break;
                }
                std::mem::take(&mut looks.waiting)
            };
            let latest = waiting.iter().map(|(deadline, _)| deadline.instant()).max();
            let at_least = Deadline::after(LOOK_FOR).instant();
            let found = file.look(&Deadline::at(latest.map_or(at_least, |latest| latest.max(at_least)))).await;
            for (_, waiting) in waiting {
                // Whoever no longer waits gets nothing.
                drop(waiting.send(found.as_ref().map(Arc::clone).map_err(copy_of)));
            }
        }
        // From the moment at which nobody waited, another task may be at work.
        self.0 = None;
    }
}

impl Drop for LoadQueueGuard {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            let mut looks = file.looks();
            looks.is_served = false;
            // Whoever waits is told.
            looks.waiting.clear();
        }
    }
}
