//! What the caller of a handle may see and do.
//!
//! What may not be seen is left out of lists, and is not there for who asks for it by name: whether the answer is that it is not
//! there, or that the caller may not know, depends on the name alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use prost_types::Timestamp;

use crate::access::{Access, Action, Actions, Decision, Explanation, Grounds, Judge, Judges, Policies};
use crate::backend::{Key, Query, Record};
use crate::cache::Contents;
use crate::deadline::Deadline;
use crate::draft::Fetched;
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Change, Image, JournalEntry, Revision, Target};
use crate::kind::Kind;
use crate::registry::Registry;
use crate::rules::{self, Goals};

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
        let (judge, name, stored) = self.judge_about(access, (kind, project, name)).await?;
        Ok(judge.decide_about(actions.into(), kind, name, stored.as_ref()))
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
        let (judge, name, stored) = self.judge_about(access, (kind, project, name)).await?;
        Ok(judge.explain(actions.into(), kind, name, stored.as_ref()))
    }

    /// Who decides about an object, with its name and what is stored of it.
    async fn judge_about<'a>(
        &self,
        access: &Access,
        (kind, project, name): (Kind, &'a str, &'a str),
    ) -> Result<(Judge, &'a str, Option<Object>)> {
        let judge = self.judge_for(access, project).await?;
        let name = if kind == Kind::Project { project } else { name };
        let stored = self.with_call(self.call.clone().without_access()).find_cached(kind, project, name).await?;
        Ok((judge, name, stored))
    }

    async fn judge_for(&self, access: &Access, project: &str) -> Result<Judge> {
        // What waits to be written counts already.
        let overlay = self.inner.overlay().filter(|overlay| overlay.is_about(project));
        let look = |contents: &Contents| {
            let (policies, grounds) = match &overlay {
                None => (contents.policies(project), contents.grounds(project)),
                Some(overlay) => {
                    let mut permissions = contents.records(Kind::Permission, Some(project));
                    overlay.show(&Query::objects(Kind::Permission, Some(project)), &mut permissions, true);
                    let grounds = Grounds::of(project, |key| overlay.over(key, contents.stored(key)));
                    (Arc::new(policies_of(permissions)), grounds)
                }
            };
            let has_remains = !grounds.is_there && contents.has_objects_of(project);
            Judge::new(access.clone(), project, policies, grounds, has_remains)
        };
        self.cached(look).await
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
        if permissions.is_empty() {
            return Ok(());
        }
        self.judge(project).await?.map_or(Ok(()), |judge| judge.check_room_for(&permissions))
    }

    /// Who decides about the projects of a write, which then has to read what they go by as well.
    pub(super) async fn judges(&self, queries: &mut Vec<Query>) -> Result<Judges> {
        let Some(access) = self.call.access() else { return Ok(Judges::default()) };
        let judges = self.judges_of(access, projects_of(queries)).await?;
        queries.push(Query::Keys(judges.keys().flat_map(|project| Grounds::keys(project)).collect()));
        Ok(Judges::new(access.clone(), judges).tried_out(self.call.is_dry()))
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
        let (deadline, work) = (self.deadline(), objects.len() * judge.weight());
        self.compute(work, move || only(objects, &deadline, |object| judge.sees(object))).await
    }

    /// The records that the caller may see, of objects of all projects: it is their keys that say of which.
    pub(super) async fn only_seen_of_all(&self, records: Vec<Record>) -> Result<Vec<Record>> {
        let Some(access) = self.call.access().filter(|access| !access.is_admin()) else { return Ok(records) };
        let projects = records.iter().map(|record| record.key.project()).collect();
        let judges = self.judges_of(access, projects).await?;
        let weight_of = |record: &Record| judges.get(record.key.project()).map_or(0, Judge::weight);
        let work = records.iter().map(weight_of).sum();
        let is_seen = move |record: &Record| {
            let Key::Object { kind, project, name } = &record.key else { return false };
            let object = Object::new(*kind, record.value.clone());
            judges.get(project).is_some_and(|judge| judge.may_see(*kind, name, Some(&object)))
        };
        let deadline = self.deadline();
        self.compute(work, move || only(records, &deadline, is_seen)).await
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
            if self.cached(|contents| is_of_present(contents, project, &entry)).await? {
                projects.insert(project);
            }
        }
        let judges = self.judges_of(access, projects).await?;
        let whole = Arc::clone(&entry);
        let is_seen = |change: &Change| {
            judges.get(change.target.project()).is_some_and(|judge| sees_change(judge, change, &whole.changes))
        };
        let seen = JournalEntry::narrowed(entry, is_seen);
        Ok((!seen.changes.is_empty()).then_some(seen))
    }

    /// Refuses to undo an entry of the journal whose wanted changes the caller may not all see. Those of a project that is gone, and of
    /// an earlier one of its name, nobody may but administrators.
    ///
    /// # Errors
    /// `PermissionDenied`, which does not name what was changed; those of the storage, when the cache is filled first.
    pub(super) async fn check_sees_all(&self, entry: &JournalEntry, is_wanted: impl Fn(&Key) -> bool) -> Result<()> {
        if self.call.access().is_none_or(Access::is_admin) {
            return Ok(());
        }
        let mut wanted = entry.clone();
        wanted.changes.retain(|change| match &change.target {
            // It changes with whatever is changed in the project.
            Target::Key(Key::Metadata { name, .. }) if name == Key::LAST_UPDATED => false,
            Target::Key(key) => is_wanted(key),
            Target::Project { project } => is_wanted(&Key::project_object(project)),
            Target::Versions { project, view } => {
                is_wanted(&Key::Version { project: project.clone(), view: view.clone(), number: 0 })
            }
        });
        let changes = wanted.changes.len();
        let seen = self.seen_of(Arc::new(wanted)).await?.map_or(0, |seen| seen.changes.len());
        if seen == changes { Ok(()) } else { Err(undo_refused()) }
    }

    /// What is to be restored, or that it cannot be; but whoever may not see it is told the same whether it is there or not.
    ///
    /// # Errors
    /// `PermissionDenied` for them; else that with which it was found.
    pub(super) async fn shown_to_restore(
        &self,
        key: &Key,
        found: Result<(Revision, Goals)>,
    ) -> Result<(Revision, Goals)> {
        let Key::Object { kind, project, name } = key else { return found };
        let Some(judge) = self.judge(project).await?.filter(|judge| !judge.access().is_admin()) else { return found };
        let is_seen = match &found {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound(_) | ErrorKind::Unsupported) => {
                judge.may_see(*kind, name, None)
            }
            // It is as it was then.
            Ok((_, goals)) if goals.get(key).is_none() => {
                let stored = self.find_cached(*kind, project, name).await?;
                judge.may_see(*kind, name, stored.as_ref())
            }
            Ok(_) | Err(_) => true,
        };
        if is_seen { found } else { Err(undo_refused()) }
    }

    /// Refuses to undo what the caller may not see as it is, or as it would be, before it is told what that would be.
    ///
    /// # Errors
    /// `PermissionDenied`, which does not name what it is.
    pub(super) fn check_undo(&self, judges: &mut Judges, goals: &Goals, fetched: &Fetched) -> Result<()> {
        if self.call.access().is_none_or(Access::is_admin) {
            return Ok(());
        }
        for (key, goal) in goals.iter() {
            let (kind, project, name) = match key {
                Key::Object { kind, project, name } => (*kind, project, name),
                Key::UserMetadata { kind, project, view } => (*kind, project, view),
                // They go with an object, and were looked at in the journal.
                Key::Version { .. } | Key::Metadata { .. } => continue,
            };
            let stored = fetched.record(&Key::object(kind, project, name)).map(|record| record.value.clone());
            let to = match (&goal.to, key) {
                (Image::Value(to), Key::Object { .. }) => Some(to.clone()),
                _ => None,
            };
            let mut images: Vec<_> =
                [stored, to].into_iter().flatten().map(|bytes| Some(Object::new(kind, bytes))).collect();
            if images.is_empty() {
                images.push(None);
            }
            let is_there = fetched.record(&Key::project_object(project)).is_some();
            for image in images {
                if !is_there || !judges.sees_as(project, kind, name, image.as_ref())? {
                    return Err(undo_refused());
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

/// The permissions that were read.
pub(super) fn policies_of(permissions: Vec<Record>) -> Policies {
    let permissions: Vec<Object> =
        permissions.into_iter().map(|record| Object::new(Kind::Permission, record.value)).collect();
    Policies::new(permissions.iter())
}

/// Those that are seen. It ends at the deadline: tenants say how much work their permissions are.
///
/// # Errors
/// `DeadlineExceeded`.
fn only<T>(all: Vec<T>, deadline: &Deadline, is_seen: impl Fn(&T) -> bool) -> Result<Vec<T>> {
    const LOOKS_EVERY: usize = 64;
    let mut seen = Vec::new();
    for (index, one) in all.into_iter().enumerate() {
        if index % LOOKS_EVERY == 0 {
            deadline.check("a list to be held against permissions")?;
        }
        if is_seen(&one) {
            seen.push(one);
        }
    }
    Ok(seen)
}

/// Whether an entry of the journal is of the project of this name that there is now, and not of an earlier one. Clocks, which may
/// differ, only count where it is not noted after which revision the project was made: it was made by nobody in particular.
fn is_of_present(contents: &Contents, project: &str, entry: &JournalEntry) -> bool {
    let Some(object) = contents.entry(Kind::Project, project, project) else { return false };
    let made_after = contents.stored(&Key::metadata(project, Key::MADE_AFTER));
    match made_after.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()) {
        Some(revision) => entry.revision > Revision::new(revision),
        None => {
            let created = Object::new(Kind::Project, object.bytes.clone()).created_timestamp().ok().flatten();
            created.is_none_or(|created| order(&created) <= order(&entry.at))
        }
    }
}

/// That somebody may not undo what they do not see. It is the same whatever that is.
fn undo_refused() -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        "what is to be undone changed something that you are not permitted to see; an administrator can undo it",
    )
}

/// Whether somebody sees a change, which is one of those of a commit. What goes with a view is seen with it.
fn sees_change(judge: &Judge, change: &Change, all: &[Change]) -> bool {
    let images = || {
        [&change.before, &change.after].into_iter().filter_map(|image| match image {
            Image::Value(bytes) => Some(bytes),
            Image::Absent | Image::NotKept => None,
        })
    };
    let sees = |kind: Kind, name: &str| {
        let mut images = images().map(|bytes| Object::new(kind, bytes.clone())).peekable();
        match images.peek() {
            None => judge.may_see(kind, name, None),
            Some(_) => images.all(|image| judge.may_see(kind, name, Some(&image))),
        }
    };
    match &change.target {
        Target::Project { project } => sees(Kind::Project, project),
        Target::Key(Key::Version { project, view, .. }) => {
            let mut versions = images().peekable();
            match versions.peek() {
                None => sees_view(judge, (project, view), all),
                Some(_) => versions.all(|version| sees_version(judge, view, version)),
            }
        }
        Target::Versions { project, view } => sees_view(judge, (project, view), all),
        Target::Key(Key::UserMetadata { kind, view, .. }) => judge.may_see(*kind, view, None),
        Target::Key(Key::Object { kind, name, .. }) => sees(*kind, name),
        Target::Key(Key::Metadata { project, .. }) => judge.may_see(Kind::Project, project, None),
    }
}

/// Whether somebody sees the view of a record of a history. One that cannot be decoded is nobody's.
fn sees_version(judge: &Judge, name: &str, version: &Bytes) -> bool {
    rules::decode_record(version).is_ok_and(|record| {
        let kind = Kind::from_version_type(&record.feature_view_type);
        kind.is_some_and(|kind| judge.may_see(kind, name, Some(&Object::new(kind, record.feature_view_proto))))
    })
}

/// Whether somebody sees the view of which only the name is known: the one that the commit changed as well, or else a view of
/// whichever kind, since they must not see it by what they may see of another kind.
fn sees_view(judge: &Judge, (project, view): (&str, &str), all: &[Change]) -> bool {
    let is_of_view = |change: &&Change| matches!(&change.target, Target::Key(Key::Object { kind, project: of, name }) if kind.is_view() && of == project && name == view);
    let mut of_view = all.iter().filter(is_of_view).peekable();
    match of_view.peek() {
        None => Kind::VIEWS.iter().all(|kind| judge.may_see(*kind, view, None)),
        Some(_) => of_view.all(|change| sees_change(judge, change, &[])),
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
