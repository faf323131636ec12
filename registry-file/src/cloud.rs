//! An object in an object store: written on the condition that it is still the one that was read.
//!
//! S3 and Azure compare the ETag, GCS the generation; an object that is not there yet is made on the condition that it is
//! still not. A store that takes such a write for an unconditional one loses other processes' writes without a word, so
//! that is tried out before anything is written.

#[cfg(feature = "azure")]
mod azure;
#[cfg(feature = "gcs")]
mod gcs;
#[cfg(feature = "s3")]
mod s3;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use feast_registry_core::config::{ObjectStoreConfig, RegistryUrl};
use feast_registry_core::{Deadline, Error, ErrorKind, Result};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    Attributes, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig,
    UpdateVersion,
};
use tokio::sync::OnceCell;

use crate::store::{Failure, Loaded, Removal, Store, Swapped, Tag, WriteLock, tag_of};

/// How often a request is repeated that was answered with a failure of the server, or not at all.
const RETRIES: usize = 4;

/// How long requests are repeated.
const RETRY_FOR: Duration = Duration::from_secs(20);

/// What an answer is called that does not come in time.
const ANSWER: &str = "an answer of the object store";

/// The clients of a store.
#[derive(Debug)]
struct Clients {
    /// Repeats what was not answered.
    patient: Arc<dyn ObjectStore>,
    /// Sends a request once, so that its failure tells of that request: the last of several, refused for lack of rights that
    /// were there before, would hide that the first was done.
    single: Arc<dyn ObjectStore>,
}

impl Clients {
    fn new<C: ObjectStore>(url: &RegistryUrl, build: impl Fn(RetryConfig) -> object_store::Result<C>) -> Result<Self> {
        let build = |retries| {
            let retry = RetryConfig { max_retries: retries, retry_timeout: RETRY_FOR, ..RetryConfig::default() };
            build(retry).map_err(|error| unusable(url, error))
        };
        Ok(Self { patient: Arc::new(build(RETRIES)?), single: Arc::new(build(0)?) })
    }
}

/// How a store is reached: what differs between S3, GCS and Azure.
#[derive(Debug)]
struct Place {
    clients: Clients,
    path: Path,
    /// The URL of the object.
    location: String,
    /// What each write says about the object besides its bytes.
    attributes: Attributes,
    /// Whether the store is known to do conditional writes, being the one that defined them.
    is_trusted: bool,
}

/// An object in a store.
#[derive(Debug)]
pub(crate) struct CloudObject {
    place: Place,
    allows_unconditional: bool,
    /// Whether the store does conditional writes; empty until that was tried.
    is_conditional: OnceCell<bool>,
}

/// A state of the object, as the store knows it.
#[derive(Debug, Clone)]
struct State {
    e_tag: Option<String>,
    version: Option<String>,
}

