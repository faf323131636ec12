//! Tokens of an identity provider that speaks OpenID Connect.
//!
//! Its keys are read when the first token comes, and again when they are old or a token is signed with one that is not known. One reads
//! for all, so a provider that hangs is asked once; whoever needs it waits for a bounded time, and few may wait at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use feast_registry_core::Result;
use feast_registry_core::config::OidcConfig;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation, decode, decode_header};
use reqwest::{Certificate, Client, Url};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::claims::{self, Claims};
use super::http;
use super::internal::LEEWAY;
use super::{Authenticated, Unauthenticated, invalid, signatures};

/// How many calls may wait for the provider.
const WAITING: usize = 256;
/// How often the provider is asked for a key that is not known: whoever makes names up must not make us ask.
const ASKS_EVERY: Duration = Duration::from_secs(10);
/// How soon it is asked again after it did not answer, while no token can be verified.
const ASKS_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// At which part of their lifespan keys are read anew without anybody waiting for it.
const REFRESHED_AT: f64 = 0.8;
/// How many redirections are followed.
const REDIRECTIONS: usize = 3;
/// The largest document that is read, in bytes.
const LARGEST: usize = 1024 * 1024;
/// How many keys are looked at.
const KEYS: usize = 100;
/// The shortest modulus of an RSA key, in bytes.
const SHORTEST_RSA: usize = 256;

/// An identity provider. Cloning gives another handle on the same.
#[derive(Clone)]
pub(super) struct Oidc(Arc<Provider>);

struct Provider {
    config: OidcConfig,
    discovery: Url,
    http: Client,
    state: Mutex<State>,
    /// Whoever reads the keys has it.
    reading: Arc<tokio::sync::Mutex<()>>,
    waiting: Semaphore,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<Keys>>,
    /// When they were last asked for, and why they were not had, if they were not.
    asked: Option<(Instant, Option<String>)>,
}

/// What the provider signs with.
struct Keys {
    keys: Vec<Key>,
    issuer: Option<String>,
    read: Instant,
}

