//! The token in the headers of a call.

use ring::digest::{SHA256, digest};
use tonic::codegen::http::HeaderMap;
use tonic::codegen::http::header::AUTHORIZATION;

use super::Unauthenticated;
use super::tokens::PREFIX;

/// The longest token, in bytes.
const LONGEST: usize = 16 * 1024;

/// What tells a token from all others.
pub(super) type Digest = [u8; 32];

/// A bearer token. It has no `Debug`, so that nothing shows it.
pub(super) struct Token<'a> {
    text: &'a str,
    digest: Digest,
}

impl<'a> Token<'a> {
    /// The one that a call has.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, Unauthenticated> {
        let refused = |why: &str| Unauthenticated::Refused(why.to_owned());
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Err(Unauthenticated::Missing) };
        // Which of several somebody else has looked at is not known.
        if values.next().is_some() {
            return Err(refused("it has several authorization headers"));
        }
        if value.len() > LONGEST {
            return Err(refused("its token is too long"));
        }
        let text = value.to_str().map_err(|_| refused("its authorization header is not text"))?;
        let mut words = text.split(' ');
        let (scheme, token) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || words.next().is_some() {
            return Err(Unauthenticated::Malformed);
        }
        Ok(Self { text: token, digest: digest_of(token) })
    }

    #[cfg_attr(not(feature = "oidc"), allow(dead_code, reason = "only signatures are looked for in it"))]
    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether it is one of a file, which is nobody else's business.
    pub(super) fn is_of_file(&self) -> bool {
        self.text.starts_with(PREFIX)
    }
}

pub(super) fn digest_of(token: &str) -> Digest {
    let digest = digest(&SHA256, token.as_bytes());
    let mut bytes = Digest::default();
    bytes.copy_from_slice(digest.as_ref());
    bytes
}
