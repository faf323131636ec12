//! What the caller of a handle may see and do.
//!
//! What may not be seen is left out of lists, and is not there for who asks for it by name: whether the answer is that it is not
//! there, or that the caller may not know, depends on the name alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use prost_types::Timestamp;

use crate::access::{Access, Action, Actions, Decision, Explanation, Judge, Judges};
use crate::backend::{Key, Query, Record};
use crate::draft::Fetched;
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Change, Image, JournalEntry, Target};
use crate::kind::Kind;
use crate::registry::Registry;
use crate::rules::Goals;

impl Registry {
    /// Whether somebody may do something with an object, whether it is there or not, and why. Nothing is noted by a witness.
    ///
    /// # Errors
    /// Those of the storage, when the cache is filled first.
    pub async fn decide(
        &self,
        access: &Access,
        actions: impl Into<Actions>,
        (kind, project, name): (Kind, &str, &str),
    ) -> Result<Decision> {
        Ok(self.explain(access, actions, (kind, project, name)).await?.decision)
    }

    /// The same, with what each permission of the project has to do with it.
    ///
    /// # Errors
    /// Those of the storage, when the cache is filled first.
    pub async fn explain(
        &self,
        access: &Access,
        actions: impl Into<Actions>,
        (kind, project, name): (Kind, &str, &str),
    ) -> Result<Explanation> {
        let judge = self.judge_for(access, project).await?;
        let name = if kind == Kind::Project { project } else { name };
        let stored = self.with_call(self.call.clone().without_access()).find_cached(kind, project, name).await?;
        Ok(judge.explain(actions.into(), kind, name, stored.as_ref()))
    }

    async fn judge_for(&self, access: &Access, project: &str) -> Result<Judge> {
        let (policies, exists) = self.cached(|contents| contents.policies(project)).await?;
        Ok(Judge::new(access.clone(), project, policies, exists))
    }

    /// Who decides about a project for the caller; none if the caller may do everything, unsaid.
    pub(super) async fn judge(&self, project: &str) -> Result<Option<Judge>> {
        match self.call.access() {
            Some(access) => Ok(Some(self.judge_for(access, project).await?)),
            None => Ok(None),
        }
    }

    /// Whether a project is not there, and the caller is somebody who may make it.
    pub(super) async fn may_make(&self, project: &str) -> Result<bool> {
        Ok(self.judge(project).await?.is_some_and(|judge| judge.may_make_project()))
    }

    /// Refuses permissions of tenants beyond what can be held against each object of a list without holding others up. Two who
    /// apply some at the same time may get a few past it.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the project and the limit.
    pub(super) async fn check_room_for_permissions(
        &self,
        project: &str,
        objects: impl Iterator<Item = &Object> + Send,
    ) -> Result<()> {
        let permissions: Vec<&Object> = objects.filter(|object| object.kind == Kind::Permission).collect();
        match self.judge(project).await? {
            Some(judge) if !permissions.is_empty() => judge.check_room_for(&permissions),
            _ => Ok(()),
        }
    }

    /// Who decides about the projects of a write.
    pub(super) async fn judges(&self, queries: &[Query]) -> Result<Judges> {
        let Some(access) = self.call.access() else { return Ok(Judges::default()) };
        Ok(Judges::new(access.clone(), self.judges_of(access, projects_of(queries)).await?))
    }

    async fn judges_of(&self, access: &Access, projects: BTreeSet<&str>) -> Result<HashMap<String, Judge>> {
        let mut judges = HashMap::new();
        for project in projects {
            judges.insert(project.to_owned(), self.judge_for(access, project).await?);
        }
        Ok(judges)
    }

    /// What there is under a name for the caller, of what was found there. Kinds are those that it may be of.
    ///
    /// # Errors
    /// `PermissionDenied` for whoever may not see such an object, whether it is there or not.
    pub(super) async fn shown(
        &self,
        (kinds, project, name): (&[Kind], &str, &str),
        found: Result<Option<Object>>,
    ) -> Result<Option<Object>> {
        let Some(mut judge) = self.judge(project).await? else { return found };
        if let Ok(Some(object)) = &found
            && judge.may_see(object.kind, name, Some(object))
        {
            return found;
        }
        if kinds.iter().any(|kind| judge.may_see(*kind, name, None)) {
            return found.map(|_| None);
        }
        let refused = judge.refuse(Action::Describe.into(), kinds.first().copied().unwrap_or(Kind::Project), name);
        // It is refused whether that could be noted or not.
        drop(judge.access().clone().note(&judge.take_decided()).await);
        refused.map(|()| None)
    }

