//! An object in an object store: written on the condition that it is still the one that was read.
//!
//! S3 and Azure compare the ETag, GCS the generation; an object that is not there yet is made on the condition that it is
//! still not. A store that takes such a write for an unconditional one loses other processes' writes without a word, so
//! that is tried out before anything is written.

mod answers;
#[cfg(feature = "azure")]
mod azure;
mod conditions;
#[cfg(feature = "gcs")]
mod gcs;
mod probe;
#[cfg(feature = "s3")]
mod s3;
mod secrets;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use feast_registry_core::config::{ObjectStoreConfig, RegistryUrl};
use feast_registry_core::{Deadline, Error, ErrorKind, Result};
use object_store::path::{Path, PathPart};
use object_store::{Attributes, GetOptions, ObjectStore, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion};

use self::answers::{is_condition, is_refused, is_strange, status};
use self::conditions::Conditions;
use self::secrets::{Cause, without_secrets};
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
    /// The address that was configured instead of the store's own.
    endpoint: Option<String>,
    /// Whether the store is known to do conditional writes, being the one that defined them.
    is_trusted: bool,
    /// What the store calls the right to delete an object.
    deletion: &'static str,
}

impl Place {
    fn error(&self, doing: &str, error: object_store::Error) -> Error {
        let location = &self.location;
        if is_strange(&error) {
            return self.no_store(doing, &answers::without_page(&error)).with_source(self.cause(&error));
        }
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
        let text = self.without_secrets(format!("the registry {location} cannot be {doing}: {error}{advice}"));
        Error::new(kind, text).with_source(self.cause(&error))
    }

    fn cause(&self, error: &object_store::Error) -> Cause {
        Cause::of(error, &|text| self.without_secrets(text))
    }

    /// That something else than an object store has answered.
    fn no_store(&self, doing: &str, said: &str) -> Error {
        let endpoint = match &self.endpoint {
            Some(endpoint) => format!("the endpoint `{endpoint}`"),
            None => "what is at its address".to_owned(),
        };
        Error::config(self.without_secrets(format!(
            "the registry {} cannot be {doing}: {endpoint} does not answer as an object store does ({said}); is it the address \
             of a console, of a proxy or of another service? Give that of the store's API, which often has a port of its own \
             (of MinIO the API's is 9000, and the console's 9001)",
            self.location
        )))
    }

    /// A text without the name and the password that stand in the address of the store, which its client repeats.
    fn without_secrets(&self, text: String) -> String {
        without_secrets(&text, self.endpoint.as_deref())
    }

    async fn put(
        &self,
        client: &dyn ObjectStore,
        path: &Path,
        mode: PutMode,
        bytes: Bytes,
    ) -> object_store::Result<State> {
        let options = PutOptions { mode, attributes: self.attributes.clone(), ..PutOptions::default() };
        let put = client.put_opts(path, PutPayload::from_bytes(bytes), options).await?;
        Ok(State { e_tag: put.e_tag, version: put.version })
    }

    /// The path of another object, whose key begins with that of the registry.
    fn beside(&self, suffix: &str) -> object_store::Result<Path> {
        let key = format!("{}{suffix}", self.path);
        path_of(&key).map_err(|source| object_store::path::Error::BadSegment { path: key, source }.into())
    }
}

