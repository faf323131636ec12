//! Whether somebody may do something, and why.

use std::fmt;
use std::sync::Arc;

use crate::access::policies::{Policies, Subject, Weighed};
use crate::access::{Access, Action, Actions, Grounds, Unprotected};
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::Kind;

/// Whether somebody may do something, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// Whether they may.
    pub is_allowed: bool,
    /// Why, or why not.
    pub reason: Reason,
}

/// A decision, and what each permission of the project has to do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// Whether somebody may do something, and why.
    pub decision: Decision,
    /// The permissions of the project, in their order.
    pub weighed: Vec<Weighed>,
}

/// What a decision rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// They are an administrator of this registry ([`AccessRules::admins`](crate::access::AccessRules)).
    Admin,
    /// They made the project.
    Creator,
    /// This permission of the project grants it.
    Permission(Arc<str>),
    /// The project has permissions, and none of them grants it.
    NoneGrants,
    /// The project has no permissions, so the rule for such projects holds.
    NoPermissions,
    /// The project is not there, so the rule about who may make projects holds.
    NewProject,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Admin => f.write_str("an administrator may do everything"),
            Reason::Creator => f.write_str("who made a project may do everything in it"),
            Reason::Permission(name) => write!(f, "permission `{name}` grants it"),
            Reason::NoneGrants => f.write_str("no permission of the project grants it"),
            Reason::NoPermissions => {
                f.write_str("the project has no permissions, and the rule for such projects decides")
            }
            Reason::NewProject => {
                f.write_str("the project is not there, and the rule about who may make projects decides")
            }
        }
    }
}

/// Something that was decided while a call was done, to be noted before it has an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decided {
    /// What was to be done.
    pub actions: Actions,
    /// With an object of which kind.
    pub kind: Kind,
    /// Of which project.
    pub project: String,
    /// The object's name.
    pub name: String,
    /// Whether it may be done, and why.
    pub decision: Decision,
    /// Whether it was to be tried out alone ([`CallOptions::dry`](crate::CallOptions::dry)).
    pub is_dry: bool,
}

/// Decides about the objects of one project.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    access: Access,
    project: String,
    policies: Arc<Policies>,
    grounds: Grounds,
    /// Whether anything of a project is known whose object is not there.
    has_remains: bool,
    /// What was decided by [`check`](Self::check).
    decided: Vec<Decided>,
}

impl Judge {
    pub(crate) fn new(
        access: Access,
        project: &str,
        policies: Arc<Policies>,
        grounds: Grounds,
        has_remains: bool,
    ) -> Self {
        Self { access, project: project.to_owned(), policies, grounds, has_remains, decided: Vec::new() }
    }

    /// Has it go by something else from now on.
    pub(crate) fn go_by(&mut self, policies: Policies, grounds: Grounds) {
        (self.policies, self.grounds) = (Arc::new(policies), grounds);
    }

    /// Which project it goes by.
    pub(crate) fn grounds(&self) -> &Grounds {
        &self.grounds
    }

    /// Whether there is nothing of the project.
    fn is_new(&self) -> bool {
        !self.grounds.is_there && !self.has_remains
    }

    /// Who is judged.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Whether somebody may do all of this with an object.
    fn decide(&self, actions: Actions, subject: &Subject<'_>) -> Decision {
        let rule = self.access.rules();
        let decision = |is_allowed, reason| Decision { is_allowed, reason };
        if self.access.is_admin() {
            return decision(true, Reason::Admin);
        }
        let identity = self.access.identity();
        if self.grounds.is_creator(&identity.username) {
            return decision(true, Reason::Creator);
        }
        if !self.policies.is_empty() {
            let grants = self.policies.grants_to(identity);
            return match self.policies.granting(&grants, actions, subject) {
                Some(permission) => decision(true, Reason::Permission(Arc::clone(permission))),
                None => decision(false, Reason::NoneGrants),
            };
        }
        // What is replaced in a project that is made by the same commit was made by it too.
        if self.is_new() && (actions == Action::Create.into() || actions == Actions::REPLACE) {
            return decision(rule.lets_anyone_create_projects, Reason::NewProject);
        }
        decision(rule.unprotected == Unprotected::Allow, Reason::NoPermissions)
    }

    /// Whether somebody may do all of this with an object, and why.
    pub(crate) fn decide_about(&self, actions: Actions, kind: Kind, name: &str, object: Option<&Object>) -> Decision {
        self.decide(actions, &self.subject(kind, name, object))
    }

    /// The same, with what each permission of the project has to do with it.
    pub(crate) fn explain(&self, actions: Actions, kind: Kind, name: &str, object: Option<&Object>) -> Explanation {
        let weighed = self.policies.weigh(self.access.identity(), actions, &self.subject(kind, name, object));
        Explanation { decision: self.decide_about(actions, kind, name, object), weighed }
    }

