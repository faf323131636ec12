//! The permissions of a project, made ready to decide by (Feast: `enforce_policy`, `Permission.match_resource`).
//!
//! A permission is about kinds of object, names and tags; it allows actions; and its policy says to whom. One that grants is enough.
//! What a project's permissions come to for somebody is worked out once and kept ([`Grants`]), so that a check costs little.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::access::{Action, Actions, Identity, pattern::Pattern};
use crate::encoded::Object;
use crate::error::{Error, Result};
use crate::kind::Kind;
use crate::proto::core::permission_spec::Type;
use crate::proto::core::policy::PolicyType;
use crate::proto::core::{Permission, PermissionSpec};
use crate::wire;

/// How large the permissions of a project may be in all ([`size`]): all of them may be held against each object of a list.
const LARGEST: usize = 4000;
/// For how many callers at once it is known what the permissions come to.
const CALLERS: usize = 1024;
/// The field of a feature view's spec that batch feature views have.
const FEATURE_TRANSFORMATION: u32 = 15;

/// What is to be decided about: an object that is stored, or is to be, or might be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    kind: Kind,
    name: &'a str,
    /// Its bytes, if it is there: its tags may matter.
    object: Option<&'a Object>,
}

impl<'a> Subject<'a> {
    /// The infrastructure of a project has no permissions of its own: it is the project's, whose object is not looked at.
    pub(crate) fn new(kind: Kind, project: &'a str, name: &'a str, object: Option<&'a Object>) -> Self {
        match kind {
            Kind::Infra => Self { kind: Kind::Project, name: project, object: None },
            _ => Self { kind, name, object },
        }
    }

    fn has_tags(&self, tags: &[(String, String)]) -> bool {
        tags.is_empty()
            || self
                .object
                .is_some_and(|object| object.has_tags(tags.iter().map(|(key, value)| (key, value))).unwrap_or_default())
    }

    fn is_batch(&self) -> bool {
        let is_batch = |object: &Object| -> Result<bool> {
            Ok(wire::sub_message(&object.spec()?, FEATURE_TRANSFORMATION)?.is_some())
        };
        self.object.is_some_and(|object| is_batch(object).unwrap_or_default())
    }
}

/// The permissions of a project.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    grants: Vec<Grant>,
    weight: OnceLock<usize>,
    /// Of callers, by the address of their identity, which is kept alive with it.
    known: Mutex<HashMap<usize, Known>>,
}

/// Somebody, and what is granted to them.
type Known = (Arc<Identity>, Arc<Grants>);

/// A permission, made ready.
#[derive(Debug)]
struct Grant {
    name: Arc<str>,
    types: Vec<i32>,
    patterns: Vec<Pattern>,
    required_tags: Vec<(String, String)>,
    actions: Actions,
    policy: Option<PolicyType>,
}

/// What the permissions of a project grant to somebody: which of them do, in their order.
#[derive(Debug, Default)]
pub(crate) struct Grants(Vec<usize>);

impl Policies {
    /// Those of stored permissions. One that cannot be decoded grants nothing.
    pub(crate) fn new<'a>(permissions: impl Iterator<Item = &'a Object>) -> Self {
        let grants = permissions.map(|permission| {
            let grant = Grant::new(permission.decode::<Permission>().unwrap_or_default());
            if has_unknown_policy(permission) { Grant { actions: Actions::NONE, ..grant } } else { grant }
        });
        Self { grants: grants.collect(), weight: OnceLock::new(), known: Mutex::default() }
    }

    /// Whether there is no permission.
    pub(crate) fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// What they grant to somebody.
    pub(crate) fn grants_to(&self, identity: &Arc<Identity>) -> Arc<Grants> {
        let address = Arc::as_ptr(identity) as usize;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, grants)) = known.get(&address) {
            return Arc::clone(grants);
        }
        if known.len() >= CALLERS {
            known.clear();
        }
        let granting = self.grants.iter().enumerate().filter(|(_, grant)| grant.is_for(identity));
        let grants = Arc::new(Grants(granting.map(|(index, _)| index).collect()));
        known.insert(address, (Arc::clone(identity), Arc::clone(&grants)));
        grants
    }

    /// The first of somebody's grants that allows all these actions with an object.
    pub(crate) fn granting(&self, grants: &Grants, actions: Actions, subject: &Subject<'_>) -> Option<&Arc<str>> {
        let mut granted = grants.0.iter().map(|index| &self.grants[*index]);
        granted.find(|grant| grant.allows(actions, subject)).map(|grant| &grant.name)
    }

    /// How much work it is to hold them all against an object, in units of as much as a few permissions of the usual kind are.
    pub(crate) fn weight(&self) -> usize {
        const UNIT: usize = 100;
        self.weight
            .get_or_init(|| 1 + self.grants.iter().map(|grant| size(grant.patterns.iter())).sum::<usize>() / UNIT)
            .to_owned()
    }

    /// Whether there is room for these permissions beside those that they do not replace.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the project and the limit.
    pub(crate) fn check_room_for(&self, project: &str, permissions: &[&Object]) -> Result<()> {
        let specs =
            permissions.iter().map(|permission| Ok(permission.decode::<Permission>()?.spec.unwrap_or_default()));
        let specs = specs.collect::<Result<Vec<PermissionSpec>>>()?;
        let is_replaced = |grant: &&Grant| specs.iter().any(|spec| *spec.name == *grant.name);
        let stay = self.grants.iter().filter(|grant| !is_replaced(grant)).map(|grant| size(grant.patterns.iter()));
        let come = specs.iter().map(|spec| {
            let patterns: Vec<Pattern> = spec.name_patterns.iter().map(|text| Pattern::new(text)).collect();
            size(patterns.iter())
        });
        let size = stay.chain(come).sum::<usize>();
        if size <= LARGEST {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the permissions of project `{project}` would be too much work to hold against each object: {size}, and {LARGEST} is the most, \
             counting each permission, each of its name patterns, and what is repeated in these; have one permission be for several roles, \
             or one pattern for several names"
        )))
    }

    /// Each permission held against what is to be done.
    pub(crate) fn weigh(&self, identity: &Identity, actions: Actions, subject: &Subject<'_>) -> Vec<Weighed> {
        let weigh = |grant: &Grant| Weighed {
            permission: Arc::clone(&grant.name),
            lacks: grant.lacks(identity, actions, subject).collect(),
        };
        self.grants.iter().map(weigh).collect()
    }
}

