//! Trying out whether a store does conditional writes.

use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutMode};
use uuid::Uuid;

use super::answers::{is_condition, is_unsupported};
use super::{CloudObject, State};

/// What is wrong with a store.
type Flaw = &'static str;

impl CloudObject {
    /// Tries conditional writes on an object of its own, beside the registry; `Some` says what went wrong.
    ///
    /// The object has the same name each time, so that there is never more than one where it may not be deleted. Others who
    /// start at the same moment write and delete it too. That a write is refused on a wrong condition proves that the store
    /// compares, whoever wrote; but what looks like a flaw may be the doing of others. So a flaw is only believed when it
    /// shows on an object that nobody else knows.
    ///
    /// # Errors
    /// When the store does not answer, or not to this.
    pub(super) async fn probe(&self) -> object_store::Result<Option<Flaw>> {
        match self.probe_at(&self.beside(".probe")?).await? {
            None => Ok(None),
            Some(_) => self.probe_at(&self.beside(&format!(".probe-{}", Uuid::new_v4()))?).await,
        }
    }

    async fn probe_at(&self, path: &Path) -> object_store::Result<Option<Flaw>> {
        let flaw = self.find_flaw(path).await;
        match self.place.clients.patient.delete(path).await {
            // Who was faster has deleted it.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(_) if flaw.is_err() => {}
            Err(error) => tracing::warn!(
                location = %self.place.location,
                "the object `{path}`, on which conditional writes were tried out, cannot be deleted and stays there. It \
                 harms nobody, and is used again at the next start; the right that is missing may be {}: {}",
                self.place.deletion,
                self.without_secrets(error.to_string())
            ),
        }
        flaw
    }

    async fn find_flaw(&self, path: &Path) -> object_store::Result<Option<Flaw>> {
        const UNSTEADY: Flaw = "what was just written is not there";
        let client = &*self.place.clients.patient;
        // An ETag may be made of the bytes alone: no two writes have the same ones.
        let put = |mode, which: &str| self.put(client, path, mode, format!("{which} {}", Uuid::new_v4()).into());
        let first = match put(PutMode::Create, "first").await {
            Ok(state) => match put(PutMode::Create, "second").await {
                Ok(_) => return Ok(Some("it writes over an object that must not exist (`If-None-Match` is ignored)")),
                Err(error) if is_condition(&error) => state,
                Err(error) => return Err(error),
            },
            // One that was left there. That it is not written over is what was to be found out.
            Err(error) if is_condition(&error) => match client.get(path).await {
                Ok(found) => State { e_tag: found.meta.e_tag, version: found.meta.version },
                Err(object_store::Error::NotFound { .. }) => return Ok(Some(UNSTEADY)),
                Err(error) => return Err(error),
            },
            Err(error) if is_unsupported(&error) => return Ok(Some("it refuses conditional writes")),
            Err(error) => return Err(error),
        };
        if first.e_tag.is_none() {
            return Ok(Some("it answers a write without an ETag"));
        }
        match put(PutMode::Update(first.clone().into()), "third").await {
            Ok(_) => {}
            Err(error) if is_condition(&error) || is_unsupported(&error) => {
                return Ok(Some("it refuses a write on the right condition"));
            }
            Err(object_store::Error::NotFound { .. }) => return Ok(Some(UNSTEADY)),
            Err(error) => return Err(error),
        }
        match put(PutMode::Update(first.into()), "fourth").await {
            Ok(_) => Ok(Some("it writes over an object that has changed (`If-Match` is ignored)")),
            Err(error) if is_condition(&error) => Ok(None),
            Err(object_store::Error::NotFound { .. }) => Ok(Some(UNSTEADY)),
            Err(error) => Err(error),
        }
    }
}
