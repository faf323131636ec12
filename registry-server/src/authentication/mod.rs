//! Who makes a call: from the bearer token that comes with it to an identity.
//!
//! A token is one of a file (`frt_…`), the server's own (signed with a secret that its parts share), of an identity provider, or of a
//! Kubernetes cluster. What
//! was verified is remembered for a while by the token's digest, so that a caller costs little; tokens themselves are kept nowhere, and
//! nothing here logs one.

mod bearer;
#[cfg(feature = "oidc")]
mod claims;
#[cfg(feature = "oidc")]
mod http;
#[cfg(feature = "oidc")]
mod internal;
#[cfg(feature = "oidc")]
mod kubernetes;
#[cfg(feature = "oidc")]
mod oidc;
mod remembered;
#[cfg(feature = "oidc")]
mod signatures;
#[cfg(test)]
mod tests;
mod tokens;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "oidc")]
use std::time::Duration;
use std::time::SystemTime;

use feast_registry_core::access::Identity;
use feast_registry_core::{Error, ErrorKind, Result};
use tonic::Status;
use tonic::codegen::http::HeaderMap;

use bearer::Token;
#[cfg(feature = "oidc")]
use feast_registry_core::config::{KubernetesConfig, OidcConfig};
#[cfg(feature = "oidc")]
use internal::Internal;
#[cfg(feature = "oidc")]
use kubernetes::Kubernetes;
#[cfg(feature = "oidc")]
use oidc::Oidc;
use remembered::Remembered;
use tokens::Tokens;

pub use tokens::{PREFIX as TOKEN_PREFIX, TokenEntry, new_token};

/// For how long a token of an identity provider is not verified again: so long one counts that the provider's keys no longer verify.
#[cfg(feature = "oidc")]
const VERIFIED_FOR: Duration = Duration::from_secs(60);

/// How callers say who they are. Cloning gives another handle on the same.
#[derive(Clone)]
pub struct Authentication {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    tokens: Option<Tokens>,
    #[cfg(feature = "oidc")]
    oidc: Option<Oidc>,
    #[cfg(feature = "oidc")]
    kubernetes: Option<Kubernetes>,
    #[cfg(feature = "oidc")]
    internal: Option<Internal>,
    #[cfg_attr(not(feature = "oidc"), allow(dead_code))]
    remembered: Remembered,
}

/// What to build an [`Authentication`] of. Without any of it, nobody is let in but by a certificate.
#[derive(Default)]
#[must_use]
pub struct AuthenticationBuilder {
    inner: Inner,
}

/// Somebody who has said who they are.
#[derive(Debug, Clone)]
pub(crate) struct Authenticated {
    /// The same each time for the same token, as long as it says the same.
    pub(crate) identity: Arc<Identity>,
    /// It is another part of the same installation, which may do everything.
    pub(crate) is_internal: bool,
    /// By what, as the audit log names it.
    pub(crate) method: &'static str,
    /// When the token is good no longer.
    pub(crate) until: Option<SystemTime>,
}

/// Why it is not known who calls. Its text is for the log; clients are told less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unauthenticated {
    /// There is no token.
    Missing,
    /// What there is is no bearer token.
    Malformed,
    /// The token is no good, for this reason.
    Refused(String),
    /// It cannot be found out now, for this reason.
    #[cfg_attr(not(feature = "oidc"), allow(dead_code, reason = "only an identity provider can be away"))]
    Unavailable(String),
}

impl Authentication {
    /// Begins to build one.
    pub fn builder() -> AuthenticationBuilder {
        AuthenticationBuilder::default()
    }

    /// Whether this process runs in the Kubernetes cluster of these settings, as one of its service accounts.
    #[cfg(feature = "oidc")]
    pub fn is_in_cluster(config: &KubernetesConfig) -> bool {
        kubernetes::is_there(config)
    }

    /// Who calls with these headers. Waits for nobody if the token was verified a moment ago. Cancel-safe.
    pub(crate) async fn identify(&self, headers: &HeaderMap) -> Result<Authenticated, Unauthenticated> {
        let token = Token::of(headers)?;
        if token.is_of_file() {
            return match &self.inner.tokens {
                Some(tokens) => tokens.identify(&token, SystemTime::now()),
                None => {
                    Err(Unauthenticated::Refused("the token is one of a file, and this server has none".to_owned()))
                }
            };
        }
        self.identify_signed(&token).await
    }

