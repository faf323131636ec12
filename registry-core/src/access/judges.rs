//! What a write may do, decided from what was read for it and before any rule looks at it.
//!
//! Whoever may not see an object is told the same as if it were not there. So that a rule cannot tell more, these checks come first; and
//! so that none is forgotten, what was drafted is gone through once more before it is committed ([`Judges::check_writes`]).

use std::collections::HashMap;

use bytes::Bytes;

use crate::access::{Access, Action, Actions, Decided, Grounds, Judge, Policies};
use crate::backend::{Expected, INFRA_NAME, Key, Record, Write};
use crate::deadline::Deadline;
use crate::draft::{Draft, Fetched};
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::Kind;

/// Decides about the projects that a write is about. Without a caller, about none: everything is allowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Judges {
    access: Option<Access>,
    creator: Option<String>,
    by_project: HashMap<String, Judge>,
    /// What has been noted of this write.
    noted: Vec<Decided>,
    /// Whether it is only tried out.
    is_dry: bool,
}

impl Judges {
    pub(crate) fn new(access: Access, judges: impl IntoIterator<Item = (String, Judge)>) -> Self {
        let creator = Some(access.identity().username.clone());
        Self {
            access: Some(access),
            creator,
            by_project: judges.into_iter().collect(),
            noted: Vec::new(),
            is_dry: false,
        }
    }

    /// The same of a write that is only tried out, if it is.
    pub(crate) fn tried_out(self, is_dry: bool) -> Self {
        Self { is_dry, ..self }
    }

    /// The projects about which it goes by something else than what is stored under these keys.
    pub(crate) fn mistaken(&self, stored: impl Fn(&Key) -> Option<Bytes>) -> Vec<(String, Grounds)> {
        let differs = |(project, judge): (&String, &Judge)| {
            let grounds = Grounds::of(project, &stored);
            (*judge.grounds() != grounds).then(|| (project.clone(), grounds))
        };
        self.by_project.iter().filter_map(differs).collect()
    }

    /// Has decisions about a project go by something else from now on.
    pub(crate) fn go_by(&mut self, project: &str, policies: Policies, grounds: Grounds) {
        if let Some(judge) = self.by_project.get_mut(project) {
            judge.go_by(policies, grounds);
        }
    }

    /// What has to hold when what was decided is done. For administrators nothing has to.
    pub(crate) fn expectations(&self) -> Vec<(Key, Expected)> {
        let judged = self.by_project.iter().filter(|(_, judge)| !judge.access().is_admin());
        judged.flat_map(|(project, judge)| judge.grounds().expectations(project)).collect()
    }

    /// Who makes a project that is made, if that is known.
    pub(crate) fn creator(&self) -> Option<&str> {
        self.creator.as_deref()
    }

    /// Has what was decided about a write noted, within the time of its call.
    ///
    /// # Errors
    /// Those of whoever notes it, unless the write was refused: then it is refused whether that could be noted or not.
    pub(crate) async fn note(&mut self, deadline: &Deadline, is_refused: bool) -> Result<()> {
        let mut decided = self.take_decided();
        // A write that is decided again, since others wrote meanwhile, mostly comes out the same.
        decided.retain(|one| !self.noted.contains(one));
        self.noted.extend_from_slice(&decided);
        let Some(access) = &self.access else { return Ok(()) };
        let noted = deadline.wait_for("the audit log", access.note(&decided)).await.flatten();
        if is_refused { Ok(()) } else { noted }
    }

    /// What has been decided since the last time, each thing once.
    pub(crate) fn take_decided(&mut self) -> Vec<Decided> {
        let is_dry = self.is_dry;
        let decided = self.by_project.values_mut().flat_map(Judge::take_decided);
        decided.map(|one| Decided { is_dry, ..one }).collect()
    }

    /// The judge of a project; none if nobody is judged.
    ///
    /// # Errors
    /// `Internal` for a project that nobody said the write would be about.
    fn of(&mut self, project: &str) -> Result<Option<&mut Judge>> {
        if self.access.is_none() {
            return Ok(None);
        }
        match self.by_project.get_mut(project) {
            Some(judge) => Ok(Some(judge)),
            None => Err(Error::internal(format!(
                "a write of project `{project}` was not announced to who decides about it"
            ))),
        }
    }

    /// Whether an object that a rule wants to look at is there for whoever writes.
    pub(crate) fn sees(&mut self, project: &str, object: &Object) -> Result<bool> {
        Ok(self.of(project)?.is_none_or(|judge| judge.sees(object)))
    }

    /// Whether whoever writes may see an object as it was, is, or would be; or one that is not there.
    pub(crate) fn sees_as(&mut self, project: &str, kind: Kind, name: &str, image: Option<&Object>) -> Result<bool> {
        Ok(self.of(project)?.is_none_or(|judge| judge.may_see(kind, name, image)))
    }

