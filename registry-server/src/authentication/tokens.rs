//! Tokens of a file, for machines that have no identity provider.
//!
//! The file has the tokens' SHA-256 digests, which suffices since they are random: whoever reads it cannot call.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use feast_registry_core::access::Identity;
use feast_registry_core::{Result, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::bearer::{Digest, Token, digest_of};
use super::{Authenticated, Unauthenticated, invalid};

/// What tokens begin with, so that scanners of secrets find them, and nobody takes them for others.
pub const PREFIX: &str = "frt_";
/// The largest file that is read, in bytes: some ten thousand tokens.
const LARGEST: u64 = 4 << 20;
/// How often it is looked whether the file has changed.
pub(super) const LOOKS_EVERY: Duration = Duration::from_secs(2);

/// A token as a file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TokenEntry {
    /// Who has it.
    pub name: String,
    /// The roles of who has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Their groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Their namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Until when it is good (RFC 3339). Without, until it is taken out of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// The SHA-256 digest of the token, as 64 hexadecimal digits. It stands last: an entry that is cut off has none, and lets nobody in.
    pub sha256: String,
}

impl TokenEntry {
    /// The entry of a token.
    pub fn new(name: impl Into<String>, token: &str) -> Self {
        let sha256 = digest_of(token).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { name: name.into(), sha256, roles: Vec::new(), groups: Vec::new(), namespaces: Vec::new(), expires: None }
    }
}

/// A new token: 256 random bits.
///
/// # Errors
/// `Unavailable` when the system has no randomness.
pub fn new_token() -> Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        feast_registry_core::Error::new(
            feast_registry_core::ErrorKind::Unavailable,
            "the system has no randomness to make a token of",
        )
    })?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// Whose a token is.
struct Known {
    identity: Arc<Identity>,
    expires: Option<SystemTime>,
}