    /// Refuses to tell of a project whoever may not see it.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(super) async fn check_sees_project(&self, project: &str) -> Result<bool> {
        if self.call.access().is_none() {
            return Ok(true);
        }
        let found = self.find_cached(Kind::Project, project, project).await;
        Ok(self.shown((&[Kind::Project], project, project), found).await?.is_some())
    }

    /// The objects of a project that the caller may see.
    pub(super) async fn only_seen(&self, project: &str, objects: Vec<Object>) -> Result<Vec<Object>> {
        let Some(judge) = self.judge(project).await?.filter(|judge| !judge.access().is_admin()) else {
            return Ok(objects);
        };
        let count = objects.len();
        self.compute(count, move || Ok(objects.into_iter().filter(|object| judge.sees(object)).collect())).await
    }

    /// The records that the caller may see, of objects of all projects: it is their keys that say of which.
    pub(super) async fn only_seen_of_all(&self, records: Vec<Record>) -> Result<Vec<Record>> {
        let Some(access) = self.call.access().filter(|access| !access.is_admin()) else { return Ok(records) };
        let projects = records.iter().map(|record| record.key.project()).collect();
        let judges = self.judges_of(access, projects).await?;
        let is_seen = move |record: &Record| {
            let Key::Object { kind, project, name } = &record.key else { return false };
            let object = Object::new(*kind, record.value.clone());
            judges.get(project).is_some_and(|judge| judge.may_see(*kind, name, Some(&object)))
        };
        let count = records.len();
        self.compute(count, move || Ok(records.into_iter().filter(is_seen).collect())).await
    }

    /// What the caller may see of an entry of the journal; nothing if that is none of it.
    ///
    /// The history of a project that is gone, and what was in an earlier one of its name, is for administrators. Where an entry does not
    /// have what was stored, as in a log, tags that a permission requires are taken to be missing.
    ///
    /// # Errors
    /// Those of the storage, when the cache is filled first.
    pub(crate) async fn seen_of(&self, entry: Arc<JournalEntry>) -> Result<Option<Arc<JournalEntry>>> {
        let Some(access) = self.call.access().filter(|access| !access.is_admin()) else { return Ok(Some(entry)) };
        let mut projects = BTreeSet::new();
        for project in entry.changes.iter().map(|change| change.target.project()).collect::<BTreeSet<_>>() {
            let began = self.cached(|contents| {
                let project = contents.entry(Kind::Project, project, project)?;
                Some(Object::new(Kind::Project, project.bytes.clone()))
            });
            let is_of_this_one = began.await?.is_some_and(|object| {
                let created = object.created_timestamp().ok().flatten();
                created.is_none_or(|created| order(&created) <= order(&entry.at))
            });
            if is_of_this_one {
                projects.insert(project);
            }
        }
        let judges = self.judges_of(access, projects).await?;
        let is_seen =
            |change: &Change| judges.get(change.target.project()).is_some_and(|judge| sees_change(judge, change));
        let seen = JournalEntry::narrowed(entry, is_seen);
        Ok((!seen.changes.is_empty()).then_some(seen))
    }

    /// Refuses to undo what the caller may not see, before it is told what that would be.
    pub(super) fn check_undo(&self, judges: &mut Judges, goals: &Goals, fetched: &Fetched) -> Result<()> {
        if self.call.access().is_none_or(Access::is_admin) {
            return Ok(());
        }
        for (key, goal) in goals.iter() {
            let Key::Object { kind, project, name } = key else { continue };
            let before = fetched.record(key).map(|record| record.value.clone());
            let after = if let Image::Value(after) = &goal.to { Some(after.clone()) } else { None };
            let is_there = fetched.record(&Key::project_object(project)).is_some();
            let images = [before, after].into_iter().flatten().map(|bytes| Object::new(*kind, bytes));
            for image in images {
                if !is_there || !judges.sees_as(project, *kind, name, &image)? {
                    return Err(Error::new(
                        ErrorKind::PermissionDenied,
                        format!(
                            "what is to be undone changed {key} or others that you are not permitted to see; an administrator can undo it"
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Refuses what concerns the whole registry to whoever is not an administrator.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(super) fn check_admin(&self, what: &str) -> Result<()> {
        match self.call.access() {
            Some(access) if !access.is_admin() => Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "`{}` is not permitted to {what}; that is for administrators of the registry",
                    access.identity().username
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Whether somebody sees a change. What goes with a view is seen with it.
fn sees_change(judge: &Judge, change: &Change) -> bool {
    let sees = |kind: Kind, name: &str| {
        let images = [&change.before, &change.after].map(|image| match image {
            Image::Value(bytes) => Some(Object::new(kind, bytes.clone())),
            _ => None,
        });
        match images {
            [None, None] => judge.may_see(kind, name, None),
            images => images.iter().flatten().all(|image| judge.may_see(kind, name, Some(image))),
        }
    };
    match &change.target {
        Target::Project { project } => sees(Kind::Project, project),
        Target::Versions { view, .. } | Target::Key(Key::Version { view, .. }) => {
            Kind::VIEWS.iter().any(|kind| judge.may_see(*kind, view, None))
        }
        Target::Key(Key::UserMetadata { kind, view, .. }) => judge.may_see(*kind, view, None),
        Target::Key(Key::Object { kind, name, .. }) => sees(*kind, name),
        Target::Key(Key::Metadata { project, .. }) => judge.may_see(Kind::Project, project, None),
    }
}

fn projects_of(queries: &[Query]) -> BTreeSet<&str> {
    let mut projects = BTreeSet::new();
    for query in queries {
        match query {
            Query::Keys(keys) => projects.extend(keys.iter().map(Key::project)),
            Query::Objects { project, .. } | Query::Metadata { project } => projects.extend(project.as_deref()),
            Query::Versions { project, .. } => drop(projects.insert(project.as_str())),
        }
    }
    projects
}

fn order(moment: &Timestamp) -> (i64, i32) {
    (moment.seconds, moment.nanos)
}
