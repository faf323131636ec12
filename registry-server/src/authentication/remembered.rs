//! Tokens that were verified a moment ago.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::bearer::Digest;
use super::{Authenticated, Unauthenticated};

/// How many are remembered, twice: the older half is forgotten at once, so that nothing is ever looked for.
const MOST: usize = 5000;

type Known = HashMap<Digest, (Authenticated, SystemTime)>;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Remembered {
    known: Mutex<(Known, Known)>,
    /// Tokens that were refused a moment ago, and why.
    refused: Mutex<HashMap<Digest, (String, SystemTime)>>,
}

#[cfg_attr(not(feature = "oidc"), allow(dead_code))]
impl Remembered {
    fn known(&self) -> MutexGuard<'_, (Known, Known)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose a token is, if it was verified and that is still good.
    pub(super) fn get(&self, digest: &Digest, now: SystemTime) -> Option<Authenticated> {
        let known = self.known();
        let found = known.0.get(digest).or_else(|| known.1.get(digest));
        found.filter(|(_, until)| now < *until).map(|(known, _)| known.clone())
    }

    /// Whether a token was good once, as far as that is remembered.
    pub(super) fn was_known(&self, digest: &Digest) -> bool {
        let known = self.known();
        known.0.contains_key(digest) || known.1.contains_key(digest)
    }

    /// Why a token was refused a moment ago, if it was.
    pub(super) fn refusal(&self, digest: &Digest, now: SystemTime) -> Option<Unauthenticated> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let (why, _) = refused.get(digest).filter(|(_, until)| now < *until)?;
        Some(Unauthenticated::Refused(why.clone()))
    }

    /// Remembers that a token was refused, and returns that. It is good no longer, whatever it was before. That it could not be
    /// verified is not remembered.
    pub(super) fn put_refusal(&self, digest: &Digest, why: Unauthenticated, until: SystemTime) -> Unauthenticated {
        if let Unauthenticated::Refused(why) = &why {
            let mut known = self.known();
            known.0.remove(digest);
            known.1.remove(digest);
            drop(known);
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if refused.len() >= MOST {
                refused.clear();
            }
            refused.insert(*digest, (why.clone(), until));
        }
        why
    }

    /// Remembers whose a token is, until it is to be verified again, or is good no longer. Returns that with the identity that it had
    /// before, if it is the same.
    pub(super) fn put(&self, digest: &Digest, mut verified: Authenticated, verify_again: SystemTime) -> Authenticated {
        let until = verified.until.map_or(verify_again, |until| until.min(verify_again));
        let mut known = self.known();
        let before = known.0.get(digest).or_else(|| known.1.get(digest));
        if let Some((before, _)) = before.filter(|(before, _)| before.identity == verified.identity) {
            verified.identity = Arc::clone(&before.identity);
        }
        if known.0.len() >= MOST {
            known.1 = std::mem::take(&mut known.0);
        }
        known.0.insert(*digest, (verified.clone(), until));
        verified
    }
}