/// The tokens of a file, as it was when it could last be understood.
pub(super) struct Tokens {
    path: PathBuf,
    by_digest: RwLock<HashMap<Digest, Known>>,
    /// The file as it was last read, whether it could be understood or not.
    read: Mutex<Vec<u8>>,
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the file and what is wrong.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let tokens = Self { path: path.to_owned(), by_digest: RwLock::default(), read: Mutex::default() };
        tokens.reload()?;
        tokens.tell();
        tokens.warn_of_readers();
        Ok(tokens)
    }

    /// Reads the file anew if it has changed, and returns whether it had. One that cannot be understood changes nothing, and is told of
    /// once.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the file and what is wrong.
    pub(super) fn reload(&self) -> Result<bool> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path.display();
        let mut content = Vec::new();
        open(&self.path)
            .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut content))
            .map_err(|error| invalid(format!("the file of tokens {path} cannot be read: {error}")))?;
        if content.len() as u64 > LARGEST {
            return Err(invalid(format!("the file of tokens {path} has more than {LARGEST} bytes")));
        }
        if *read == content && !(content.trim_ascii().is_empty() && self.count(SystemTime::now()).0 > 0) {
            return Ok(false);
        }
        let (is_blank, was_blank) = (content.trim_ascii().is_empty(), read.trim_ascii().is_empty());
        read.clone_from(&content);
        if is_blank && !was_blank {
            // Somebody may be writing it: it counts when it is still so at the next look.
            return Err(invalid(format!("the file of tokens {path} is empty; if it stays so, nobody can call by one")));
        }
        let before = self
            .by_digest
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(digest, known)| (*digest, Arc::clone(&known.identity)))
            .collect();
        let known = self.understand(&content, &before)?;
        *self.by_digest.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(true)
    }

    fn understand(&self, content: &[u8], before: &HashMap<Digest, Arc<Identity>>) -> Result<HashMap<Digest, Known>> {
        let path = self.path.display();
        let text =
            std::str::from_utf8(content).map_err(|_| invalid(format!("the file of tokens {path} is not UTF-8")))?;
        let entries: Option<Vec<TokenEntry>> = serde_saphyr::from_str(text).map_err(|error| {
            let line = error.location().map(|at| format!(", line {}", at.line())).unwrap_or_default();
            // Its own text quotes the file, in which somebody may have written a token.
            let why = error.without_snippet().to_string();
            let field = why.split_once("unknown field").and_then(|(_, rest)| rest.split(['`', '\'']).nth(1));
            let why = match field.filter(|field| !field.starts_with(PREFIX) && field.len() <= 32) {
                Some(field) => format!("an entry has no setting `{field}`"),
                None => "it cannot be understood".to_owned(),
            };
            invalid(format!(
                "the file of tokens {path}{line}: {why}; it is a list of entries with `name`, `sha256` and, if wanted, `roles`, `groups`, \
                 `namespaces`, `expires`, as `feast-registry tokens new` writes them"
            ))
        })?;
        let mut known = HashMap::new();
        for entry in entries.unwrap_or_default() {
            let name = entry.name.trim().to_owned();
            let wrong = |what: &str| invalid(format!("the file of tokens {path}: the token of `{name}` {what}"));
            if name.is_empty() {
                return Err(invalid(format!("the file of tokens {path}: a token has no `name`")));
            }
            let digest = hexadecimal(&entry.sha256).ok_or_else(|| {
                wrong(match entry.sha256.starts_with(PREFIX) {
                    true => "has the token itself as its `sha256`; its SHA-256 digest belongs there",
                    false => "has no SHA-256 digest of 64 hexadecimal digits as its `sha256`",
                })
            })?;
            let expires = match &entry.expires {
                Some(moment) => Some(
                    moment
                        .parse::<Timestamp>()
                        .ok()
                        .and_then(|moment| SystemTime::try_from(moment).ok())
                        .ok_or_else(|| wrong("has an `expires` that is no moment such as 2027-01-31T00:00:00Z"))?,
                ),
                None => None,
            };
            let identity = Identity::new(&name)
                .with_roles(entry.roles)
                .with_groups(entry.groups)
                .with_namespaces(entry.namespaces);
            let identity = match before.get(&digest) {
                Some(before) if **before == identity => Arc::clone(before),
                _ => Arc::new(identity),
            };
            if known.insert(digest, Known { identity, expires }).is_some() {
                return Err(wrong("is there twice"));
            }
        }
        Ok(known)
    }

    /// Whose a token is.
    pub(super) fn identify(&self, token: &Token<'_>, now: SystemTime) -> Result<Authenticated, Unauthenticated> {
        let by_digest = self.by_digest.read().unwrap_or_else(PoisonError::into_inner);
        let refused = |why: String| Err(Unauthenticated::Refused(why));
        match by_digest.get(token.digest()) {
            None => refused("its token is none of those in the file".to_owned()),
            Some(known) if known.expires.is_some_and(|expires| expires <= now) => {
                refused(format!("the token of `{}` has expired", known.identity.username))
            }
            Some(Known { identity, expires }) => Ok(Authenticated {
                identity: Arc::clone(identity),
                is_internal: false,
                method: "token",
                until: *expires,
            }),
        }
    }

    /// How many tokens there are, and how many of them have expired.
    pub(super) fn count(&self, now: SystemTime) -> (usize, usize) {
        let by_digest = self.by_digest.read().unwrap_or_else(PoisonError::into_inner);
        let has_expired = |known: &&Known| known.expires.is_some_and(|expires| expires <= now);
        (by_digest.len(), by_digest.values().filter(has_expired).count())
    }

    /// Says how many tokens were read, for whoever expected others.
    pub(super) fn tell(&self) {
        match self.count(SystemTime::now()) {
            (all, expired) if all == expired => {
                tracing::warn!(
                    "the file of tokens has none that is valid: nobody can call by one ({all} have expired)"
                );
            }
            (all, expired) => tracing::info!("{all} tokens were read, of which {expired} have expired"),
        }
    }

    /// Who can write the file can let anybody in.
    fn warn_of_readers(&self) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            const OTHERS_WRITE: u32 = 0o022;
            if fs::metadata(&self.path).is_ok_and(|file| file.permissions().mode() & OTHERS_WRITE != 0) {
                tracing::warn!(path = %self.path.display(), "the file of tokens is writable by others than its owner, who could let anybody in; run chmod go-w");
            }
        }
    }
}

/// Opens a file that is one. A pipe would have its reader wait for whoever writes it, and is empty when it is read again.
fn open(path: &Path) -> std::io::Result<fs::File> {
    let kind = fs::metadata(path)?.file_type();
    if !kind.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    options.open(path)
}

fn hexadecimal(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() || !text.is_ascii() {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}