struct Key {
    id: Option<String>,
    key: DecodingKey,
    kind: KeyKind,
    /// What it may sign with alone, if that is said.
    algorithm: Option<KeyAlgorithm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Oidc {
    /// A provider, of which nothing is asked yet.
    ///
    /// # Errors
    /// `InvalidConfig` when the settings cannot be.
    pub(super) fn new(config: OidcConfig) -> Result<Self> {
        signatures::install();
        // Whoever has installed another has TLS too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let discovery = Url::parse(&config.auth_discovery_url)
            .map_err(|error| invalid(format!("`auth_discovery_url` is no URL: {error}")))?;
        if !matches!(discovery.scheme(), "https" | "http") {
            return Err(invalid("`auth_discovery_url` must begin with https://"));
        }
        let mut builder = Client::builder()
            .timeout(config.jwks_request_timeout)
            .redirect(reqwest::redirect::Policy::custom(redirect))
            .user_agent(concat!("feast-registry/", env!("CARGO_PKG_VERSION")))
            .tls_danger_accept_invalid_certs(!config.verify_ssl);
        if let Some(path) = &config.ca_cert_path {
            let wrong = |error: &dyn std::fmt::Display| invalid(format!("`ca_cert_path` {}: {error}", path.display()));
            let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
            let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&error))?;
            if authorities.is_empty() {
                return Err(wrong(&"it has no certificates in PEM"));
            }
            builder = builder.tls_certs_merge(authorities);
        }
        let http =
            builder.build().map_err(|error| invalid(format!("the identity provider cannot be asked: {error}")))?;
        Ok(Self(Arc::new(Provider {
            config,
            discovery,
            http,
            state: Mutex::default(),
            reading: Arc::default(),
            waiting: Semaphore::new(WAITING),
        })))
    }

    /// Whose a token is.
    pub(super) async fn verify(&self, token: &str, algorithm: Algorithm) -> Result<Authenticated, Unauthenticated> {
        let refused = |why: &str| Unauthenticated::Refused(format!("its token is no good: {why}"));
        if !signatures::ASYMMETRIC.contains(&algorithm) {
            return Err(refused("it is signed with a secret, and the identity provider's keys are none"));
        }
        let header = decode_header(token).map_err(|error| refused(&signatures::in_words(&error)))?;
        if !header.typ.as_deref().is_none_or(is_of_caller) {
            return Err(refused("it is of another type than `JWT` and `at+jwt`"));
        }
        let id = header.kid.as_deref();
        let mut keys = self.keys().await?;
        if keys.fitting(id, algorithm).next().is_none() {
            // The provider may have a new one.
            keys = self.newer_than(&keys).await?;
        }
        let config = &self.0.config;
        let mut validation = Validation::new(algorithm);
        (validation.leeway, validation.validate_nbf) = (LEEWAY, true);
        match &config.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                validation.required_spec_claims.insert("aud".to_owned());
            }
            None => validation.validate_aud = false,
        }
        if let Some(issuer) = config.issuer.as_ref().or(keys.issuer.as_ref()) {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        let mut why = "it is signed with a key that the identity provider does not have".to_owned();
        for key in keys.fitting(id, algorithm) {
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(data) if is_from_the_future(&data.claims) => {
                    return Err(refused("its `iat` is in the future; mind the clocks"));
                }
                Ok(data) => return self.authenticated(&data.claims),
                Err(error) => why = signatures::in_words(&error),
            }
        }
        Err(refused(&why))
    }

    fn authenticated(&self, claims: &Claims) -> Result<Authenticated, Unauthenticated> {
        if claims.get("kubernetes.io").is_some_and(Value::is_object) {
            return Err(Unauthenticated::Refused("its token is of Kubernetes, which is not asked here".to_owned()));
        }
        let identity = claims::identity(claims, self.0.config.client_id.as_deref())?;
        let until = claims::end(claims);
        Ok(Authenticated { identity: Arc::new(identity), is_internal: false, method: "oidc", until })
    }

    fn held(&self) -> Option<Arc<Keys>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).keys.clone()
    }

    /// The keys, read anew before if they are too old: one that the provider has taken back must not go on letting people in because
    /// nobody has called for a while. Old ones are used while another caller reads newer ones, and while the provider does not answer,
    /// but not for ever.
    async fn keys(&self) -> Result<Arc<Keys>, Unauthenticated> {
        let lifespan = self.0.config.jwks_cache_lifespan;
        let Some(keys) = self.held() else { return self.read_after(None).await };
        let age = keys.read.elapsed();
        if age >= 2 * lifespan {
            return self.read_after(Some(&keys)).await;
        }
        let is_to_be_read =
            age >= lifespan.mul_f64(REFRESHED_AT) && self.may_ask() && self.0.reading.try_lock().is_ok();
        if is_to_be_read && age >= lifespan && !self.has_failed() {
            return self.newer_than(&keys).await;
        }
        if is_to_be_read {
            let (provider, old) = (self.clone(), Arc::clone(&keys));
            tokio::spawn(async move { drop(provider.read_after(Some(&old)).await) });
        }
        Ok(keys)
    }

    /// Whether the provider was not asked a moment ago.
    fn may_ask(&self) -> bool {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let has_keys = state.keys.as_ref().is_some_and(|keys| self.are_good(keys));
        state.asked.as_ref().is_none_or(|(at, failed)| {
            at.elapsed() >= if failed.is_some() && !has_keys { ASKS_AGAIN_AFTER } else { ASKS_EVERY }
        })
    }

    /// Whether the provider did not answer when it was last asked.
    fn has_failed(&self) -> bool {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.as_ref().is_some_and(|(_, failed)| failed.is_some())
    }

    /// Whether keys may be used, be it for want of newer ones.
    fn are_good(&self, keys: &Keys) -> bool {
        keys.read.elapsed() < 2 * self.0.config.jwks_cache_lifespan
    }

    #[cfg(test)]
    pub(super) fn may_ask_again(&self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).asked = None;
    }

    /// Newer keys than these, if the provider was not asked a moment ago.
    async fn newer_than(&self, keys: &Arc<Keys>) -> Result<Arc<Keys>, Unauthenticated> {
        match self.read_after(Some(keys)).await {
            // Those that are there go on being good.
            Err(_) if self.are_good(keys) => Ok(Arc::clone(keys)),
            read => read,
        }
    }

    /// Keys that were read after these. One caller reads, the others wait for that, and no more than a few.
    async fn read_after(&self, before: Option<&Arc<Keys>>) -> Result<Arc<Keys>, Unauthenticated> {
        let away = |why: String| Unauthenticated::Unavailable(why);
        let Ok(_waiting) = self.0.waiting.try_acquire() else {
            return Err(away(format!("{WAITING} calls wait for the identity provider already")));
        };
        let is_newer = |keys: &Arc<Keys>| before.is_none_or(|before| !Arc::ptr_eq(before, keys));
        let reading = Arc::clone(&self.0.reading).lock_owned().await;
        if let Some(keys) = self.held().filter(is_newer) {
            return Ok(keys);
        }
        if !self.may_ask() {
            let asked = self.0.state.lock().unwrap_or_else(PoisonError::into_inner).asked.clone();
            return match (asked.and_then(|(_, failed)| failed), before) {
                (Some(why), _) => Err(away(why)),
                // They are the newest that there are.
                (None, Some(before)) => Ok(Arc::clone(before)),
                (None, None) => Err(away("its keys were read and are gone".to_owned())),
            };
        }
        // In a task of its own: a caller who leaves must not have the provider asked again by the next.
        let this = self.clone();
        let read = tokio::spawn(async move {
            let _reading = reading;
            this.read_and_keep().await
        });
        read.await.unwrap_or_else(|error| Err(error.to_string())).map_err(away)
    }

    async fn read_and_keep(&self) -> Result<Arc<Keys>, String> {
        let read = tokio::time::timeout(2 * self.0.config.jwks_request_timeout, self.read()).await;
        let read = read.unwrap_or_else(|_| Err("it did not answer in time".to_owned())).map(Arc::new);
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked = Some((Instant::now(), read.as_ref().err().cloned()));
        match &read {
            Ok(keys) => state.keys = Some(Arc::clone(keys)),
            Err(why) => tracing::warn!("the identity provider's keys cannot be read: {why}"),
        }
        read
    }

    async fn read(&self) -> Result<Keys, String> {
        let discovery = self.document(self.0.discovery.clone(), "the discovery document").await?;
        let text = |key: &str| discovery.get(key).and_then(Value::as_str);
        let url = text("jwks_uri").ok_or("the discovery document has no `jwks_uri`")?;
        let url = Url::parse(url).map_err(|error| format!("its `jwks_uri` is no URL: {error}"))?;
        if url.scheme() == "http" && self.0.discovery.scheme() == "https" {
            return Err("its `jwks_uri` is without TLS".to_owned());
        }
        let issuer = text("issuer").map(str::to_owned);
        if issuer.is_none() && self.0.config.issuer.is_none() {
            tracing::warn!(
                "the discovery document names no issuer, so who has issued a token is not verified; set `issuer` in the block `auth`"
            );
        }
        let document = self.document(url, "the keys").await?;
        let listed = document.get("keys").and_then(Value::as_array).ok_or("the document of its keys has no `keys`")?;
        let keys: Vec<Key> = listed.iter().take(KEYS).filter_map(Key::of).collect();
        if keys.is_empty() {
            return Err("it has no key that tokens can be verified with".to_owned());
        }
        Ok(Keys { keys, issuer, read: Instant::now() })
    }

    async fn document(&self, url: Url, what: &str) -> Result<Value, String> {
        let asked = self.0.http.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let answered = match asked {
            Ok(response) => http::json(response, LARGEST).await,
            Err(error) => Err(http::said(error)),
        };
        answered.map_err(|why| format!("{what}: {why}"))
    }
}

