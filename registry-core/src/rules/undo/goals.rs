//! What undoing commits comes to: for each key that they changed, what they left there and what was there before.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::backend::Key;
use crate::journal::{Change, Image, Target};

/// Where a key is to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Goal {
    /// What the newest of the undone commits left.
    pub(crate) left: Image,
    /// What was there before the oldest of them.
    pub(crate) to: Image,
}

/// Where all keys that commits changed are to go back to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Goals {
    keys: BTreeMap<Key, Goal>,
}

impl Goals {
    /// Takes back the changes of one more commit, as far as they are of keys that are wanted. Commits come newest first.
    pub(crate) fn take_back(&mut self, changes: &[Change], wanted: impl Fn(&Key) -> bool) {
        for change in changes.iter().rev() {
            // What a removal removed follows it, key by key.
            let Target::Key(key) = &change.target else { continue };
            if !wanted(key) {
                continue;
            }
            match self.keys.get_mut(key) {
                Some(goal) => goal.to = change.before.clone(),
                None => {
                    let goal = Goal { left: change.after.clone(), to: change.before.clone() };
                    self.keys.insert(key.clone(), goal);
                }
            }
        }
    }

    /// The goal of a key, if the commits changed it.
    pub(crate) fn get(&self, key: &Key) -> Option<&Goal> {
        self.keys.get(key)
    }

    /// All of them, in the order of their keys: of objects, those that others refer to come first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Goal)> {
        self.keys.iter()
    }

    /// Those of a part of the keys.
    pub(crate) fn range(&self, keys: RangeInclusive<Key>) -> impl Iterator<Item = (&Key, &Goal)> {
        self.keys.range(keys)
    }

    /// Forgets those of which this does not hold.
    pub(crate) fn retain(&mut self, mut holds: impl FnMut(&Key) -> bool) {
        self.keys.retain(|key, _| holds(key));
    }
}
