//! What becomes of the question who calls.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use feast_registry_core::access::Identity;

/// Somebody who has shown who they are.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authenticated {
    /// Who they are. For one token it is the same, by its address, as long as nothing about them changes.
    pub identity: Arc<Identity>,
    /// Whether it is another part of the same deployment, which may do everything.
    pub is_internal: bool,
    /// By what: `token` (listed in a file), `oidc`, `kubernetes` or `internal`.
    pub method: &'static str,
    /// When the token ends, if it says so. Whether it still counts before that, only asking again tells.
    pub until: Option<SystemTime>,
}

impl Authenticated {
    pub(super) fn new(identity: Arc<Identity>, method: &'static str, until: Option<SystemTime>) -> Self {
        Self { identity, is_internal: false, method, until }
    }
}

impl fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticated")
            .field("user", &self.identity.username)
            .field("is_internal", &self.is_internal)
            .field("method", &self.method)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

/// Why it is not known who calls. Nothing of it repeats a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unauthenticated {
    is_unavailable: bool,
    why: Cow<'static, str>,
    message: &'static str,
}

impl Unauthenticated {
    fn new(is_unavailable: bool, why: impl Into<Cow<'static, str>>, message: &'static str) -> Self {
        Self { is_unavailable, why: why.into(), message }
    }

    pub(super) fn missing() -> Self {
        let message = "this registry wants to know who calls: set `auth` in feature_store.yaml to what its server has";
        Self::new(false, "there is no `authorization` header", message)
    }

    pub(super) fn bad(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(false, why, "the token is not accepted; the server's log says why")
    }

    pub(super) fn expired() -> Self {
        Self::new(false, "the token has expired", "the token has expired")
    }

    pub(super) fn unavailable(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(true, why, "the token cannot be checked now; nothing was done: try again later")
    }

    /// Whether the token cannot be checked now, and may be accepted later; else it is missing or not accepted.
    pub fn is_unavailable(&self) -> bool {
        self.is_unavailable
    }

    /// Why, for the log.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// What the client is told, which tells nothing to those who try tokens.
    pub fn message(&self) -> &'static str {
        self.message
    }

    /// What a call is answered with: `UNAUTHENTICATED`, upon which Feast's clients get a new token, or `UNAVAILABLE`.
    pub fn status(&self) -> tonic::Status {
        if self.is_unavailable {
            tonic::Status::unavailable(self.message)
        } else {
            tonic::Status::unauthenticated(self.message)
        }
    }
}

impl fmt::Display for Unauthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Unauthenticated {}

/// A text that somebody else has chosen, for the log.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
