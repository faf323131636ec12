//! What has been verified a moment ago.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use lru::LruCache;
use tokio::time::Instant;

use super::{Authenticated, Digest, Unauthenticated};

/// How many tokens are kept of each sort; the one that was not asked for the longest makes way.
const TOKENS: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not 0");

/// A token that was verified.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    pub(super) authenticated: Authenticated,
    /// How long that counts.
    pub(super) counts_for: Duration,
    /// As of which keys of the provider's; others take their place when one of them was withdrawn.
    pub(super) epoch: u64,
}

struct Entry {
    authenticated: Authenticated,
    counts_until: Instant,
    epoch: u64,
}

/// The tokens that were verified, by their digests. A lookup takes as long for any number of them.
pub(super) struct VerifiedTokens(Mutex<LruCache<Digest, Entry>>);

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::sparse(TOKENS)))
    }

    /// Who the token is of, if that is known as of these keys.
    pub(super) fn find(&self, digest: &Digest, epoch: u64) -> Option<Authenticated> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(digest)?;
        let counts = entry.epoch == epoch && Instant::now() < entry.counts_until;
        let is_alive = entry.authenticated.until.is_none_or(|until| SystemTime::now() < until);
        (counts && is_alive).then(|| entry.authenticated.clone())
    }

    /// Keeps what was verified. Who is known already stays the same identity.
    pub(super) fn keep(&self, digest: Digest, verified: Verified) -> Authenticated {
        let Verified { mut authenticated, counts_for, epoch } = verified;
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = entries.get(&digest)
            && known.authenticated.identity == authenticated.identity
        {
            authenticated.identity = Arc::clone(&known.authenticated.identity);
        }
        let entry = Entry { authenticated: authenticated.clone(), counts_until: Instant::now() + counts_for, epoch };
        entries.put(digest, entry);
        authenticated
    }
}

/// Tokens that were refused, whose refusal cost somebody else something. They are kept apart, so that no number of them puts
/// out those that count.
pub(super) struct RefusedTokens {
    entries: Mutex<LruCache<Digest, (Instant, Unauthenticated)>>,
    count_for: Duration,
}

impl RefusedTokens {
    pub(super) fn new(count_for: Duration) -> Self {
        Self { entries: Mutex::new(LruCache::sparse(TOKENS)), count_for }
    }

    /// Why the token was refused a moment ago.
    pub(super) fn find(&self, digest: &Digest) -> Option<Unauthenticated> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, why) = entries.get(digest)?;
        (since.elapsed() < self.count_for).then(|| why.clone())
    }

    pub(super) fn keep(&self, digest: Digest, why: Unauthenticated) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.put(digest, (Instant::now(), why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use feast_registry_core::access::Identity;

    fn verified(name: &str, counts_for: u64, until: Option<SystemTime>) -> Verified {
        let authenticated = Authenticated::new(Arc::new(Identity::new(name)), "oidc", until);
        Verified { authenticated, counts_for: Duration::from_secs(counts_for), epoch: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_verified_counts_for_its_time_and_stays_the_same_identity() {
        let tokens = VerifiedTokens::new();
        let digest = [7; 32];
        let first = tokens.keep(digest, verified("alice", 60, None));
        assert!(Arc::ptr_eq(&tokens.find(&digest, 1).unwrap().identity, &first.identity));
        assert!(tokens.find(&digest, 2).is_none(), "a key was withdrawn");
        assert!(tokens.find(&[8; 32], 1).is_none());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(tokens.find(&digest, 1).is_none());
        let again = tokens.keep(digest, verified("alice", 60, None));
        assert!(Arc::ptr_eq(&again.identity, &first.identity));
        assert!(tokens.find(&digest, 1).is_some());
        let other = tokens.keep(digest, verified("bob", 60, None));
        assert_eq!(other.identity.username, "bob");
        // The end of the token counts before that.
        tokens.keep(digest, verified("bob", 60, Some(SystemTime::now() - Duration::from_secs(1))));
        assert!(tokens.find(&digest, 1).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_puts_out_nothing_that_counts_and_is_forgotten() {
        let (tokens, refused) = (VerifiedTokens::new(), RefusedTokens::new(Duration::from_secs(2)));
        tokens.keep([0; 32], verified("alice", 60, None));
        let digest = |number: u64| {
            let mut digest = [1; 32];
            digest[..8].copy_from_slice(&number.to_be_bytes());
            digest
        };
        for number in 0..20_000 {
            refused.keep(digest(number), Unauthenticated::bad("no"));
        }
        assert!(tokens.find(&[0; 32], 1).is_some());
        assert!(refused.find(&digest(0)).is_none() && refused.find(&digest(19_999)).is_some());
        assert_eq!(refused.entries.lock().unwrap().len(), TOKENS.get());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(refused.find(&digest(19_999)).is_none());
    }
}