impl Keys {
    /// Those that may have signed a token that says this of its key. One that names no key must be of the only one there is.
    fn fitting(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        let fits = move |key: &&Key| key.signs_with(algorithm) && id.is_none_or(|id| key.id.as_deref() == Some(id));
        let is_clear = id.is_some() || self.keys.iter().filter(fits).count() == 1;
        self.keys.iter().filter(fits).filter(move |_| is_clear)
    }
}

impl Key {
    /// A key of a set; `None` if tokens are not to be verified with it, or cannot be.
    fn of(listed: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(listed.clone()).ok()?;
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => KeyKind::Rsa,
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => KeyKind::P256,
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P384 => KeyKind::P384,
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => KeyKind::Ed25519,
            // A secret in a public document is none.
            _ => return None,
        };
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        if jwk.common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        if let DecodingKeyKind::RsaModulusExponent { n, .. } = key.kind()
            && n.iter().skip_while(|byte| **byte == 0).count() < SHORTEST_RSA
        {
            tracing::warn!(kid = jwk.common.key_id, "a key of the identity provider is too short, and is not used");
            return None;
        }
        Some(Self { id: jwk.common.key_id, key, kind, algorithm: jwk.common.key_algorithm })
    }

    fn signs_with(&self, algorithm: Algorithm) -> bool {
        let kind = match algorithm {
            Algorithm::ES256 => KeyKind::P256,
            Algorithm::ES384 => KeyKind::P384,
            Algorithm::EdDSA => KeyKind::Ed25519,
            other if other.family() == AlgorithmFamily::Rsa => KeyKind::Rsa,
            _ => return false,
        };
        let is_said = self.algorithm.as_ref().is_none_or(|said| said.to_string() == format!("{algorithm:?}"));
        self.kind == kind && is_said
    }
}

/// A redirection is followed a few times, but never away from TLS.
fn redirect(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > REDIRECTIONS {
        return attempt.error("there are too many redirections");
    }
    if attempt.url().scheme() != "https" && attempt.previous().iter().any(|url| url.scheme() == "https") {
        return attempt.error("the redirection leaves TLS");
    }
    attempt.follow()
}

/// Whether tokens of a type say who calls. A provider signs others with the same keys, which say that somebody has logged out, and
/// the like.
fn is_of_caller(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")
}

/// Whether a token was issued later than clocks may differ, or at no time. One that does not say when is none of these.
fn is_from_the_future(claims: &Claims) -> bool {
    let Some(issued) = claims.get("iat") else { return false };
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default()
        + Duration::from_secs(LEEWAY);
    issued.as_f64().is_none_or(|issued| issued > now.as_secs_f64())
}