/// A permission, held against what somebody is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Weighed {
    /// Its name.
    pub permission: Arc<str>,
    /// What it lacks; one that lacks nothing grants it.
    pub lacks: Vec<Lack>,
}

/// Why a permission does not grant something.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lack {
    /// It does not allow these actions.
    Actions(Actions),
    /// It is about objects of other types.
    Type,
    /// None of its name patterns matches the whole name.
    Name,
    /// The object lacks one of these tags, which it requires, or is not there.
    Tags(Vec<(String, String)>),
    /// It is for others; for whom, in words.
    Policy(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Actions(actions) => write!(f, "it does not allow {actions}"),
            Lack::Type => f.write_str("it is about other types"),
            Lack::Name => f.write_str("none of its name patterns matches"),
            Lack::Tags(tags) => {
                let tags: Vec<String> = tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "it requires the tags {}", tags.join(", "))
            }
            Lack::Policy(whom) => write!(f, "it is for {whom}"),
        }
    }
}

/// How large a permission with these name patterns is: what holding it against an object costs at the most, at each character of the
/// object's name.
fn size<'a>(patterns: impl Iterator<Item = &'a Pattern>) -> usize {
    patterns.map(|pattern| 1 + pattern.work()).fold(1, usize::saturating_add)
}

/// Whether a permission has a policy of a kind that is not known here, of a newer Feast: it is not one that lets everybody in.
fn has_unknown_policy(permission: &Object) -> bool {
    const POLICY: u32 = 7;
    const KNOWN: u32 = 6;
    let unknown = || -> Result<bool> {
        let Some(policy) = wire::sub_message(&permission.spec()?, POLICY)?.map(Cow::into_owned) else {
            return Ok(false);
        };
        for field in wire::fields(&policy) {
            if field?.number > KNOWN {
                return Ok(true);
            }
        }
        Ok(false)
    };
    unknown().unwrap_or(true)
}

impl Grant {
    fn new(permission: Permission) -> Self {
        let PermissionSpec { name, types, name_patterns, required_tags, actions, policy, .. } =
            permission.spec.unwrap_or_default();
        let trimmed = |(key, value): (String, String)| (key.trim().to_owned(), value.trim().to_owned());
        let action = |number: i32| usize::try_from(number).ok().and_then(|number| Action::ALL.get(number).copied());
        Self {
            name: name.into(),
            types,
            patterns: name_patterns.iter().map(|pattern| Pattern::new(pattern)).collect(),
            required_tags: required_tags.into_iter().map(trimmed).collect(),
            actions: actions.into_iter().filter_map(action).collect(),
            policy: policy.and_then(|policy| policy.policy_type),
        }
    }

