//! What undoing commits comes to: for each key that they changed, what they left there and what was there before.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

use crate::backend::Key;
use crate::journal::{Change, Image, Target};
use crate::kind::Kind;

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
    /// The views, each with its project, whose histories were removed without the journal having what went.
    lost_histories: HashSet<(String, String)>,
    is_whole: bool,
}

impl Goals {
    /// Goals for which everything is to be taken back that was done to projects since a moment, so that they are then as they were.
    pub(crate) fn of_projects() -> Self {
        Self { is_whole: true, ..Self::default() }
    }

    /// Whether whole projects go back to a moment.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Takes back the changes of one more commit, as far as they are of keys that are wanted. Commits come newest first.
    pub(crate) fn take_back(&mut self, changes: &[Change], wanted: impl Fn(&Key) -> bool) {
        for change in changes {
            if let Target::Versions { project, view } = &change.target {
                let is_of_view =
                    |of: &Key| matches!(of, Key::Version { project: p, view: v, .. } if p == project && v == view);
                let has_versions =
                    changes.iter().any(|other| matches!(&other.target, Target::Key(key) if is_of_view(key)));
                if !has_versions {
                    self.lost_histories.insert((project.clone(), view.clone()));
                }
            }
        }
        let mut is_listed = HashSet::new();
        for change in changes.iter().rev() {
            match &change.target {
                Target::Key(key) => {
                    if let Key::Object { kind: Kind::Project, project, .. } = key {
                        is_listed.insert(project);
                    }
                    self.change(key, change, &wanted);
                }
                // What went with it follows, key by key: unless the storage does not keep what that was.
                Target::Project { project } if !is_listed.contains(project) => {
                    self.change(&Key::project_object(project), change, &wanted);
                }
                Target::Project { .. } | Target::Versions { .. } => {}
            }
        }
    }

    fn change(&mut self, key: &Key, change: &Change, wanted: impl Fn(&Key) -> bool) {
        if !wanted(key) {
            return;
        }
        match self.keys.get_mut(key) {
            Some(goal) => goal.to = change.before.clone(),
            None => {
                let goal = Goal { left: change.after.clone(), to: change.before.clone() };
                self.keys.insert(key.clone(), goal);
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

    /// Whether a view had a history that the journal does not have.
    pub(crate) fn has_lost_history(&self, project: &str, view: &str) -> bool {
        !self.lost_histories.is_empty() && self.lost_histories.contains(&(project.to_owned(), view.to_owned()))
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
