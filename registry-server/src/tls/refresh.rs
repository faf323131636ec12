//! Reading the files anew, and telling that a certificate ends.

use std::convert::Infallible;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use feast_registry_core::{Error, Result};
use tokio::time::{Instant, sleep};

use super::Tls;
use super::files::{Contents, Loaded};
use super::identity::Validity;
use crate::metrics::measure_certificate;

/// How often the files are looked at. They are read, which costs next to nothing: that tells of a symlink that leads elsewhere, as
/// in a volume of Kubernetes, and of two changes within one tick of a file system's clock.
const LOOKS_EVERY: Duration = Duration::from_secs(3);
/// Who writes files one after the other gets so much time until they belong together: until they stay as they are for so long,
/// but not for ever.
const SETTLES_FOR: Duration = Duration::from_millis(500);
const SETTLES_WITHIN: usize = 10;
/// How long before its end a certificate is warned of, unless that is most of its life.
const WARNS_BEFORE: Duration = Duration::from_secs(14 * 86_400);
const WARNS_EVERY: Duration = Duration::from_secs(86_400);

/// What was last seen in the files, whatever came of it.
pub(super) struct Seen {
    state: RandomState,
    fingerprint: u64,
    warned: Option<Instant>,
}

impl Seen {
    pub(super) fn new(contents: &Contents) -> Self {
        let state = RandomState::new();
        Self { fingerprint: contents.fingerprint(&state), state, warned: None }
    }
}

impl Tls {
    /// Reads the files anew, for the connections that come after. The log says what came of it. When the future is dropped, that
    /// has happened or not.
    ///
    /// # Errors
    /// As [`open`](Self::open); what was in force stays so.
    pub async fn reload(&self) -> Result<()> {
        let mut seen = self.0.seen.lock().await;
        let contents = self.read().await?;
        self.take(contents, &mut seen)
    }

    /// Looks now and then whether the files have changed, and warns of a certificate that ends; one at a time does, of all that
    /// are asked to. Cancel-safe.
    pub(crate) async fn keep_fresh(&self) -> Infallible {
        let _watch = self.0.watch.lock().await;
        loop {
            self.look_at_the_end().await;
            sleep(LOOKS_EVERY).await;
            // The log has what is wrong.
            drop(self.look().await);
        }
    }

    async fn look(&self) -> Result<()> {
        let mut seen = self.0.seen.lock().await;
        let mut contents = self.read().await?;
        let mut found = contents.fingerprint(&seen.state);
        if found == seen.fingerprint {
            return Ok(());
        }
        for _ in 0..SETTLES_WITHIN {
            sleep(SETTLES_FOR).await;
            contents = self.read().await?;
            let before = std::mem::replace(&mut found, contents.fingerprint(&seen.state));
            if found == before {
                break;
            }
        }
        self.take(contents, &mut seen)
    }

    async fn read(&self) -> Result<Contents> {
        let files = self.0.files.clone();
        let read = tokio::task::spawn_blocking(move || Contents::read(&files)).await;
        read.map_err(|error| Error::internal("the files for TLS were not read").with_source(error))
    }

    fn take(&self, contents: Contents, seen: &mut Seen) -> Result<()> {
        seen.fingerprint = contents.fingerprint(&seen.state);
        let file = self.0.files.certificate.display();
        match Loaded::new(&self.0.files, contents) {
            Ok(loaded) => {
                let loaded = Arc::new(loaded);
                self.put_in_force(Arc::clone(&loaded));
                let end = end(loaded.validity.as_ref());
                seen.warned = None;
                tracing::info!("the TLS certificate was read anew from {file}; it ends {end}");
                Ok(())
            }
            Err(error) => {
                let loaded = self.in_force();
                let end = end(loaded.validity.as_ref());
                tracing::error!(
                    %error,
                    "the files for TLS were read anew and cannot be used; the server goes on with the certificate from before, \
                     which ends {end}"
                );
                Err(error)
            }
        }
    }

    /// Measures when the certificate ends, and warns if that is soon.
    async fn look_at_the_end(&self) {
        let loaded = self.in_force();
        let Some(validity) = &loaded.validity else { return };
        measure_certificate(validity.not_after());
        let left = validity.left(SystemTime::now());
        let mut seen = self.0.seen.lock().await;
        if left > warns_before(validity) || seen.warned.is_some_and(|warned| warned.elapsed() < WARNS_EVERY) {
            return;
        }
        seen.warned = Some(Instant::now());
        let (file, end) = (self.0.files.certificate.display(), &validity.text);
        let remedy = "put a new one in its place: it is read without a restart";
        if left.is_zero() {
            tracing::warn!("the TLS certificate in {file} has expired ({end}), and clients refuse it; {remedy}");
        } else {
            let days = left.as_secs() / 86_400;
            tracing::warn!("the TLS certificate in {file} ends {end}, in less than {} days; {remedy}", days + 1);
        }
    }
}

fn end(validity: Option<&Validity>) -> &str {
    validity.map_or("at a time that cannot be read", |validity| &validity.text)
}

/// Certificates that live for days are renewed when a third of their life is left: a quarter means that nobody has.
fn warns_before(validity: &Validity) -> Duration {
    WARNS_BEFORE.min(validity.whole() / 4)
}
