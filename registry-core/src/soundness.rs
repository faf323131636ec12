//! What is stored and is not what it is said to be: bytes that are no message of their kind.
//!
//! Such an object is never handed to clients, whose whole list would fail with it: it is left out of lists, and named by
//! whoever asks for it and in the log.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backend::{Key, Write};
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::{FeastObject, Kind};
use crate::metrics::UNDECODABLE;
use crate::proto::core;

/// How many are remembered. More than that are logged at each read.
const MOST: usize = 10_000;

/// Of how many objects it is remembered that they are sound, at eight bytes each.
const MOST_SOUND: usize = 500_000;

fn measure(found: &BTreeMap<Key, u64>) {
    metrics::gauge!(UNDECODABLE.name).set(found.len() as f64);
}

/// Checks that the bytes of an object are a message of its kind.
///
/// # Errors
/// [`ErrorKind::Corrupt`].
pub(crate) fn check(object: &Object) -> Result<()> {
    fn check<T: FeastObject>(object: &Object) -> Result<()> {
        object.decode::<T>().map(drop)
    }
    match object.kind {
        Kind::Project => check::<core::Project>(object),
        Kind::Entity => check::<core::Entity>(object),
        Kind::DataSource => check::<core::DataSource>(object),
        Kind::FeatureView => check::<core::FeatureView>(object),
        Kind::StreamFeatureView => check::<core::StreamFeatureView>(object),
        Kind::OnDemandFeatureView => check::<core::OnDemandFeatureView>(object),
        Kind::LabelView => check::<core::LabelView>(object),
        Kind::FeatureService => check::<core::FeatureService>(object),
        Kind::SavedDataset => check::<core::SavedDataset>(object),
        Kind::ValidationReference => check::<core::ValidationReference>(object),
        Kind::Permission => check::<core::Permission>(object),
        Kind::Infra => check::<core::Infra>(object),
    }
}

/// The objects that were found not to be messages of their kind.
#[derive(Debug, Default)]
pub(crate) struct UndecodableObjects {
    /// Whether there may be any: most of the time, nobody has to look.
    is_any: AtomicBool,
    /// Each with the hash of its bytes, so that it is logged once for each state that it is in.
    found: Mutex<BTreeMap<Key, u64>>,
    /// The hashes of kinds and bytes that were found to be sound: hashing costs a tenth of decoding. The hash has a key
    /// that is this process's own, so nobody can make two objects share one.
    sound: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl UndecodableObjects {
    fn found(&self) -> MutexGuard<'_, BTreeMap<Key, u64>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an object is a message of its kind, decoding it unless the same bytes were before. One that is not is noted.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`], naming kind, project and name.
    pub(crate) fn check(&self, key: &Key, object: &Object) -> Result<()> {
        let hash = self.hasher.hash_one((object.kind, &object.bytes));
        let sound = || self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        if sound().contains(&hash) {
            return Ok(());
        }
        check(object).map_err(|error| self.note(key, &object.bytes, error))?;
        let mut sound = sound();
        if sound.len() >= MOST_SOUND {
            sound.clear();
        }
        sound.insert(hash);
        Ok(())
    }

    /// Notes one; it is logged unless the same bytes were before. The error names it.
    pub(crate) fn note(&self, key: &Key, bytes: &[u8], error: Error) -> Error {
        let error = Error::new(
            ErrorKind::Corrupt,
            format!("what is stored of {key} cannot be decoded; apply the whole object again, or delete it"),
        )
        .with_source(error);
        let hash = self.hasher.hash_one(bytes);
        let mut found = self.found();
        let is_known = found.get(key) == Some(&hash);
        if found.len() < MOST {
            found.insert(key.clone(), hash);
            self.is_any.store(true, Ordering::Release);
        }
        measure(&found);
        drop(found);
        if !is_known {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%key, bytes = bytes.len(), cause, "an object is left out of lists: {error}");
        }
        error
    }

    /// Forgets those that have been written anew or removed.
    pub(crate) fn forget(&self, writes: &[Write]) {
        if !self.is_any.load(Ordering::Acquire) {
            return;
        }
        let mut found = self.found();
        for write in writes {
            match write {
                Write::Put(record) => drop(found.remove(&record.key)),
                Write::Delete(key) => drop(found.remove(key)),
                Write::DeleteProject { project } => found.retain(|key, _| key.project() != project),
                Write::DeleteVersions { .. } => {}
            }
        }
        measure(&found);
    }

    /// Forgets what others have written anew, or removed.
    pub(crate) fn forget_keys<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        if !self.is_any.load(Ordering::Acquire) {
            return;
        }
        let mut found = self.found();
        keys.for_each(|key| {
            found.remove(key);
        });
        measure(&found);
    }

    /// Forgets those that are not there any more, or are sound now.
    pub(crate) fn keep(&self, is_still: impl Fn(&Key) -> bool) {
        if self.is_any.load(Ordering::Acquire) {
            let mut found = self.found();
            found.retain(|key, _| is_still(key));
            measure(&found);
        }
    }

    /// Where they are.
    pub(crate) fn keys(&self) -> Vec<Key> {
        if self.is_any.load(Ordering::Acquire) { self.found().keys().cloned().collect() } else { Vec::new() }
    }
}
