//! Which commits somebody wants to see.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Change, JournalEntry, Target};
use crate::backend::Key;
use crate::kind::Kind;

/// Which commits, and which of their changes, somebody wants to see. What is left empty lets everything through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalFilter {
    /// Only changes of this project.
    pub project: Option<String>,
    /// Only changes of objects of these kinds. The history and the user metadata of a view count as the view, and the removal of
    /// a whole project as one of every kind and name in it.
    pub kinds: Vec<Kind>,
    /// Only changes of objects of these names.
    pub names: Vec<String>,
    /// Only commits whose author's name has this in it, in whatever case.
    pub author: Option<String>,
}

impl JournalFilter {
    /// Lets everything through.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for one project.
    #[must_use]
    pub fn with_project(mut self, project: impl Into<String>) -> Self {
        self.project = Some(project.into());
        self
    }

    /// The same for these kinds.
    #[must_use]
    pub fn with_kinds(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// The same for these names.
    #[must_use]
    pub fn with_names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// The same for authors with this in their names.
    #[must_use]
    pub fn with_author(mut self, author: impl Into<String>) -> Self {
        self.author = Some(author.into());
        self
    }

    /// Whether a commit has a change that is let through.
    pub fn lets_through(&self, entry: &JournalEntry) -> bool {
        self.is_by(entry)
            && (!self.narrows() || {
                let views = self.views_of(entry);
                entry.changes.iter().any(|change| self.is_of(change, &views))
            })
    }

    /// A commit with those of its changes that are let through; nothing if there are none.
    pub fn narrow(&self, entry: Arc<JournalEntry>) -> Option<Arc<JournalEntry>> {
        if !self.is_by(&entry) {
            return None;
        }
        if !self.narrows() {
            return Some(entry);
        }
        let of_entry = Arc::clone(&entry);
        let views = self.views_of(&of_entry);
        let narrowed = JournalEntry::narrowed(entry, |change| self.is_of(change, &views));
        (!narrowed.changes.is_empty()).then_some(narrowed)
    }

    fn narrows(&self) -> bool {
        self.project.is_some() || !self.kinds.is_empty() || !self.names.is_empty()
    }

    fn is_by(&self, entry: &JournalEntry) -> bool {
        let Some(wanted) = &self.author else { return true };
        entry.author.as_ref().is_some_and(|author| author.to_lowercase().contains(&wanted.to_lowercase()))
    }

    /// Of which kind the views are that a commit changed: their versions do not say. Empty where nobody asks for kinds.
    fn views_of<'a>(&self, entry: &'a JournalEntry) -> HashMap<(&'a str, &'a str), Vec<Kind>> {
        let mut views: HashMap<(&str, &str), Vec<Kind>> = HashMap::new();
        for change in entry.changes.iter().filter(|_| !self.kinds.is_empty()) {
            if let Target::Key(Key::Object { kind, project, name }) = &change.target
                && kind.is_view()
            {
                views.entry((project, name)).or_default().push(*kind);
            }
        }
        views
    }

    fn is_of(&self, change: &Change, views: &HashMap<(&str, &str), Vec<Kind>>) -> bool {
        if self.project.as_deref().is_some_and(|project| project != change.target.project()) {
            return false;
        }
        let is_wanted = |name: &String| self.names.is_empty() || self.names.contains(name);
        let of_view = |project: &str, view: &str| match views.get(&(project, view)) {
            Some(kinds) => kinds.iter().any(|kind| self.kinds.contains(kind)),
            None => self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.is_view()),
        };
        let of_kind = |kind: &Kind| self.kinds.is_empty() || self.kinds.contains(kind);
        match &change.target {
            Target::Project { .. } => true,
            Target::Versions { project, view } | Target::Key(Key::Version { project, view, .. }) => {
                of_view(project, view) && is_wanted(view)
            }
            Target::Key(Key::UserMetadata { kind, view, .. }) => of_kind(kind) && is_wanted(view),
            Target::Key(Key::Object { kind, name, .. }) => of_kind(kind) && is_wanted(name),
            Target::Key(Key::Metadata { .. }) => self.kinds.is_empty() && self.names.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{CommitId, Image, Revision};

    /// Fault: who asked for feature views was shown the versions of all other views.
    #[test]
    fn a_version_is_of_the_kind_of_the_view_that_its_commit_changed() {
        let mut entry = JournalEntry::new(Revision::new(1), CommitId::random(), crate::Timestamp::default());
        let version = Key::Version { project: "p".to_owned(), view: "price".to_owned(), number: 1 };
        for key in [Key::object(Kind::OnDemandFeatureView, "p", "price"), version.clone()] {
            entry.changes.push(Change::of_key(key, Image::Absent, Image::NotKept));
        }
        let of = |kind| JournalFilter::new().with_kinds([kind]);
        assert!(!of(Kind::FeatureView).lets_through(&entry));
        assert_eq!(of(Kind::FeatureView).narrow(Arc::new(entry.clone())), None);
        let shown = of(Kind::OnDemandFeatureView).narrow(Arc::new(entry.clone())).expect("it is of this kind");
        assert_eq!(shown.changes.len(), 2);
        // Alone, a version does not say.
        entry.changes.remove(0);
        assert!(of(Kind::FeatureView).lets_through(&entry));
    }
}