impl CloudObject {
    /// The object that a URL names.
    ///
    /// # Errors
    /// `InvalidConfig` when the URL or a setting cannot be, or when the store is not compiled in.
    pub(crate) fn open(url: &RegistryUrl, config: &ObjectStoreConfig) -> Result<Self> {
        // With two providers in one program rustls wants one to be chosen. If one has been, so be it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let place = match url.scheme() {
            #[cfg(feature = "s3")]
            "s3" | "s3a" => s3::open(url, config)?,
            #[cfg(feature = "gcs")]
            "gs" | "gcs" => gcs::open(url, config)?,
            #[cfg(feature = "azure")]
            "az" | "azure" | "abfs" | "abfss" | "https" => azure::open(url, config)?,
            _ => return Err(Error::config(format!("`{url}` is in no object store that is compiled in"))),
        };
        let allows_unconditional = config.allow_unconditional_writes;
        Ok(Self { place, allows_unconditional, is_conditional: OnceCell::new() })
    }

    fn error(&self, doing: &str, error: object_store::Error) -> Error {
        let location = &self.place.location;
        let (kind, advice) = match &error {
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                (ErrorKind::InvalidConfig, "; are the credentials right, and may they do this?")
            }
            object_store::Error::NotFound { .. } => (ErrorKind::InvalidConfig, "; does the bucket or container exist?"),
            object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
                (ErrorKind::Unsupported, "")
            }
            error if status(error) == Some(429) => (ErrorKind::Overloaded, ""),
            _ => (ErrorKind::Unavailable, ""),
        };
        Error::new(kind, format!("the registry {location} cannot be {doing}: {error}{advice}")).with_source(error)
    }

    async fn put(
        &self,
        client: &dyn ObjectStore,
        path: &Path,
        mode: PutMode,
        bytes: Bytes,
    ) -> object_store::Result<State> {
        let options = PutOptions { mode, attributes: self.place.attributes.clone(), ..PutOptions::default() };
        let put = client.put_opts(path, PutPayload::from_bytes(bytes), options).await?;
        Ok(State { e_tag: put.e_tag, version: put.version })
    }

    /// Whether the store does conditional writes.
    ///
    /// # Errors
    /// `Unsupported` when it does not, unless that is allowed.
    async fn conditional(&self) -> Result<bool> {
        let conditional = self.is_conditional.get_or_try_init(|| async {
            if self.place.is_trusted {
                return Ok(true);
            }
            match self.probe().await {
                Ok(None) => Ok(true),
                Ok(Some(flaw)) if self.allows_unconditional => {
                    tracing::warn!(location = %self.place.location, flaw, "writes of other processes may get lost");
                    Ok(false)
                }
                Ok(Some(flaw)) => Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the store of {} cannot keep a registry that more than one process writes: {flaw}. Where only \
                         one does, `allow_unconditional_writes: true` says so",
                        self.place.location
                    ),
                )),
                Err(error) => Err(self.error("checked for conditional writes", error)),
            }
        });
        conditional.await.copied()
    }

    /// Tries conditional writes on an object of its own, beside the registry; `Some` says what went wrong.
    async fn probe(&self) -> object_store::Result<Option<&'static str>> {
        let path = Path::parse(format!("{}.probe-{}", self.place.path, uuid::Uuid::new_v4()))?;
        let flaw = self.find_flaw(&path).await;
        // What is left of a probe harms nobody.
        if let Err(error) = self.place.clients.patient.delete(&path).await {
            tracing::debug!(%error, "the probe was not removed");
        }
        flaw
    }

    async fn find_flaw(&self, path: &Path) -> object_store::Result<Option<&'static str>> {
        let put = |mode, text: &'static str| {
            self.put(&*self.place.clients.patient, path, mode, Bytes::from_static(text.as_bytes()))
        };
        let first = match put(PutMode::Create, "first").await {
            Ok(state) => state,
            Err(error) if is_unsupported(&error) => return Ok(Some("it refuses conditional writes")),
            Err(error) => return Err(error),
        };
        match put(PutMode::Create, "second").await {
            Ok(_) => return Ok(Some("it writes over an object that must not exist (`If-None-Match` is ignored)")),
            Err(error) if is_condition(&error) => {}
            Err(error) => return Err(error),
        }
        if first.e_tag.is_none() {
            return Ok(Some("it answers a write without an ETag"));
        }
        let replaced = put(PutMode::Update(first.clone().into()), "third").await;
        if let Err(error) = replaced {
            let is_refused = is_condition(&error) || is_unsupported(&error);
            return if is_refused { Ok(Some("it refuses a write on the right condition")) } else { Err(error) };
        }
        match put(PutMode::Update(first.into()), "fourth").await {
            Ok(_) => Ok(Some("it writes over an object that has changed (`If-Match` is ignored)")),
            Err(error) if is_condition(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn load_now(&self, known: Option<&State>) -> Result<Loaded> {
        let known = known.and_then(|state| state.e_tag.clone());
        let options = GetOptions { if_none_match: known, ..GetOptions::default() };
        match self.place.clients.patient.get_opts(&self.place.path, options).await {
            Ok(found) => {
                let state = State { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
                let bytes = found.bytes().await.map_err(|error| self.error("read", error))?;
                Ok(Loaded::Changed(bytes, Arc::new(state)))
            }
            Err(object_store::Error::NotModified { .. }) => Ok(Loaded::Unchanged),
            Err(object_store::Error::NotFound { .. }) => Ok(Loaded::Absent(None)),
            Err(error) => Err(self.error("read", error)),
        }
    }

    /// On what condition a write is to be done; `None` when it is already seen not to hold.
    async fn condition(&self, expected: Option<State>) -> Result<Option<PutMode>> {
        if self.conditional().await? {
            return Ok(Some(expected.map_or(PutMode::Create, |state| PutMode::Update(state.into()))));
        }
        Ok(match self.load_now(expected.as_ref()).await? {
            Loaded::Unchanged => Some(PutMode::Overwrite),
            Loaded::Absent(_) if expected.is_none() => Some(PutMode::Overwrite),
            _ => None,
        })
    }
}

impl From<State> for UpdateVersion {
    fn from(state: State) -> Self {
        Self { e_tag: state.e_tag, version: state.version }
    }
}

/// The status that a request was answered with. The client says it in words only, after a URL, which has no spaces: see
/// `a_write_that_the_store_refuses_is_not_in_doubt`.
fn status(error: &object_store::Error) -> Option<u16> {
    let text = error.to_string();
    text.split_once(" status code: ")?.1.get(..3)?.parse().ok()
}

/// Whether a request that was sent once was certainly not carried out: it found no connection, or the store says that it is
/// not going to.
fn is_refused(error: &object_store::Error) -> bool {
    match status(error) {
        // 408 is an answer to a request that has come too slowly, in part or whole.
        Some(status) => (400..500).contains(&status) && status != 408,
        None => std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source())
            .find_map(|cause| cause.downcast_ref::<HttpError>())
            .is_some_and(|error| error.kind() == HttpErrorKind::Connect),
    }
}

fn is_condition(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
}

fn is_unsupported(error: &object_store::Error) -> bool {
    // What comes before is the URL, in which there may be anything.
    let names_it =
        || error.to_string().split_once(" status code: ").is_some_and(|(_, said)| said.contains("NotImplemented"));
    matches!(error, object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. })
        // Stores answer this to a header that they do not implement.
        || status(error) == Some(501)
        || names_it()
}

