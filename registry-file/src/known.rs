//! What this process knows of the file, and looking whether that is still so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Error, Result};

use crate::document::Document;
use crate::store::{Failure, Loaded, Removal, Store, Swapped, Tag, Turn};

/// A state of the file, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// `None` where there is no registry.
    pub(crate) document: Option<Document>,
    /// `None` where there is no object.
    pub(crate) tag: Option<Tag>,
    /// What stands in place of a registry that was removed.
    pub(crate) removed: Option<Document>,
}

impl Known {
    pub(crate) fn new(document: Document, tag: Tag) -> Self {
        if document.is_removed {
            Self { document: None, tag: Some(tag), removed: Some(document) }
        } else {
            Self { document: Some(document), tag: Some(tag), removed: None }
        }
    }

    /// Whether one of the last writes of the file was this one.
    pub(crate) fn was_written_as(&self, version_id: &str) -> bool {
        self.document.as_ref().or(self.removed.as_ref()).is_some_and(|document| document.was_written_as(version_id))
    }

    /// What a new registry goes on from.
    pub(crate) fn blank(&self) -> Document {
        self.removed.as_ref().map_or_else(Document::new, Document::blank)
    }
}

/// The file, and its last known state.
pub(crate) struct File {
    store: Box<dyn Store>,
    /// `None` until it was first looked at.
    known: Mutex<Option<Arc<Known>>>,
    /// Held by whoever looks, so that only one does, with the number and the result of the last look.
    looking: tokio::sync::Mutex<Option<(u64, Arc<Known>)>>,
    /// How many looks have begun.
    looks: AtomicU64,
    makes: AtomicBool,
}

impl File {
    pub(crate) fn new(store: impl Store) -> Self {
        Self {
            store: Box::new(store),
            known: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            looks: AtomicU64::new(0),
            makes: AtomicBool::new(false),
        }
    }

    pub(crate) fn location(&self) -> String {
        self.store.location()
    }

    pub(crate) fn set_mode(&self, mode: SchemaMode) {
        self.makes.store(mode == SchemaMode::Auto, Ordering::Relaxed);
    }

    /// Whether a registry that is missing is made (`schema_mode: auto`).
    pub(crate) fn makes(&self) -> bool {
        self.makes.load(Ordering::Relaxed)
    }

    pub(crate) fn missing(&self) -> Error {
        crate::missing(&self.location())
    }

    pub(crate) async fn check(&self) -> Result<()> {
        self.store.check().await
    }

    pub(crate) fn keeps_others_out(&self) -> bool {
        self.store.keeps_others_out()
    }

    pub(crate) async fn turn(&self) -> Result<Turn> {
        self.store.turn().await
    }

    pub(crate) async fn swap(&self, expected: Option<&Tag>, bytes: Bytes) -> Result<Swapped, Failure> {
        self.store.swap(expected, bytes).await
    }

    pub(crate) async fn remove(&self, expected: &Tag) -> Result<Removal> {
        self.store.remove(expected).await
    }

    /// The last known state, which others may have changed since.
    pub(crate) fn known(&self) -> Option<Arc<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a state for the one that is known.
    pub(crate) fn set_known(&self, known: Arc<Known>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    /// The state of the file at a moment after this was called. Many who ask at once share one look.
    pub(crate) async fn fresh(&self) -> Result<Arc<Known>> {
        let arrived = self.looks.load(Ordering::SeqCst);
        let mut last = self.looking.lock().await;
        if let Some((number, known)) = &*last
            && *number > arrived
        {
            // It began after this was called.
            return Ok(Arc::clone(known));
        }
        let number = self.looks.fetch_add(1, Ordering::SeqCst) + 1;
        let known = self.look().await?;
        *last = Some((number, Arc::clone(&known)));
        Ok(known)
    }

    /// Looks at the file, and reads it if it is not as it is known.
    pub(crate) async fn look(&self) -> Result<Arc<Known>> {
        let known = self.known();
        let found = match self.store.load(known.as_ref().and_then(|known| known.tag.as_ref())).await? {
            Loaded::Unchanged => return known.ok_or_else(|| Error::internal("a file that is not known is unchanged")),
            Loaded::Absent => Known::default(),
            Loaded::Changed(bytes, tag) => Known::new(self.parse(bytes).await?, tag),
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
