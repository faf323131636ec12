//! What is known of whether a store does conditional writes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use feast_registry_core::{Error, Result};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument as _;
use tracing::instrument::WithSubscriber as _;
use uuid::Uuid;

use super::Place;
use super::probe::Flaw;

/// How long a flaw is believed without another look: a probe of a store with one may leave something behind, and is not to be
/// made for each write; but a store that was mended is to be noticed. See `a_flaw_is_remembered_for_some_minutes`.
const FLAW_KEPT_FOR: Duration = Duration::from_secs(300);

/// What a probe has found: nothing, or a flaw; or it could not be made.
type Found = Result<Option<Flaw>>;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Conditions {
    /// Whether the store may have a flaw.
    allows_flaw: bool,
    /// What the probe of this process is called where the one that all share is of no use.
    own: Uuid,
    /// The last probe, which may be under way.
    last: Mutex<Option<Probe>>,
}

/// What becomes of a probe: `None` until it has ended.
type Probe = watch::Receiver<Option<(Found, Instant)>>;

impl Conditions {
    pub(super) fn new(allows_flaw: bool) -> Self {
        Self { allows_flaw, own: Uuid::new_v4(), last: Mutex::default() }
    }

    pub(super) fn allows_flaw(&self) -> bool {
        self.allows_flaw
    }

    /// The flaw that the store was last seen to have.
    pub(super) fn known_flaw(&self) -> Option<Flaw> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = last.as_ref()?.borrow();
        ended.as_ref().and_then(|(found, _)| found.as_ref().ok().copied().flatten())
    }

    /// What is wrong with how the store does conditional writes, if anything is. All who ask while it is tried out wait for one
    /// probe. It goes on when they leave, so that it takes away what it has made.
    ///
    /// # Errors
    /// When the store does not answer, or not to this.
    pub(super) async fn flaw(&self, place: &Arc<Place>) -> Found {
        let mut probe = self.probe(place);
        match probe.wait_for(Option::is_some).await.as_deref() {
            Ok(Some((found, _))) => found.clone(),
            _ => Err(Error::internal("the probe of an object store was given up")),
        }
    }

    /// The last probe if what it says is good, or will be; else a new one.
    fn probe(&self, place: &Arc<Place>) -> Probe {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(probe) = last.as_ref().filter(|probe| self.is_good(probe)) {
            return probe.clone();
        }
        let (sender, probe) = watch::channel(None);
        let (place, own, allows_flaw) = (Arc::clone(place), self.own, self.allows_flaw);
        let trying = async move {
            let found = place.probe(own).await;
            if let (Ok(Some(flaw)), true) = (&found, allows_flaw) {
                tracing::warn!(location = %place.location, flaw, "writes of other processes may get lost");
            }
            let found = found.map_err(|error| place.error("checked for conditional writes", error));
            sender.send_replace(Some((found, Instant::now())));
        };
        tokio::spawn(trying.in_current_span().with_current_subscriber());
        last.insert(probe).clone()
    }

    fn is_good(&self, probe: &Probe) -> bool {
        match &*probe.borrow() {
            Some((Ok(None), _)) => true,
            // Where it is allowed, it was told once, and all goes on in the way that was chosen.
            Some((Ok(Some(_)), at)) => self.allows_flaw || at.elapsed() < FLAW_KEPT_FOR,
            Some((Err(_), _)) => false,
            // Its sender is gone if it was given up, as at the end of its runtime.
            None => probe.has_changed().is_ok(),
        }
    }
}
