//! Taking back what commits did.
//!
//! An undo goes forward: it is a commit like any other, decided from what is stored now. What is gone comes back byte for byte,
//! with its history. What is there is applied again with the definition that it had, so that a view gets a new version and
//! what has been materialized of it stays. What was not there goes. Nothing that others have changed since is touched, unless
//! the undo is forced.

mod definition;
mod goals;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::backend::{Key, Query};
use crate::draft::{Context, Draft};
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Image;
use crate::kind::Kind;
use crate::rules::delete::check_unprotected;
use crate::rules::replace::replace;
use crate::rules::undo::definition::{applied, intervals, is_same, is_same_definition, rematerialized};
use crate::rules::versions::{ApplyOptions, decode_record};
use crate::rules::{delete, feature_service, pin, project};

pub(crate) use self::goals::Goals;

/// How commits are undone. Made with `default()`, and changed by the `with_` methods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UndoOptions {
    /// Also what others have changed since.
    pub force: bool,
    /// Also what has been materialized. Otherwise that stays as it is: what has been materialized has been.
    pub with_materializations: bool,
}

impl UndoOptions {
    /// The same with this for [`force`](Self::force).
    #[must_use]
    pub const fn with_force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// The same with this for [`with_materializations`](Self::with_materializations).
    #[must_use]
    pub const fn with_materializations(mut self, with: bool) -> Self {
        self.with_materializations = with;
        self
    }
}

/// Why something cannot be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// What cannot be undone.
    pub key: Key,
    /// [`Changed`](ErrorKind::Changed) when others have changed it since, [`Unsupported`](ErrorKind::Unsupported) when the
    /// journal does not keep what it was, or what the rules of an apply say.
    pub kind: ErrorKind,
    /// Why, in words: the key is named.
    pub reason: String,
}

/// What there is to know of an undo beside what it changes.
#[derive(Debug, Default)]
pub(crate) struct Undone {
    /// What is not undone or not as one may expect, in words.
    pub(crate) remarks: Vec<(Key, String)>,
    /// Why it must not be committed.
    pub(crate) refusals: Vec<Refusal>,
}

/// What becomes of an object.
#[derive(Debug)]
enum Step {
    /// It goes.
    Delete,
    /// It comes back as it was.
    PutBack(Bytes),
    /// It is there, and gets the definition that it had.
    Redefine(Bytes),
}

/// Which version of its history a definition asks for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// None, or one that is not there and will be made.
    Nothing,
    /// One that is of this very schema.
    Recorded(i32),
    /// One that is of another schema; with the field that asks for it.
    Other(i32, u32),
}

/// What [`undo`] needs to have read.
pub(crate) fn fetch_for_undo(goals: &Goals) -> Vec<Query> {
    let mut keys: BTreeSet<Key> = goals.iter().map(|(key, _)| key.clone()).collect();
    let (mut views, mut queries) = (BTreeSet::new(), Vec::new());
    for (key, goal) in goals.iter() {
        keys.extend(project::fetch_for_project(key.project()));
        match key {
            Key::Object { kind: Kind::Project, project, .. } if goal.to == Image::Absent => {
                queries.extend(Kind::ALL.iter().map(|kind| Query::objects(*kind, Some(project))));
            }
            Key::Object { kind, project, name } => {
                if kind.is_view() {
                    views.insert((project.as_str(), name.as_str()));
                }
                let Image::Value(bytes) = &goal.to else { continue };
                let object = Object::new(*kind, bytes.clone());
                // What cannot be decoded is put back as it is, or refused.
                if kind.is_view()
                    && let Ok(Some(number)) = pin::pinned(&object)
                {
                    keys.insert(pin::key(project, name, number));
                }
                if *kind == Kind::FeatureService
                    && let Ok(views) = feature_service::views_of(&object)
                {
                    keys.extend(views.iter().flat_map(|view| any_view(project, view)));
                }
            }
            Key::Version { project, view, .. } | Key::UserMetadata { project, view, .. } => {
                keys.extend(any_view(project, view));
            }
            Key::Metadata { .. } => {}
        }
    }
    for (project, view) in views {
        keys.extend(any_view(project, view));
        let (project, view) = (project.to_owned(), view.to_owned());
        queries.push(Query::Versions { project, view, latest_only: true });
    }
    queries.push(Query::Keys(keys.into_iter().collect()));
    queries
}

