//! Queues for the writers of one object within a process.
//!
//! Without them, many writers of one object would all read it, all commit, and all but one be refused and start again.
//! The queues only spare that work; correctness rests on what commits expect, which holds between processes too.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::backend::Key;

/// More queues than writers are ever likely to be at work, so that two objects rarely share one.
const QUEUES: usize = 1024;

/// A fixed number of queues that keys are spread over.
#[derive(Debug)]
pub(crate) struct Locks {
    queues: Vec<Arc<Mutex<()>>>,
    hasher: RandomState,
}

impl Locks {
    pub(crate) fn new() -> Self {
        Self { queues: (0..QUEUES).map(|_| Arc::default()).collect(), hasher: RandomState::new() }
    }

    /// Waits until this caller is the only one at work on any of these keys. The queues are entered in one fixed order,
    /// so two callers never wait for each other.
    pub(crate) async fn enter(&self, keys: &[Key]) -> Vec<OwnedMutexGuard<()>> {
        let mut queues: Vec<usize> = keys.iter().filter_map(|key| self.queue_of(key)).collect();
        queues.sort_unstable();
        queues.dedup();
        let mut guards = Vec::with_capacity(queues.len());
        for queue in queues {
            guards.push(Arc::clone(&self.queues[queue]).lock_owned().await);
        }
        guards
    }

    /// The four kinds of view share their names, hence their queue. What every writer of a project reads has none.
    fn queue_of(&self, key: &Key) -> Option<usize> {
        let (kind, project, name) = match key {
            Key::Object { kind, project, name } => (Some(*kind).filter(|kind| !kind.is_view()), project, name),
            Key::Version { project, view, .. } | Key::UserMetadata { project, view, .. } => (None, project, view),
            Key::Metadata { .. } => return None,
        };
        if kind == Some(crate::Kind::Project) {
            return None;
        }
        Some(self.hasher.hash_one((kind, project, name)) as usize % QUEUES)
    }
}
