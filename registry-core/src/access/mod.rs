//! Who may do what: Feast's permissions, as they are enforced.
//!
//! A registry enforces them for a handle that says who calls ([`CallOptions::with_access`](crate::CallOptions::with_access)); without
//! that, everything is allowed. An object is always judged by the permissions of the project that it is in, as they are in the
//! cache: what another process grants or takes away holds here within a second where the storage has a journal.
//!
//! ```
//! use std::sync::Arc;
//! use feast_registry_core::access::{Access, AccessRules, Identity, Unprotected};
//! use feast_registry_core::proto::core::{Entity, EntitySpecV2};
//! use feast_registry_core::{CallOptions, ErrorKind, MemoryBackend, Registry, RegistryOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> feast_registry_core::Result<()> {
//! let registry = Registry::open(Arc::new(MemoryBackend::new()), RegistryOptions::default()).await?;
//! let rules = Arc::new(AccessRules::default().with_unprotected(Unprotected::Deny));
//! let caller = |name: &str| {
//!     let access = Access::new(Arc::new(Identity::new(name)), Arc::clone(&rules));
//!     registry.with_call(CallOptions::new().with_access(access))
//! };
//! let driver = Entity { spec: Some(EntitySpecV2 { name: "driver".into(), ..Default::default() }), meta: None };
//! // Alice makes the project, so it is hers.
//! caller("alice").apply("rides", &driver).await?;
//! let refused = caller("bob").apply("rides", &driver).await.unwrap_err();
//! assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
//! # Ok(())
//! # }
//! ```

mod action;
mod decision;
mod grounds;
mod identity;
mod judges;
mod pattern;
mod policies;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::async_trait;
use crate::error::{Error, ErrorKind, Result};

pub use action::{Action, Actions};
pub use decision::{Decided, Decision, Explanation, Reason};
pub use identity::Identity;
pub use policies::{Lack, Weighed};

pub(crate) use decision::Judge;
pub(crate) use grounds::Grounds;
pub(crate) use judges::Judges;
pub(crate) use policies::{Policies, check_permission};

/// What is allowed in a project that has no permissions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unprotected {
    /// Everything, to everybody who says who they are (as in Feast).
    #[default]
    Allow,
    /// Nothing, but to administrators and to who made the project.
    Deny,
}

/// What holds besides the permissions that are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessRules {
    /// What is allowed in a project that has no permissions.
    pub unprotected: Unprotected,
    /// Whether everybody may make a project, which is then theirs; else only administrators may.
    pub lets_anyone_create_projects: bool,
    /// Who may do everything, in all projects.
    pub admins: Admins,
}

/// Who may do everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admins {
    /// These, by their names.
    pub users: BTreeSet<String>,
    /// Who has one of these roles.
    pub roles: BTreeSet<String>,
    /// Who belongs to one of these groups.
    pub groups: BTreeSet<String>,
}

impl Admins {
    /// Adds those that a text names: a user, or with `role:` or `group:` before it whoever has that. A name with another word and a
    /// colon in it, as those of service accounts have, is a user's; `user:` says so too.
    ///
    /// # Errors
    /// `InvalidConfig` for an empty name, and for `roles:` and the like, which would be a user's and is not meant to.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let refused = |why: &str| Err(Error::new(ErrorKind::InvalidConfig, format!("`{text}` {why}")));
        let (kind, name) = text.split_once(':').unwrap_or(("user", text));
        let set = match kind {
            "user" => &mut self.users,
            "role" => &mut self.roles,
            "group" => &mut self.groups,
            "users" | "roles" | "groups" | "admin" | "admins" => {
                return refused("names nobody; write `role:NAME`, `group:NAME`, or the name of a user");
            }
            _ => {
                self.users.insert(text.to_owned());
                return Ok(());
            }
        };
        if name.trim().is_empty() {
            return refused("has no name in it");
        }
        set.insert(name.to_owned());
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.roles.is_empty() && self.groups.is_empty()
    }

    /// Whether somebody is one of them.
    pub fn include(&self, identity: &Identity) -> bool {
        self.users.contains(&identity.username)
            || !self.roles.is_disjoint(&identity.roles)
            || !self.groups.is_disjoint(&identity.groups)
    }
}

impl Default for AccessRules {
    /// As in Feast: everything is allowed in a project without permissions, everybody may make one, and nobody is an administrator.
    fn default() -> Self {
        Self { unprotected: Unprotected::Allow, lets_anyone_create_projects: true, admins: Admins::default() }
    }
}

impl AccessRules {
    /// The same with another rule for projects without permissions.
    #[must_use]
    pub fn with_unprotected(self, unprotected: Unprotected) -> Self {
        Self { unprotected, ..self }
    }

    /// The same where everybody, or only administrators, may make a project.
    #[must_use]
    pub fn with_anyone_creating_projects(self, anyone: bool) -> Self {
        Self { lets_anyone_create_projects: anyone, ..self }
    }

    /// The same with other administrators.
    #[must_use]
    pub fn with_admins(self, admins: Admins) -> Self {
        Self { admins, ..self }
    }
}

/// Notes what has been decided, before it has an effect.
#[async_trait]
pub trait Witness: Send + Sync {
    /// Notes what a call may or may not do. Of reads, only refusals are noted, and not what a list leaves out. A call that decides again,
    /// since others wrote meanwhile, is noted again only where something else came out.
    ///
    /// # Errors
    /// Whatever keeps the call from being done. One that was refused is refused all the same.
    async fn note(&self, access: &Access, decided: &[Decided]) -> Result<()>;
}

/// Who makes a call, and what decides whether they may. Cloning is cheap.
#[derive(Clone)]
pub struct Access {
    identity: Arc<Identity>,
    rules: Arc<AccessRules>,
    is_admin: bool,
    witness: Option<Arc<dyn Witness>>,
}

impl Access {
    /// A call of somebody. What permissions come to for them is kept with `identity`: whoever calls often has the same one each time.
    pub fn new(identity: Arc<Identity>, rules: Arc<AccessRules>) -> Self {
        let is_admin = rules.admins.include(&identity);
        Self { identity, rules, is_admin, witness: None }
    }

    /// The same for somebody who may do everything.
    #[must_use]
    pub fn as_admin(self) -> Self {
        Self { is_admin: true, ..self }
    }

    /// The same, noted by a witness.
    #[must_use]
    pub fn with_witness(self, witness: Arc<dyn Witness>) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// The same, noted by nobody: what is done was noted before.
    pub(crate) fn unnoted(&self) -> Self {
        Self { witness: None, ..self.clone() }
    }

    /// Who calls.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Whether they may do everything.
    pub fn is_admin(&self) -> bool {
        self.is_admin
    }

    /// What holds besides the permissions that are stored.
    pub fn rules(&self) -> &AccessRules {
        &self.rules
    }

    /// Has what was decided noted, if anything was and anybody notes it.
    pub(crate) async fn note(&self, decided: &[Decided]) -> Result<()> {
        match &self.witness {
            Some(witness) if !decided.is_empty() => witness.note(self, decided).await,
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("user", &self.identity.username)
            .field("is_admin", &self.is_admin)
            .finish_non_exhaustive()
    }
}