/// Where a view of a name may be stored.
fn any_view<'a>(project: &'a str, name: &'a str) -> impl Iterator<Item = Key> + 'a {
    Kind::VIEWS.iter().map(move |kind| Key::object(*kind, project, name))
}

/// Drafts the undo. If something is refused, what has been drafted is of no use.
///
/// # Errors
/// Only what is a defect: what is wrong with objects is a refusal.
pub(crate) fn undo(
    draft: &mut Draft<'_>,
    ctx: &mut Context<'_>,
    goals: &Goals,
    options: UndoOptions,
) -> Result<Undone> {
    Undoing { draft, goals, options, undone: Undone::default() }.run(ctx)
}

struct Undoing<'a, 'f> {
    draft: &'a mut Draft<'f>,
    goals: &'a Goals,
    options: UndoOptions,
    undone: Undone,
}

impl Undoing<'_, '_> {
    fn run(mut self, ctx: &mut Context<'_>) -> Result<Undone> {
        let mut steps = BTreeMap::new();
        let mut emptied = Vec::new();
        for (key, _) in self.goals.iter() {
            let Key::Object { kind, project, .. } = key else { continue };
            if *kind == Kind::Project && self.goes(key) {
                if self.is_emptied(project)? {
                    emptied.push(project.as_str());
                } else {
                    self.remark(key, "it stays, since there are other objects in it");
                    continue;
                }
            }
            if let Some(step) = self.step(key)? {
                steps.insert(key, step);
            }
        }
        self.look_at_what_is_beside(&steps)?;
        if !self.undone.refusals.is_empty() {
            return Ok(self.undone);
        }
        // What goes makes room for what comes back: a view may have been of another kind.
        for (key, _) in steps.iter().rev().filter(|(_, step)| matches!(step, Step::Delete)) {
            if let Key::Object { kind, project, name } = key
                && *kind != Kind::Project
            {
                let done = delete::delete(self.draft, ctx, &[*kind], project, name);
                self.accept(key, done)?;
            }
        }
        self.put_back_facts(ctx, &steps)?;
        for (key, step) in &steps {
            let done = match step {
                Step::Delete => continue,
                Step::PutBack(bytes) => self.put_back(ctx, key, bytes),
                Step::Redefine(bytes) => self.redefine(ctx, key, bytes),
            };
            self.accept(key, done)?;
        }
        self.put_back_user_metadata(ctx)?;
        self.look_for_missing_views(&steps)?;
        for project in emptied {
            let key = Key::project_object(project);
            if matches!(steps.get(&key), Some(Step::Delete)) {
                let unprotected = match self.draft.peek(&key)? {
                    Some(stored) => check_unprotected(project, stored),
                    None => Ok(()),
                };
                self.accept(&key, unprotected)?;
                self.draft.delete_project(project);
            }
        }
        Ok(self.undone)
    }

    fn remark(&mut self, key: &Key, remark: impl Into<String>) {
        self.undone.remarks.push((key.clone(), remark.into()));
    }

    fn refuse(&mut self, key: &Key, kind: ErrorKind, reason: String) {
        self.undone.refusals.push(Refusal { key: key.clone(), kind, reason });
    }

    /// Notes what rules say against a step.
    fn accept(&mut self, key: &Key, done: Result<()>) -> Result<()> {
        match done {
            Err(error) if error.kind() != ErrorKind::Internal => {
                self.refuse(key, error.kind(), format!("{key}: {error}"));
                Ok(())
            }
            done => done,
        }
    }

    /// Whether a key was not there then.
    fn goes(&self, key: &Key) -> bool {
        self.goals.get(key).is_some_and(|goal| goal.to == Image::Absent)
    }

    /// Whether nothing is left in a project when all that was not there has gone.
    fn is_emptied(&mut self, project: &str) -> Result<bool> {
        let stays = |key: &Key| !matches!(key, Key::Object { kind: Kind::Project, .. }) && !self.goes(key);
        if self.draft.objects_of(project).iter().any(stays) {
            return Ok(false);
        }
        let comes = self.goals.iter().any(|(key, goal)| {
            matches!(key, Key::Object { .. }) && key.project() == project && goal.to != Image::Absent
        });
        if !comes {
            // Most writers that add something to the project meanwhile note when they did.
            self.draft.get(&Key::metadata(project, Key::LAST_UPDATED))?;
        }
        Ok(!comes)
    }

