//! The tokens of an installation's own parts, signed with a secret that they share (Feast: `INTRA_COMMUNICATION_BASE64`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use feast_registry_core::Result;
use feast_registry_core::access::Identity;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};

use super::claims::Claims;
use super::{Authenticated, Unauthenticated, invalid, signatures};

/// The shortest secret, in bytes: what HS256 asks for (RFC 7518, 3.2).
const SHORTEST: usize = 32;
/// The name of whoever has one, which nobody else may have.
pub(super) const NAME: &str = "intra-communication";
/// For how long a token may be good.
const LONGEST: Duration = Duration::from_secs(3600);
/// What deployments publish in place of a secret: "intra-server-communication", encoded.
const PUBLIC: &str = "aW50cmEtc2VydmVyLWNvbW11bmljYXRpb24=";
/// By how much clocks may differ, in seconds.
pub(super) const LEEWAY: u64 = 10;

/// See the module's documentation.
pub(super) struct Internal {
    secret: String,
    key: DecodingKey,
}

impl Internal {
    /// Tokens that are signed with this.
    ///
    /// # Errors
    /// `InvalidConfig` for a secret that is publicly known, or too short to be one.
    pub(super) fn new(secret: &str) -> Result<Self> {
        signatures::install();
        // A file that it was read from may have ended with a line break.
        if secret.trim() == PUBLIC {
            return Err(invalid(
                "INTRA_COMMUNICATION_BASE64 is the value that charts have by default, which everybody knows",
            ));
        }
        if secret.len() < SHORTEST {
            return Err(invalid(format!(
                "INTRA_COMMUNICATION_BASE64 has {} bytes; a secret has {SHORTEST} or more, as `openssl rand -base64 32` makes them",
                secret.len()
            )));
        }
        let key = DecodingKey::from_secret(secret.as_bytes()).map_err(|error| invalid(error.to_string()))?;
        Ok(Self { secret: secret.to_owned(), key })
    }

    /// Whether a token is one of them.
    pub(super) fn verify(&self, token: &str, now: SystemTime) -> Result<Authenticated, Unauthenticated> {
        let refused = |why: String| Unauthenticated::Refused(format!("its internal token is no good: {why}"));
        let mut validation = Validation::new(Algorithm::HS256);
        (validation.leeway, validation.validate_nbf, validation.validate_aud) = (LEEWAY, true, false);
        let claims = decode::<Claims>(token, &self.key, &validation)
            .map_err(|error| refused(signatures::in_words(&error)))?
            .claims;
        let says = |claim: &str, expected: &str| claims.get(claim).and_then(|value| value.as_str()) == Some(expected);
        if !says("preferred_username", &self.secret) && !says("sub", &format!(":::{}", self.secret)) {
            return Err(refused("it does not say that it is one".to_owned()));
        }
        let until = claims.get("exp").and_then(|exp| exp.as_u64()).map(|exp| UNIX_EPOCH + Duration::from_secs(exp));
        if until.is_none_or(|until| until > now + LONGEST + Duration::from_secs(LEEWAY)) {
            return Err(refused("it is good for longer than an hour".to_owned()));
        }
        Ok(Authenticated { identity: Arc::new(Identity::new(NAME)), is_internal: true, method: "internal", until })
    }
}