    /// Refuses to store an object that may not be stored; of a project that is not there yet, also to make that.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(crate) fn check_apply(&mut self, draft: &mut Draft<'_>, project: &str, object: &Object) -> Result<()> {
        let Some(judge) = self.of(project)? else { return Ok(()) };
        let name = match object.kind {
            Kind::Infra => INFRA_NAME.to_owned(),
            _ => object.name()?,
        };
        let stored = |draft: &mut Draft<'_>, kind| -> Result<Option<Object>> {
            let bytes = draft.get(&Key::object(kind, project, &name))?;
            Ok(bytes.map(|bytes| Object::new(kind, bytes)))
        };
        if object.kind.is_view() {
            // That one of another kind has the name is not for everybody to know.
            for &kind in Kind::VIEWS.iter().filter(|kind| **kind != object.kind) {
                if let Some(other) = stored(draft, kind)?
                    && !judge.may_see(kind, &name, Some(&other))
                {
                    return judge.refuse(Actions::REPLACE, object.kind, &name);
                }
            }
        }
        if object.kind == Kind::Infra {
            return judge.check(Actions::REPLACE, Kind::Infra, &name, None);
        }
        match stored(draft, object.kind)? {
            Some(before) => {
                judge.check(Actions::REPLACE, object.kind, &name, Some(&before))?;
                judge.check(Actions::REPLACE, object.kind, &name, Some(object))
            }
            None => {
                if object.kind != Kind::Project
                    && !draft.exists(&Key::project_object(project))?
                    && judge.check(Action::Create.into(), Kind::Project, project, None).is_err()
                {
                    // In the words for a project that is there: whether it is, is not for everybody to know either.
                    return judge.refuse(Action::Create.into(), object.kind, &name);
                }
                judge.check(Action::Create.into(), object.kind, &name, Some(object))
            }
        }
    }

    /// Refuses to do something with an object that may not be done with it, whichever of these kinds it is of.
    ///
    /// # Errors
    /// `PermissionDenied`; not for one that is not there, or not there for the caller, if it might be done with one of that name: to say
    /// that it is not there is for the rule (`Ok(false)` tells it to).
    pub(crate) fn check_stored(
        &mut self,
        draft: &mut Draft<'_>,
        actions: Actions,
        (project, kinds, name): (&str, &[Kind], &str),
    ) -> Result<bool> {
        let Some(judge) = self.of(project)? else { return Ok(true) };
        let mut is_there = false;
        for &kind in kinds {
            let Some(bytes) = draft.get(&Key::object(kind, project, name))? else { continue };
            let stored = Object::new(kind, bytes);
            if judge.allows(actions, kind, name, Some(&stored)) || judge.may_see(kind, name, Some(&stored)) {
                judge.check(actions, kind, name, Some(&stored))?;
                is_there = true;
            }
        }
        if is_there {
            return Ok(true);
        }
        match kinds.iter().any(|kind| judge.allows(actions, *kind, name, None)) {
            true => Ok(false),
            false => judge.refuse(actions, kinds.first().copied().unwrap_or(Kind::Project), name).map(|()| false),
        }
    }

    /// Goes through what is about to be committed: every object in it must have been decided about, or is now.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub(crate) fn check_writes(&mut self, fetched: &Fetched, writes: &[Write]) -> Result<()> {
        if self.access.is_none() {
            return Ok(());
        }
        for write in writes {
            match write {
                Write::Put(Record { key: key @ Key::Object { kind, project, name }, value, .. }) => {
                    let Some(judge) = self.of(project)?.filter(|judge| !judge.has_allowed(*kind, name)) else {
                        continue;
                    };
                    let object = Object::new(*kind, value.clone());
                    match fetched.record(key) {
                        Some(before) => {
                            let before = Object::new(*kind, before.value.clone());
                            judge.check(Actions::REPLACE, *kind, name, Some(&before))?;
                            judge.check(Actions::REPLACE, *kind, name, Some(&object))?;
                        }
                        None => judge.check(Action::Create.into(), *kind, name, Some(&object))?,
                    }
                }
                Write::Delete(key @ Key::Object { kind, project, name }) => {
                    let Some(judge) = self.of(project)?.filter(|judge| !judge.has_allowed(*kind, name)) else {
                        continue;
                    };
                    let before = fetched.record(key).map(|record| Object::new(*kind, record.value.clone()));
                    judge.check(Action::Delete.into(), *kind, name, before.as_ref())?;
                }
                Write::DeleteProject { project } => {
                    let Some(judge) = self.of(project)?.filter(|judge| !judge.has_allowed(Kind::Project, project))
                    else {
                        continue;
                    };
                    let before = fetched.record(&Key::project_object(project));
                    let before = before.map(|record| Object::new(Kind::Project, record.value.clone()));
                    judge.check(Action::Delete.into(), Kind::Project, project, before.as_ref())?;
                }
                Write::Put(Record { key: Key::Metadata { project, name }, value, .. }) if name == Key::CREATOR => {
                    let is_own = self.creator().is_some_and(|creator| creator.as_bytes() == &value[..]);
                    let may_say = self.of(project)?.is_none_or(|judge| is_own || judge.owns());
                    if !may_say {
                        return Err(Error::new(
                            ErrorKind::PermissionDenied,
                            format!("only an administrator may say who made project `{project}`"),
                        ));
                    }
                }
                // What goes with an object that was decided about.
                Write::Put(_) | Write::Delete(_) | Write::DeleteVersions { .. } => {}
            }
        }
        self.check_user_metadata(fetched, writes)
    }

    /// What is attached to a view changes with it, or is changed alone as the view would be.
    fn check_user_metadata(&mut self, fetched: &Fetched, writes: &[Write]) -> Result<()> {
        for write in writes {
            let (Write::Put(Record { key, .. }) | Write::Delete(key)) = write else { continue };
            let Key::UserMetadata { kind, project, view } = key else { continue };
            let Some(judge) = self.of(project)? else { continue };
            let goes = |write: &Write| matches!(write, Write::DeleteProject { project: of } if of == project);
            if !judge.has_allowed(*kind, view) && !writes.iter().any(goes) {
                let stored = fetched.record(&Key::object(*kind, project, view));
                let stored = stored.map(|record| Object::new(*kind, record.value.clone()));
                judge.check(Actions::REPLACE, *kind, view, stored.as_ref())?;
            }
        }
        Ok(())
    }
}