    /// What is to become of an object. The commit will expect that it is still as it is.
    fn step(&mut self, key: &Key) -> Result<Option<Step>> {
        let Key::Object { kind, .. } = key else { return Ok(None) };
        let Some(goal) = self.goals.get(key) else { return Ok(None) };
        let stored = self.draft.get(key)?;
        let object = |bytes: &Bytes| Object::new(*kind, bytes.clone());
        let to = match &goal.to {
            Image::Value(bytes) => Some(bytes),
            Image::Absent => None,
            Image::NotKept => {
                self.refuse_unknown(key);
                return Ok(None);
            }
        };
        match (&stored, to) {
            (None, None) => {
                self.remark(key, "it is gone already");
                return Ok(None);
            }
            (Some(stored), Some(to)) if is_same(&object(stored), &object(to)) => {
                if !self.options.with_materializations {
                    let left = if let Image::Value(left) = &goal.left { Some(left) } else { None };
                    let was_materialized = left.is_some_and(|left| left != to && is_same(&object(left), &object(to)));
                    self.remark(
                        key,
                        if was_materialized && kind.layout().materialization_intervals.is_some() {
                            "its definition was not changed: what was recorded of its materialization stays, unless that is \
                             to be taken back too"
                        } else {
                            "it is as it was already"
                        },
                    );
                    return Ok(None);
                }
                return Ok(Some(Step::Redefine(to.clone())));
            }
            _ => {}
        }
        if !self.options.force {
            let is_as_left = match (&stored, &goal.left) {
                (None, Image::Absent) => true,
                (Some(stored), Image::Value(left)) => is_same_definition(&object(stored), &object(left)),
                (Some(_), Image::NotKept) => {
                    let reason = format!(
                        "whether {key} has been changed since is not known: the journal does not keep its bytes"
                    );
                    self.refuse(key, ErrorKind::Unsupported, reason);
                    return Ok(None);
                }
                _ => false,
            };
            if !is_as_left {
                let what = match (&stored, &goal.left) {
                    (None, _) => "deleted",
                    (Some(_), Image::Absent) => "made anew",
                    _ => "changed",
                };
                self.refuse(key, ErrorKind::Changed, format!("{key} has been {what} since"));
                return Ok(None);
            }
        }
        Ok(match (stored, to) {
            (None, None) => None,
            (Some(stored), None) => {
                if let recorded @ 1.. = intervals(&object(&stored)) {
                    let intervals = if recorded == 1 { "interval" } else { "intervals" };
                    self.remark(key, format!("with it goes what has been materialized of it: {recorded} {intervals}"));
                }
                Some(Step::Delete)
            }
            (None, Some(to)) => Some(Step::PutBack(to.clone())),
            (Some(_), Some(to)) => Some(Step::Redefine(to.clone())),
        })
    }

    fn refuse_unknown(&mut self, key: &Key) {
        self.refuse(key, ErrorKind::Unsupported, format!("the journal does not keep what {key} was"));
    }

