//! Who makes a call, as whoever has authenticated it says.

use std::collections::BTreeSet;

/// Who makes a call, and what policies can ask of them (Feast: `feast.permissions.user.User`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Identity {
    /// The name, which is never empty.
    pub username: String,
    /// The roles that they have.
    pub roles: BTreeSet<String>,
    /// The groups that they belong to.
    pub groups: BTreeSet<String>,
    /// The Kubernetes namespaces that they belong to.
    pub namespaces: BTreeSet<String>,
}

impl Identity {
    /// Somebody without roles, groups or namespaces.
    pub fn new(username: impl Into<String>) -> Self {
        Self { username: username.into(), roles: BTreeSet::new(), groups: BTreeSet::new(), namespaces: BTreeSet::new() }
    }

    /// The same with more roles.
    #[must_use]
    pub fn with_roles<S: Into<String>>(mut self, roles: impl IntoIterator<Item = S>) -> Self {
        self.roles.extend(roles.into_iter().map(Into::into));
        self
    }

    /// The same with more groups.
    #[must_use]
    pub fn with_groups<S: Into<String>>(mut self, groups: impl IntoIterator<Item = S>) -> Self {
        self.groups.extend(groups.into_iter().map(Into::into));
        self
    }

    /// The same with more namespaces.
    #[must_use]
    pub fn with_namespaces<S: Into<String>>(mut self, namespaces: impl IntoIterator<Item = S>) -> Self {
        self.namespaces.extend(namespaces.into_iter().map(Into::into));
        self
    }
}