    /// Whether the policy is met. Feast stores the one that lets everybody in as none.
    fn is_for(&self, identity: &Identity) -> bool {
        let Identity { roles, groups, namespaces, .. } = identity;
        match &self.policy {
            None => true,
            Some(PolicyType::RoleBasedPolicy(policy)) => policy.roles.iter().any(|role| roles.contains(role)),
            Some(PolicyType::GroupBasedPolicy(policy)) => policy.groups.iter().any(|group| groups.contains(group)),
            Some(PolicyType::NamespaceBasedPolicy(policy)) => {
                policy.namespaces.iter().any(|namespace| namespaces.contains(namespace))
            }
            Some(PolicyType::CombinedGroupNamespacePolicy(policy)) => {
                policy.groups.iter().any(|group| groups.contains(group))
                    || policy.namespaces.iter().any(|namespace| namespaces.contains(namespace))
            }
        }
    }

    fn allows(&self, actions: Actions, subject: &Subject<'_>) -> bool {
        self.actions.include(actions)
            && self.is_about(subject)
            && self.names(subject)
            && subject.has_tags(&self.required_tags)
    }

    fn names(&self, subject: &Subject<'_>) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(subject.name))
    }

    /// What makes it not grant something to somebody.
    fn lacks(&self, identity: &Identity, actions: Actions, subject: &Subject<'_>) -> impl Iterator<Item = Lack> {
        let denied: Actions = actions.iter().filter(|action| !self.actions.include((*action).into())).collect();
        [
            (denied != Actions::NONE).then_some(Lack::Actions(denied)),
            (!self.is_about(subject)).then_some(Lack::Type),
            (!self.names(subject)).then_some(Lack::Name),
            (!subject.has_tags(&self.required_tags)).then(|| Lack::Tags(self.required_tags.clone())),
            (!self.is_for(identity)).then(|| Lack::Policy(self.whom())),
        ]
        .into_iter()
        .flatten()
    }

    /// Whom it is for, in words.
    fn whom(&self) -> String {
        let of = |what: &str, names: &[String]| (!names.is_empty()).then(|| format!("the {what} {}", names.join(", ")));
        let whom = match &self.policy {
            None => return "everybody".to_owned(),
            Some(PolicyType::RoleBasedPolicy(policy)) => [of("roles", &policy.roles), None],
            Some(PolicyType::GroupBasedPolicy(policy)) => [of("groups", &policy.groups), None],
            Some(PolicyType::NamespaceBasedPolicy(policy)) => [of("namespaces", &policy.namespaces), None],
            Some(PolicyType::CombinedGroupNamespacePolicy(policy)) => {
                [of("groups", &policy.groups), of("namespaces", &policy.namespaces)]
            }
        };
        let whom: Vec<String> = whom.into_iter().flatten().collect();
        if whom.is_empty() { "nobody".to_owned() } else { whom.join(" and ") }
    }

    /// Whether the object is of one of the types, each of which stands for its subclasses in Feast too. None means all.
    fn is_about(&self, subject: &Subject<'_>) -> bool {
        let is_of = |number: &i32| {
            let Ok(of) = Type::try_from(*number) else { return false };
            match subject.kind {
                Kind::Project => of == Type::Project,
                Kind::Entity => of == Type::Entity,
                Kind::DataSource => of == Type::DataSource,
                Kind::FeatureView => of == Type::FeatureView || (of == Type::BatchFeatureView && subject.is_batch()),
                Kind::StreamFeatureView => matches!(of, Type::FeatureView | Type::StreamFeatureView),
                Kind::OnDemandFeatureView => of == Type::OnDemandFeatureView,
                Kind::LabelView => of == Type::LabelView,
                Kind::FeatureService => of == Type::FeatureService,
                Kind::SavedDataset => of == Type::SavedDataset,
                Kind::ValidationReference => of == Type::ValidationReference,
                Kind::Permission => of == Type::Permission,
                Kind::Infra => false,
            }
        };
        self.types.is_empty() || self.types.iter().any(is_of)
    }
}

/// The most name patterns of one permission.
const PATTERNS: usize = 100;

/// Refuses a permission whose name patterns would match nothing, or something else than in Feast.
///
/// # Errors
/// `InvalidArgument`, naming the pattern and what is wrong with it.
pub(crate) fn check_permission(permission: &Object, project: &str) -> Result<()> {
    let spec = permission.decode::<Permission>()?.spec.unwrap_or_default();
    let refused = |text: String| {
        Error::invalid(format!("permission `{}` of project `{project}` cannot be enforced: {text}", spec.name))
    };
    if spec.name_patterns.len() > PATTERNS {
        return Err(refused(format!("it has {} name patterns, and {PATTERNS} are the most", spec.name_patterns.len())));
    }
    for pattern in spec.name_patterns.iter().map(|pattern| Pattern::new(pattern)) {
        if let Some(fault) = pattern.fault() {
            return Err(refused(format!("its name pattern `{}` {fault}", pattern.text())));
        }
    }
    Ok(())
}
