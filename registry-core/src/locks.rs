//! Queues for the writers of one object within a process.
//!
//! Without them, many writers of one object would all read it, all commit, and all but one be refused and start again.
//! They also have what was committed reach the cache in the order in which it was committed. What is right in the
//! storage does not rest on them: that is what commits expect, which holds between processes too.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::backend::Key;
use crate::kind::Kind;

/// More queues than writers are ever likely to be at work, so that two objects rarely share one.
const QUEUES: usize = 1024;

/// What a write wants for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockScope {
    /// Single objects; other objects of the project may be written at the same time.
    Objects,
    /// Whole projects, so that nothing else may be written in them.
    Projects,
}

/// A fixed number of queues that projects and objects are spread over.
#[derive(Debug)]
pub(crate) struct Locks {
    queues: Vec<Arc<RwLock<()>>>,
    hasher: RandomState,
}

/// The head of a queue, held alone or with others until it is dropped.
#[derive(Debug)]
pub(crate) enum QueueGuard {
    Alone { _guard: OwnedRwLockWriteGuard<()> },
    Shared { _guard: OwnedRwLockReadGuard<()> },
}

impl Locks {
    pub(crate) fn new() -> Self {
        Self { queues: (0..2 * QUEUES).map(|_| Arc::default()).collect(), hasher: RandomState::new() }
    }

    /// Waits until this caller is the only one at work on any of these objects, or on their projects. The queues are
    /// entered in one fixed order, so two callers never wait for each other. Whoever is dropped while waiting leaves no trace.
    pub(crate) async fn enter(&self, keys: &[Key], scope: LockScope) -> Vec<QueueGuard> {
        let mut projects: Vec<usize> = keys.iter().map(|key| self.queue_of(key.project())).collect();
        let mut objects: Vec<usize> = keys.iter().filter_map(|key| self.queue_of_object(key)).collect();
        for queues in [&mut projects, &mut objects] {
            queues.sort_unstable();
            queues.dedup();
        }
        let mut guards = Vec::with_capacity(projects.len() + objects.len());
        for queue in projects {
            let queue = Arc::clone(&self.queues[queue]);
            guards.push(match scope {
                LockScope::Objects => QueueGuard::Shared { _guard: queue.read_owned().await },
                LockScope::Projects => QueueGuard::Alone { _guard: queue.write_owned().await },
            });
        }
        for queue in objects {
            guards.push(QueueGuard::Alone { _guard: Arc::clone(&self.queues[QUEUES + queue]).write_owned().await });
        }
        guards
    }

    /// The four kinds of view share their names, hence their queue. What all writers of a project read has none.
    fn queue_of_object(&self, key: &Key) -> Option<usize> {
        let (kind, name) = match key {
            Key::Object { kind: Kind::Project, .. } | Key::Metadata { .. } => return None,
            Key::Object { kind, name, .. } => (Some(*kind).filter(|kind| !kind.is_view()), name),
            Key::Version { view, .. } | Key::UserMetadata { view, .. } => (None, view),
        };
        Some(self.queue_of((kind, key.project(), name)))
    }

    fn queue_of(&self, what: impl Hash) -> usize {
        self.hasher.hash_one(what) as usize % QUEUES
    }
}