/// An object in a store.
#[derive(Debug)]
pub(crate) struct CloudObject {
    place: Arc<Place>,
    conditions: Conditions,
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
        Ok(Self { place: Arc::new(place), conditions: Conditions::new(config.allow_unconditional_writes) })
    }

    /// Whether the store does conditional writes.
    ///
    /// # Errors
    /// `Unsupported` when it does not, unless that is allowed.
    async fn conditional(&self) -> Result<bool> {
        if self.place.is_trusted {
            return Ok(true);
        }
        match self.conditions.flaw(&self.place).await? {
            None => Ok(true),
            Some(_) if self.conditions.allows_flaw() => Ok(false),
            Some(flaw) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the store of {} cannot keep a registry that more than one process writes: {flaw}. Where only one does, \
                     `allow_unconditional_writes: true` says so",
                    self.place.location
                ),
            )),
        }
    }

    async fn load_now(&self, known: Option<&State>) -> Result<Loaded> {
        let known = known.and_then(|state| state.e_tag.clone());
        let options = GetOptions { if_none_match: known, ..GetOptions::default() };
        match self.place.clients.patient.get_opts(&self.place.path, options).await {
            Ok(found) => {
                let state = State { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
                let bytes = found.bytes().await.map_err(|error| self.place.error("read", error))?;
                if state.e_tag.is_none() && answers::is_page(&bytes) {
                    return Err(self.place.no_store("read", "it sent a web page"));
                }
                Ok(Loaded::Changed(bytes, Arc::new(state)))
            }
            Err(object_store::Error::NotModified { .. }) => Ok(Loaded::Unchanged),
            Err(error @ object_store::Error::NotFound { .. }) if !is_strange(&error) => Ok(Loaded::Absent(None)),
            Err(error) => Err(self.place.error("read", error)),
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

/// The key of an object: all that stands in the URL, to the byte, as Feast takes it. So `team//registry.db` has an empty part
/// in the middle, and is another object than `team/registry.db`.
///
/// # Errors
/// `InvalidConfig` for what the client of the store cannot ask for: no key at all, one that begins with `/`, and one with `.`,
/// `..` or control characters, which URLs change on their way.
fn key(url: &RegistryUrl, text: Option<&str>) -> Result<Path> {
    let unnamed = |problem: &str| Error::config(format!("`{url}` does not name an object: {problem}"));
    let text = text.unwrap_or_default();
    if text.is_empty() {
        return Err(Error::config(format!("`{url}` names no object; its path is missing, as in `…/registry.db`")));
    }
    if text.starts_with('/') {
        return Err(unnamed("its key begins with `/`, which cannot be asked for; copy the object to a key without it"));
    }
    path_of(text).map_err(|error| {
        unnamed(&format!("{error}, which cannot be asked for in a URL; copy the object to a key without it"))
    })
}

/// A key as the client of a store has it. Not `Path::parse`, which takes no empty parts.
fn path_of(key: &str) -> Result<Path, object_store::path::InvalidPart> {
    key.split('/').try_fold(Path::ROOT, |path, part| Ok(path.join(PathPart::parse(part)?)))
}

/// What S3 and GCS are asked for: Feast takes off all `/` that the path begins with.
#[cfg(any(feature = "s3", feature = "gcs"))]
fn key_in_bucket(url: &RegistryUrl) -> Result<Path> {
    key(url, url.database().map(|path| path.trim_start_matches('/')))
}

fn unusable(url: &RegistryUrl, error: object_store::Error) -> Error {
    let cause = Cause::of(&error, &|text| without_secrets(&text, None));
    Error::config(format!("the store of `{url}` cannot be used: {cause}")).with_source(cause)
}

#[async_trait]
impl Store for CloudObject {
    fn location(&self) -> String {
        self.place.location.clone()
    }

    fn unkept(&self) -> Vec<String> {
        let is_unconditional = self.conditions.allows_flaw() && self.conditions.known_flaw().is_some();
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
        let put =
            deadline.wait_for(ANSWER, self.place.put(&*self.place.clients.single, &self.place.path, mode, bytes)).await;
        match put.map_err(|error| Failure { error, is_in_doubt: true })? {
            Ok(state) => Ok(Swapped::Done(Arc::new(state))),
            // An earlier attempt at this write may be what it has met.
            Err(error) if is_condition(&error) => Ok(Swapped::ChangedOrDone),
            Err(error) => {
                // Something on the way may have taken from a good answer what makes it one.
                let is_unclear = is_strange(&error) && status(&error).is_none();
                let is_refused = is_refused(&error);
                let error = self.place.error("written", error);
                Err(Failure { is_in_doubt: is_unclear || error.is_retryable() && !is_refused, error })
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

    /// Fault: a key with an empty part was refused, and one that ends with `/` was taken for another.
    #[test]
    fn a_key_is_what_stands_in_the_url() {
        let url: RegistryUrl = "s3://bucket/any".parse().expect("a URL");
        for text in
            ["registry.db", "team/registry.db", "team//registry.db", "a///b//c", "team/", "a b/ü%2F", "...", "~"]
        {
            assert_eq!(key(&url, Some(text)).expect(text).as_ref(), text);
        }
        for (text, said) in [
            ("", "its path is missing"),
            ("/a", "begins with `/`"),
            ("a/../b", "copy the object"),
            ("a\nb", "copy the"),
        ] {
            let error = key(&url, Some(text)).expect_err(text).to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        assert!(key(&url, None).is_err());
    }
}