/// The key of an object, as it stands in the URL.
fn key(url: &RegistryUrl, text: Option<&str>) -> Result<Path> {
    match text.map(Path::parse) {
        Some(Ok(path)) if path != Path::ROOT => Ok(path),
        Some(Err(error)) => Err(Error::config(format!("`{url}` does not name an object: {error}"))),
        _ => Err(Error::config(format!("`{url}` names no object; its path is missing, as in `…/registry.db`"))),
    }
}

fn unusable(url: &RegistryUrl, error: object_store::Error) -> Error {
    Error::config(format!("the store of `{url}` cannot be used: {error}")).with_source(error)
}

#[async_trait]
impl Store for CloudObject {
    fn location(&self) -> String {
        self.place.location.clone()
    }

    fn unkept(&self) -> Vec<String> {
        let is_unconditional = self.is_conditional.get() == Some(&false);
        let promise = "a write may undo another one, or be done twice: this store does not do conditional writes, and \
                       `allow_unconditional_writes` has them done all the same";
        is_unconditional.then(|| promise.to_owned()).into_iter().collect()
    }

    async fn check(&self, deadline: &Deadline) -> Result<()> {
        deadline.wait_for(ANSWER, self.conditional()).await?.map(drop)
    }

    fn keeps_others_out(&self) -> bool {
        false
    }

    async fn lock(&self, _: &Deadline) -> Result<WriteLock> {
        Ok(None)
    }

    async fn load(&self, known: Option<&Tag>, deadline: &Deadline) -> Result<Loaded> {
        deadline.wait_for(ANSWER, self.load_now(known.and_then(tag_of))).await?
    }

    /// What is given up in the middle may be done, or may still be: that is for whoever looks to find out.
    async fn swap(&self, expected: Option<&Tag>, bytes: Bytes, deadline: &Deadline) -> Result<Swapped, Failure> {
        let condition = self.condition(expected.and_then(tag_of).cloned());
        let condition = deadline.wait_for(ANSWER, condition).await.flatten().map_err(Failure::certain)?;
        let Some(mode) = condition else { return Ok(Swapped::Changed) };
        let put = deadline.wait_for(ANSWER, self.put(&*self.place.clients.single, &self.place.path, mode, bytes)).await;
        match put.map_err(|error| Failure { error, is_in_doubt: true })? {
            Ok(state) => Ok(Swapped::Done(Arc::new(state))),
            // An earlier attempt at this write may be what it has met.
            Err(error) if is_condition(&error) => Ok(Swapped::ChangedOrDone),
            Err(error) => {
                let is_refused = is_refused(&error);
                let error = self.error("written", error);
                Err(Failure { is_in_doubt: error.is_retryable() && !is_refused, error })
            }
        }
    }

    /// A deletion cannot be made conditional everywhere.
    async fn remove(&self, _: &Tag, _: Bytes) -> Result<Removal> {
        Ok(Removal::Impossible)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    /// Fault: the name of a probe is random, and with «501» in it any failure was taken for a store without conditions.
    #[test]
    fn what_a_store_refuses_is_told_by_its_answer_and_not_by_the_url() {
        let failed = "Error performing PUT http://127.0.0.1:5010/NotImplemented/registry.db.probe-a501b in 1ms";
        for (said, is_so) in [
            (" - HTTP error: error sending request", false),
            (" - Server returned non-2xx status code: 503 Service Unavailable: 501", false),
            (" - Server returned non-2xx status code: 501 Not Implemented: ", true),
            (" - Server returned non-2xx status code: 400 Bad Request: <Code>NotImplemented</Code>", true),
        ] {
            assert_eq!(is_unsupported(&error(&format!("{failed}{said}"))), is_so, "{said}");
        }
    }
}
