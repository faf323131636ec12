//! Trying out whether a store does conditional writes.

use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutMode};
use uuid::Uuid;

use super::answers::{is_condition, is_strange, is_unsupported};
use super::{Place, State};

/// What the key of the probe has after that of the registry.
const SUFFIX: &str = ".feast-registry-probe";

/// What a probe begins with. Only an object that does is written over, and deleted.
const MARK: &str = "A probe of conditional writes by a Feast registry server; it may be deleted. ";

/// The most bytes that a probe has.
const BYTES: u64 = 1024;

/// How often the probe that all share is tried, if others seem to be in the way.
const TRIES: u64 = 5;

/// What is wrong with a store.
pub(super) type Flaw = &'static str;

const UNSTEADY: Flaw = "what was just written is not there";

/// What is at the key of a probe.
enum Found {
    Nothing,
    /// One that was left there, or that somebody else tries just now.
    Probe(State),
    /// Something that is not for us to touch.
    Other,
    /// It may not be looked at. That is also what S3 says of an object that is not there, to who may not list the bucket.
    Hidden(object_store::Error),
}

impl Place {
    /// Tries conditional writes on an object of its own, beside the registry; `Some` says what went wrong.
    ///
    /// The object has the same name each time, so that there is never more than one where it may not be deleted. Others who
    /// start at the same moment write and delete it too. That a write is refused on a wrong condition proves that the store
    /// compares, whoever wrote; but what looks like a flaw may be the doing of others. So it is tried again after a while, and
    /// a flaw is only believed when it shows on an object that nobody else knows (`own`). So it is, too, where the name is taken,
    /// or may be: see `what_may_not_be_looked_at_is_not_touched`.
    ///
    /// # Errors
    /// When the store does not answer, or not to this.
    pub(super) async fn probe(&self, own: Uuid) -> object_store::Result<Option<Flaw>> {
        let shared = self.beside(SUFFIX)?;
        let mut is_hidden = false;
        for attempt in 0..TRIES {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=60 * attempt))).await;
            let left = match self.look_at(&shared).await? {
                Found::Nothing => None,
                Found::Probe(state) => Some(state),
                Found::Other => break,
                Found::Hidden(_) => {
                    is_hidden = true;
                    break;
                }
            };
            let (flaw, is_ours) = self.find_flaw(&shared, left).await;
            if is_ours {
                self.delete_probe(&shared, "It is used again at the next start").await;
            }
            if flaw?.is_none() {
                return Ok(None);
            }
        }
        let own = self.beside(&format!("{SUFFIX}-{own}"))?;
        // This process may have had to leave it there, and uses it again.
        let left = match self.look_at(&own).await? {
            Found::Probe(state) => Some(state),
            Found::Nothing | Found::Hidden(_) | Found::Other => None,
        };
        let (flaw, _) = self.find_flaw(&own, left).await;
        let what_becomes = if is_hidden {
            "No other process uses it again: delete it. There would be one for all if `…-probe` could be looked for, which takes \
             the right to read it and to list the bucket"
        } else {
            "No other process uses it again: delete it"
        };
        self.delete_probe(&own, what_becomes).await;
        flaw
    }

    async fn delete_probe(&self, path: &Path, what_becomes: &str) {
        match self.clients.patient.delete(path).await {
            // Who was faster has deleted it.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(
                location = %self.location,
                "the object `{path}`, on which conditional writes were tried out, cannot be deleted and stays there. It \
                 harms nobody. {what_becomes}; the right that is missing may be {}: {}",
                self.deletion,
                self.without_secrets(error.to_string())
            ),
        }
    }

    async fn look_at(&self, path: &Path) -> object_store::Result<Found> {
        match self.clients.patient.get(path).await {
            Ok(found) if found.meta.size > BYTES => Ok(Found::Other),
            Ok(found) => {
                let state = State { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
                let is_probe = found.bytes().await?.starts_with(MARK.as_bytes());
                Ok(if is_probe { Found::Probe(state) } else { Found::Other })
            }
            Err(error) if is_strange(&error) => Err(error),
            Err(object_store::Error::NotFound { .. }) => Ok(Found::Nothing),
            Err(error @ object_store::Error::PermissionDenied { .. }) => Ok(Found::Hidden(error)),
            Err(error) => Err(error),
        }
    }

    /// Tries the writes at a key where there is nothing, or a probe that was left there; and says whether there is one now.
    async fn find_flaw(&self, path: &Path, left: Option<State>) -> (object_store::Result<Option<Flaw>>, bool) {
        let first = match left {
            Some(left) => left,
            None => match self.put_probe(path, PutMode::Create).await {
                Ok(made) => made,
                // Somebody was faster; or it was made, but the answer was lost.
                Err(error) if is_condition(&error) => match self.look_at(path).await {
                    Ok(Found::Probe(state)) => state,
                    Ok(Found::Hidden(error)) => return (Err(error), false),
                    Ok(Found::Nothing | Found::Other) => return (Ok(Some(UNSTEADY)), false),
                    Err(error) => return (Err(error), false),
                },
                Err(error) if is_unsupported(&error) => return (Ok(Some("it refuses conditional writes")), false),
                Err(error) => return (Err(error), false),
            },
        };
        (self.find_flaw_of(path, first).await, true)
    }

    async fn find_flaw_of(&self, path: &Path, first: State) -> object_store::Result<Option<Flaw>> {
        match self.put_probe(path, PutMode::Create).await {
            Ok(_) => return Ok(Some("it writes over an object that must not exist (`If-None-Match` is ignored)")),
            Err(error) if is_condition(&error) => {}
            Err(error) if is_unsupported(&error) => return Ok(Some("it refuses conditional writes")),
            Err(error) => return Err(error),
        }
        if first.e_tag.is_none() {
            return Ok(Some("it answers a write without an ETag"));
        }
        match self.put_probe(path, PutMode::Update(first.clone().into())).await {
            Ok(_) => {}
            Err(error) if is_condition(&error) || is_unsupported(&error) => {
                return Ok(Some("it refuses a write on the right condition"));
            }
            Err(object_store::Error::NotFound { .. }) => return Ok(Some(UNSTEADY)),
            Err(error) => return Err(error),
        }
        match self.put_probe(path, PutMode::Update(first.into())).await {
            Ok(_) => Ok(Some("it writes over an object that has changed (`If-Match` is ignored)")),
            Err(error) if is_condition(&error) => Ok(None),
            Err(object_store::Error::NotFound { .. }) => Ok(Some(UNSTEADY)),
            Err(error) => Err(error),
        }
    }

    /// An ETag may be made of the bytes alone: no two writes have the same ones.
    async fn put_probe(&self, path: &Path, mode: PutMode) -> object_store::Result<State> {
        self.put(&*self.clients.patient, path, mode, format!("{MARK}{}", Uuid::new_v4()).into()).await
    }
}