    /// Whether there will be a view of a name; `kind` may say of which kind.
    fn will_have_view(
        &self,
        steps: &BTreeMap<&Key, Step>,
        project: &str,
        name: &str,
        kind: Option<Kind>,
    ) -> Result<bool> {
        for key in any_view(project, name) {
            let is_of_kind = matches!(&key, Key::Object { kind: of, .. } if kind.is_none_or(|kind| kind == *of));
            let will_be = match steps.get(&key) {
                Some(Step::Delete) => false,
                Some(Step::PutBack(_) | Step::Redefine(_)) => true,
                None => self.draft.peek(&key)?.is_some(),
            };
            if is_of_kind && will_be {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses what cannot be undone of what stands beside the objects: histories, user metadata, facts.
    fn look_at_what_is_beside(&mut self, steps: &BTreeMap<&Key, Step>) -> Result<()> {
        for (key, goal) in self.goals.iter() {
            match key {
                Key::Version { project, view, .. } => {
                    let is_missing = self.draft.peek(key)?.is_none() && goal.to == Image::NotKept;
                    if is_missing && self.will_have_view(steps, project, view, None)? {
                        self.refuse_unknown(key);
                    }
                }
                Key::UserMetadata { kind, project, view } => {
                    if !self.will_have_view(steps, project, view, Some(*kind))? {
                        continue;
                    }
                    let stored = Image::from(self.draft.get(key)?);
                    if goal.to == Image::NotKept {
                        self.refuse_unknown(key);
                    } else if stored != goal.to && stored != goal.left && !self.options.force {
                        self.refuse(key, ErrorKind::Changed, format!("{key} has been changed since"));
                    }
                }
                Key::Metadata { project, .. } => {
                    let comes_back = self.goals.is_whole() || steps.contains_key(&Key::project_object(project));
                    if comes_back && goal.to == Image::NotKept && !is_last_updated(key) {
                        self.refuse_unknown(key);
                    }
                }
                Key::Object { .. } => {}
            }
        }
        Ok(())
    }

    /// Puts back the facts of projects that come back: first of all, since a project without an identity is given one.
    fn put_back_facts(&mut self, ctx: &Context<'_>, steps: &BTreeMap<&Key, Step>) -> Result<()> {
        for (key, goal) in self.goals.iter() {
            let (Key::Metadata { project, .. }, Image::Value(to)) = (key, &goal.to) else { continue };
            let comes_back = self.goals.is_whole() || steps.contains_key(&Key::project_object(project));
            if ctx.keeps_metadata && comes_back && !is_last_updated(key) && self.draft.get(key)?.as_ref() != Some(to) {
                self.draft.put(key.clone(), to.clone(), &ctx.now);
            }
        }
        Ok(())
    }

    /// Puts back an object that is gone, with its history.
    fn put_back(&mut self, ctx: &mut Context<'_>, key: &Key, bytes: &Bytes) -> Result<()> {
        let Key::Object { kind, project, name } = key else { return Ok(()) };
        if *kind != Kind::Project {
            project::ensure(self.draft, ctx, project)?;
        }
        if kind.is_view() {
            for other in any_view(project, name).filter(|other| other != key) {
                if self.draft.exists(&other)? {
                    return Err(Error::new(
                        ErrorKind::ConflictingFeatureViewNames,
                        format!("project `{project}` has a view of that name by now, of another kind"),
                    ));
                }
            }
            self.put_back_history(ctx, project, name)?;
            let history = pin::key(project, name, i32::MIN)..=pin::key(project, name, i32::MAX);
            if self.goals.has_lost_history(project, name) && self.goals.range(history).next().is_none() {
                let remark = "it comes back without the versions and the user metadata that it may have had: it was deleted \
                              without the journal, which does not have them";
                self.remark(key, remark);
            }
        }
        self.draft.put(key.clone(), bytes.clone(), &ctx.now);
        project::touch(self.draft, ctx, project)
    }

    /// Puts back versions that are gone; those that are there stay.
    fn put_back_history(&mut self, ctx: &Context<'_>, project: &str, name: &str) -> Result<()> {
        let history = pin::key(project, name, i32::MIN)..=pin::key(project, name, i32::MAX);
        for (key, goal) in self.goals.range(history) {
            if let Image::Value(to) = &goal.to
                && self.draft.get(key)?.is_none()
            {
                self.draft.put(key.clone(), to.clone(), &ctx.now);
            }
        }
        Ok(())
    }

    /// Has an object that is there be defined as it was.
    fn redefine(&mut self, ctx: &mut Context<'_>, key: &Key, bytes: &Bytes) -> Result<()> {
        let Key::Object { kind, project, name } = key else { return Ok(()) };
        let to = Object::new(*kind, bytes.clone());
        let definition = applied(&to)?;
        if *kind != Kind::Project {
            project::ensure(self.draft, ctx, project)?;
        }
        if kind.is_view() {
            self.put_back_history(ctx, project, name)?;
        }
        match self.asked_for(&definition, project, name)? {
            Asked::Recorded(number) => {
                let mark = self.draft.mark();
                replace(self.draft, ctx, project, &definition, Some(number))?;
                if !self.draft.writes_since(mark).is_empty() {
                    project::touch(self.draft, ctx, project)?;
                }
            }
            Asked::Other(number, field) => {
                let remark = format!(
                    "it asked for v{number}, which is of another definition by now, and gets a version of its own"
                );
                self.remark(key, remark);
                let latest = definition.with_spec_text(field, "")?;
                super::apply(self.draft, ctx, project, &latest, ApplyOptions::default())?;
            }
            Asked::Nothing => super::apply(self.draft, ctx, project, &definition, ApplyOptions::default())?,
        }
        if self.options.with_materializations && kind.layout().materialization_intervals.is_some() {
            self.rematerialize(ctx, key, &to)?;
        }
        Ok(())
    }

    /// Which version a definition asks for. An apply would not go there from another definition.
    fn asked_for(&mut self, definition: &Object, project: &str, name: &str) -> Result<Asked> {
        let (Some(number), Some(field)) = (pin::pinned(definition)?, pin::version_field(definition.kind)) else {
            return Ok(Asked::Nothing);
        };
        let Some(version) = self.draft.get(&pin::key(project, name, number))? else { return Ok(Asked::Nothing) };
        let is_recorded = decode_record(&version).is_ok_and(|record| {
            let recorded = Object::new(definition.kind, record.feature_view_proto);
            Kind::from_version_type(&record.feature_view_type) == Some(definition.kind)
                && super::definition::schema_changed(&recorded, definition).is_ok_and(|has_changed| !has_changed)
        });
        Ok(if is_recorded { Asked::Recorded(number) } else { Asked::Other(number, field) })
    }

    /// Takes back what has been recorded of the materialization of a view.
    fn rematerialize(&mut self, ctx: &Context<'_>, key: &Key, to: &Object) -> Result<()> {
        let Some(stored) = self.draft.get(key)?.map(|bytes| Object::new(to.kind, bytes)) else { return Ok(()) };
        let left = match self.goals.get(key).map(|goal| &goal.left) {
            Some(Image::Value(left)) => Some(Object::new(to.kind, left.clone())),
            _ => None,
        };
        if let Some(view) = rematerialized(&stored, left.as_ref(), to, &ctx.now)? {
            self.draft.put(key.clone(), view.bytes, &ctx.now);
            project::touch(self.draft, ctx, key.project())?;
        }
        Ok(())
    }

    /// Gives views the user metadata that they had. That of a view that goes has gone with it.
    fn put_back_user_metadata(&mut self, ctx: &Context<'_>) -> Result<()> {
        for (key, goal) in self.goals.iter() {
            let Key::UserMetadata { kind, project, view } = key else { continue };
            if self.draft.final_value(&Key::object(*kind, project, view)).is_none() {
                continue;
            }
            let stored = self.draft.get(key)?;
            match &goal.to {
                Image::Value(to) if stored.as_ref() != Some(to) => {
                    self.draft.put(key.clone(), to.clone(), &ctx.now);
                }
                Image::Absent if stored.is_some() => self.draft.delete(key.clone()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses feature services whose views are gone, but not where all of a project is as it was then.
    fn look_for_missing_views(&mut self, steps: &BTreeMap<&Key, Step>) -> Result<()> {
        if self.goals.is_whole() || self.options.force {
            return Ok(());
        }
        for (key, step) in steps {
            let Key::Object { kind: Kind::FeatureService, project, .. } = key else { continue };
            let (Step::PutBack(bytes) | Step::Redefine(bytes)) = step else { continue };
            let comes_back = matches!(steps.get(&Key::project_object(project)), Some(Step::PutBack(_)));
            if comes_back {
                continue;
            }
            let Ok(views) = feature_service::views_of(&Object::new(Kind::FeatureService, bytes.clone())) else {
                continue;
            };
            let mut missing = Vec::new();
            for view in views {
                let mut is_there = false;
                for key in any_view(project, &view) {
                    is_there = is_there || self.draft.exists(&key)?;
                }
                if !is_there {
                    missing.push(format!("`{view}`"));
                }
            }
            if !missing.is_empty() {
                let reason =
                    format!("{key} refers to what project `{project}` does not have: view {}", missing.join(", view "));
                self.refuse(key, ErrorKind::FeatureNotFound, reason);
            }
        }
        Ok(())
    }
}

/// Whether what is stored under a key is what somebody has seen there: of an object, its definition.
pub(crate) fn is_as_seen(key: &Key, stored: Option<&Bytes>, seen: Option<&Bytes>) -> bool {
    match (key, stored, seen) {
        (Key::Object { kind, .. }, Some(stored), Some(seen)) => {
            is_same(&Object::new(*kind, stored.clone()), &Object::new(*kind, seen.clone()))
        }
        _ => stored == seen,
    }
}

fn is_last_updated(key: &Key) -> bool {
    matches!(key, Key::Metadata { name, .. } if name == Key::LAST_UPDATED)
}