    #[cfg(feature = "oidc")]
    async fn identify_signed(&self, token: &Token<'_>) -> Result<Authenticated, Unauthenticated> {
        let now = SystemTime::now();
        if let Some(known) = self.inner.remembered.get(token.digest(), now) {
            return Ok(known);
        }
        let Inner { oidc, kubernetes, internal, remembered, .. } = &*self.inner;
        let text = token.text();
        let algorithm = signatures::algorithm_of(text);
        if let (Some(internal), Ok(algorithm)) = (internal, &algorithm)
            && signatures::is_symmetric(*algorithm)
        {
            let verified = internal.verify(text, now)?;
            return Ok(remembered.put(token.digest(), verified, now + VERIFIED_FOR));
        }
        if let Some(kubernetes) = kubernetes
            && (oidc.is_none() || Kubernetes::has_issued(text))
        {
            let refusal = || remembered.refusal(token.digest(), SystemTime::now());
            if let Some(refused) = refusal() {
                return Err(refused);
            }
            let _turn = kubernetes.turn(remembered.was_known(token.digest())).await?;
            // Another call with the same may have had it reviewed meanwhile.
            if let Some(known) = remembered.get(token.digest(), SystemTime::now()) {
                return Ok(known);
            }
            if let Some(refused) = refusal() {
                return Err(refused);
            }
            let reviewed = kubernetes.review(text).await;
            let until = SystemTime::now() + kubernetes::REVIEWED_FOR;
            return match reviewed {
                Ok(reviewed) => Ok(remembered.put(token.digest(), reviewed, until)),
                Err(refused) => Err(remembered.put_refusal(token.digest(), refused, until)),
            };
        }
        let Some(oidc) = oidc else {
            return Err(Unauthenticated::Refused("no token of this kind is taken here".to_owned()));
        };
        let verified = oidc.verify(text, algorithm?).await?;
        Ok(remembered.put(token.digest(), verified, now + VERIFIED_FOR))
    }

    #[cfg(not(feature = "oidc"))]
    async fn identify_signed(&self, _: &Token<'_>) -> Result<Authenticated, Unauthenticated> {
        Err(Unauthenticated::Refused("no token of this kind is taken here".to_owned()))
    }

    /// Reads the file of tokens anew, if there is one, unless it has not changed. A file that cannot be read or understood leaves
    /// things as they were. Blocks for a moment.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the file, the line and what is wrong.
    pub fn reload(&self) -> Result<()> {
        self.inner.tokens.as_ref().map_or(Ok(()), |tokens| tokens.reload().map(drop))
    }

    /// Looks every few seconds whether the file of tokens has changed, until this is dropped. Has nothing to do without one.
    pub async fn follow_files(self) {
        while self.inner.tokens.is_some() {
            tokio::time::sleep(tokens::LOOKS_EVERY).await;
            let this = self.clone();
            // A disk that does not answer must not hold up calls.
            let read =
                tokio::task::spawn_blocking(move || this.inner.tokens.as_ref().map_or(Ok(false), Tokens::reload));
            match read.await {
                Ok(Ok(true)) => self.inner.tokens.iter().for_each(Tokens::tell),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::error!(%error, "the previous tokens stay in force"),
                Err(error) => tracing::error!(%error, "reading the tokens anew has failed"),
            }
        }
    }
}

impl AuthenticationBuilder {
    /// Takes the tokens of a file.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the file, the line and what is wrong.
    pub fn tokens(mut self, path: &Path) -> Result<Self> {
        self.inner.tokens = Some(Tokens::open(path)?);
        Ok(self)
    }

    /// Takes the tokens of an identity provider. Nothing is asked of it yet.
    ///
    /// # Errors
    /// `InvalidConfig` when the settings cannot be.
    #[cfg(feature = "oidc")]
    pub fn oidc(mut self, config: OidcConfig) -> Result<Self> {
        self.inner.oidc = Some(Oidc::new(config)?);
        Ok(self)
    }

    /// Takes the tokens that a Kubernetes cluster knows; beside [`oidc`](Self::oidc), those that say that they are of one. Nothing is asked
    /// of it yet. Blocks for a moment.
    ///
    /// What roles callers have is asked of the cluster too, unless an identity provider says that.
    ///
    /// # Errors
    /// `InvalidConfig` when there is no cluster, or the server's own account cannot be read.
    #[cfg(feature = "oidc")]
    pub fn kubernetes(mut self, config: &KubernetesConfig) -> Result<Self> {
        self.inner.kubernetes = Some(Kubernetes::new(config, self.inner.oidc.is_none())?);
        Ok(self)
    }

    /// Takes tokens that are signed (HS256) with this secret as those of the installation's other parts, which may do everything
    /// (Feast: `INTRA_COMMUNICATION_BASE64`).
    ///
    /// # Errors
    /// `InvalidConfig` for a secret that is publicly known, or too short to be one.
    #[cfg(feature = "oidc")]
    pub fn internal_secret(mut self, secret: &str) -> Result<Self> {
        self.inner.internal = Some(Internal::new(secret)?);
        Ok(self)
    }

    /// All of it.
    pub fn build(self) -> Authentication {
        Authentication { inner: Arc::new(self.inner) }
    }
}

impl Unauthenticated {
    /// What the client is told. Why its token is no good is for the log alone: it would help whoever tries others.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Missing => Status::unauthenticated("the call has no bearer token; nothing was done"),
            Self::Malformed => {
                Status::unauthenticated("the header must be `Authorization: Bearer TOKEN`; nothing was done")
            }
            Self::Refused(_) => Status::unauthenticated("the bearer token is invalid or has expired; nothing was done"),
            Self::Unavailable(_) => {
                Status::unavailable("the bearer token cannot be verified now; nothing was done: try again later")
            }
        }
    }
}

impl fmt::Display for Unauthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it has no bearer token"),
            Self::Malformed => f.write_str("its authorization header is not `Bearer` and a token"),
            Self::Refused(why) => f.write_str(why),
            Self::Unavailable(why) => write!(f, "its token cannot be verified now: {why}"),
        }
    }
}

impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication").finish_non_exhaustive()
    }
}

impl fmt::Debug for AuthenticationBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticationBuilder").finish_non_exhaustive()
    }
}

/// That a setting cannot be.
fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidConfig, text.into())
}
