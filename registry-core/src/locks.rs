//! Queues for the writers of one object within a process.
//!
//! Without them, many writers of one object would all read it, all commit, and all but one be refused and start again.
//! They also have what was committed reach the cache in the order in which it was committed. What is right in the
//! storage does not rest on them: that is what commits expect, which holds between processes too.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::backend::Key;
use crate::kind::Kind;

/// What a write wants for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockScope {
    /// Single objects; other objects of the project may be written at the same time.
    Objects,
    /// Whole projects, so that nothing else may be written in them.
    Projects,
}

/// What writers queue for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject {
    /// All that a project has.
    Project(String),
    /// An object of a project. The four kinds of view share their names, hence their queue, and have no kind here.
    Object(String, Option<Kind>, String),
}

/// How a place at the head of a queue is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    Shared,
    Alone,
}

/// A queue, and how many have a place in it.
#[derive(Debug, Default)]
struct Queue {
    places: usize,
    lock: Arc<RwLock<()>>,
}

type Queues = HashMap<Subject, Queue>;

/// The queues that somebody has a place in.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    queues: Arc<Mutex<Queues>>,
}

/// The head of a queue, held alone or with others until it is dropped.
#[derive(Debug)]
pub(crate) struct QueueGuard {
    _turn: Turn,
    /// Left when the turn has ended: fields are dropped in their order.
    _place: Place,
}

#[derive(Debug)]
enum Turn {
    Alone { _guard: OwnedRwLockWriteGuard<()> },
    Shared { _guard: OwnedRwLockReadGuard<()> },
}

/// A place in a queue, left when it is dropped. With the last place goes the queue.
#[derive(Debug)]
struct Place {
    subject: Subject,
    queues: Arc<Mutex<Queues>>,
}

fn locked(queues: &Mutex<Queues>) -> MutexGuard<'_, Queues> {
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queues = locked(&self.queues);
        if let Some(queue) = queues.get_mut(&self.subject) {
            queue.places -= 1;
            if queue.places == 0 {
                queues.remove(&self.subject);
            }
        }
    }
}

impl Locks {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Waits until this caller is the only one at work on any of these objects, or on their projects. The queues are
    /// entered in one fixed order, so two callers never wait for each other. Whoever is dropped while waiting leaves no trace.
    pub(crate) async fn enter(&self, keys: &[Key], scope: LockScope) -> Vec<QueueGuard> {
        let of_projects = match scope {
            LockScope::Objects => Hold::Shared,
            LockScope::Projects => Hold::Alone,
        };
        let projects = keys.iter().map(|key| (Subject::Project(key.project().to_owned()), of_projects));
        let objects = keys.iter().filter_map(|key| Some((object_of(key)?, Hold::Alone)));
        // Projects come first.
        let subjects: BTreeMap<Subject, Hold> = projects.chain(objects).collect();
        let mut guards = Vec::with_capacity(subjects.len());
        for (subject, hold) in subjects {
            guards.push(self.enter_one(subject, hold).await);
        }
        guards
    }

    async fn enter_one(&self, subject: Subject, hold: Hold) -> QueueGuard {
        let lock = {
            let mut queues = locked(&self.queues);
            let queue = queues.entry(subject.clone()).or_default();
            queue.places += 1;
            Arc::clone(&queue.lock)
        };
        let place = Place { subject, queues: Arc::clone(&self.queues) };
        let turn = match hold {
            Hold::Shared => Turn::Shared { _guard: lock.read_owned().await },
            Hold::Alone => Turn::Alone { _guard: lock.write_owned().await },
        };
        QueueGuard { _turn: turn, _place: place }
    }
}

/// What all writers of a project read has no queue.
fn object_of(key: &Key) -> Option<Subject> {
    let (kind, project, name) = match key {
        Key::Object { kind: Kind::Project, .. } | Key::Metadata { .. } => return None,
        Key::Object { kind, project, name } => (Some(*kind).filter(|kind| !kind.is_view()), project, name),
        Key::Version { project, view, .. } | Key::UserMetadata { project, view, .. } => (None, project, view),
    };
    Some(Subject::Object(project.clone(), kind, name.clone()))
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// The guards, if nothing has to be waited for. Who waits leaves.
    fn at_once(locks: &Locks, keys: &[Key], scope: LockScope) -> Option<Vec<QueueGuard>> {
        let entering = std::pin::pin!(locks.enter(keys, scope));
        match entering.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(guards) => Some(guards),
            Poll::Pending => None,
        }
    }

    /// Fault: objects were spread over a thousand queues, so one waited for another that had nothing to do with it.
    #[test]
    fn no_two_objects_share_a_queue() {
        let locks = Locks::new();
        let key = |number: usize| Key::object(Kind::Entity, "p", number.to_string());
        let all: Vec<_> = (0..5000).map(|number| at_once(&locks, &[key(number)], LockScope::Objects)).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(at_once(&locks, &[key(7)], LockScope::Objects).is_none(), "it is being written");
    }

    #[test]
    fn writers_of_one_object_and_of_its_project_wait_and_others_do_not() {
        let locks = Locks::new();
        let view = |kind| vec![Key::project_object("p"), Key::object(kind, "p", "stats")];
        let version = vec![Key::Version { project: "p".to_owned(), view: "stats".to_owned(), number: 3 }];
        let first = at_once(&locks, &view(Kind::FeatureView), LockScope::Objects).expect("nobody is there");
        for waits in [view(Kind::StreamFeatureView), version] {
            assert!(at_once(&locks, &waits, LockScope::Objects).is_none(), "{waits:?}");
        }
        assert!(at_once(&locks, &[Key::project_object("p")], LockScope::Projects).is_none());
        for goes in [Key::object(Kind::Entity, "p", "stats"), Key::object(Kind::FeatureView, "q", "stats")] {
            assert!(at_once(&locks, &[goes], LockScope::Objects).is_some());
        }
        drop(first);
        let alone = at_once(&locks, &[Key::project_object("p")], LockScope::Projects).expect("all have left");
        assert!(at_once(&locks, &[Key::object(Kind::Entity, "p", "driver")], LockScope::Objects).is_none());
        drop(alone);
    }

    #[test]
    fn queues_that_nobody_is_in_are_gone() {
        let locks = Locks::new();
        let key = Key::object(Kind::Entity, "p", "driver");
        let first = at_once(&locks, std::slice::from_ref(&key), LockScope::Objects).expect("nobody is there");
        assert!(at_once(&locks, &[key], LockScope::Objects).is_none(), "who waited has left");
        assert_eq!(locked(&locks.queues).len(), 2);
        drop(first);
        assert!(locked(&locks.queues).is_empty());
    }
}