    /// Whether somebody may see an object. An object without a name that can be read is nobody's.
    pub(crate) fn sees(&self, object: &Object) -> bool {
        object.name().is_ok_and(|name| self.may_see(object.kind, &name, Some(object)))
    }

    /// Whether somebody may see an object of a name, which may be there or not.
    pub(crate) fn may_see(&self, kind: Kind, name: &str, object: Option<&Object>) -> bool {
        self.allows(Action::Describe.into(), kind, name, object)
    }

    fn subject<'a>(&'a self, kind: Kind, name: &'a str, object: Option<&'a Object>) -> Subject<'a> {
        Subject::new(kind, &self.project, name, object)
    }

    /// Refuses what somebody may not do, in words that do not tell whether the object is there.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(crate) fn check(&mut self, actions: Actions, kind: Kind, name: &str, object: Option<&Object>) -> Result<()> {
        let decision = self.decide_about(actions, kind, name, object);
        tracing::debug!(
            user = self.access.identity().username,
            %actions,
            project = self.project,
            %kind,
            name,
            allowed = decision.is_allowed,
            reason = %decision.reason,
            "decided"
        );
        let is_allowed = decision.is_allowed;
        self.note(actions, kind, name, decision);
        if is_allowed { Ok(()) } else { Err(self.denied(actions, kind, name)) }
    }

    /// Refuses something without looking further, as what is not there would be refused.
    ///
    /// # Errors
    /// `PermissionDenied`, always.
    pub(crate) fn refuse(&mut self, actions: Actions, kind: Kind, name: &str) -> Result<()> {
        self.note(actions, kind, name, Decision { is_allowed: false, reason: Reason::NoneGrants });
        Err(self.denied(actions, kind, name))
    }

    /// Whether somebody may do all of this with an object, which is not noted.
    pub(crate) fn allows(&self, actions: Actions, kind: Kind, name: &str, object: Option<&Object>) -> bool {
        self.decide_about(actions, kind, name, object).is_allowed
    }

    /// Whether the project is not there, and somebody may make it.
    pub(crate) fn may_make_project(&self) -> bool {
        self.is_new() && self.allows(Action::Create.into(), Kind::Project, &self.project, None)
    }

    /// Whether something that was to be done with an object has been allowed.
    pub(crate) fn has_allowed(&self, kind: Kind, name: &str) -> bool {
        let mut noted = self.decided.iter().rev();
        noted.any(|decided| decided.kind == kind && decided.name == name && decided.decision.is_allowed)
    }

    /// Whether the project has room for these permissions. Whoever may not store them is told so later, and not how many there are.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the project and the limit.
    pub(crate) fn check_room_for(&self, permissions: &[&Object]) -> Result<()> {
        let may_store = |permission: &&Object| {
            let name = permission.name().unwrap_or_default();
            let may = |action: Action| self.allows(action.into(), Kind::Permission, &name, Some(permission));
            may(Action::Create) || may(Action::Update)
        };
        if permissions.iter().all(may_store) {
            self.policies.check_room_for(&self.project, permissions)
        } else {
            Ok(())
        }
    }

    /// How much work it is to decide about an object, in units of the usual.
    pub(crate) fn weight(&self) -> usize {
        self.policies.weight()
    }

    /// Whether the project is theirs to give to somebody.
    pub(crate) fn owns(&self) -> bool {
        self.access.is_admin() || self.grounds.is_creator(&self.access.identity().username)
    }

    fn note(&mut self, actions: Actions, kind: Kind, name: &str, decision: Decision) {
        let (project, name) = (self.project.clone(), name.to_owned());
        let decided = Decided { actions, kind, project, name, decision, is_dry: false };
        if !self.decided.contains(&decided) {
            self.decided.push(decided);
        }
    }

    /// What has been decided by [`check`](Self::check), each thing once.
    pub(crate) fn take_decided(&mut self) -> Vec<Decided> {
        std::mem::take(&mut self.decided)
    }

    fn denied(&self, actions: Actions, kind: Kind, name: &str) -> Error {
        denied(&self.access.identity().username, actions, kind, &self.project, name)
    }
}

/// That somebody may not do something. Whether the object is there is not told: it is the same for one that is not.
fn denied(user: &str, actions: Actions, kind: Kind, project: &str, name: &str) -> Error {
    let change = Actions::from(Action::Create) | Action::Update.into();
    let what = match actions {
        _ if actions == Actions::REPLACE || change.include(actions) => "create or update".to_owned(),
        _ if actions == Action::WriteOnline.into() => "record materializations of".to_owned(),
        _ => actions.to_string().to_lowercase(),
    };
    let what_of = match kind {
        Kind::Project | Kind::Infra => format!("project `{project}`"),
        _ => format!("{} `{name}` of project `{project}`", kind.label()),
    };
    Error::new(
        ErrorKind::PermissionDenied,
        format!("`{user}` is not permitted to {what} {what_of}; a permission of that project has to grant it"),
    )
}
