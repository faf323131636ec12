//! What changes a registry.

use bytes::Bytes;
use prost_types::Timestamp;

use crate::access::{self, Action, Actions};
use crate::backend::{Key, Query};
use crate::draft::{Context, Draft};
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::Kind;
use crate::locks::LockScope;
use crate::registry::Registry;
use crate::registry::edit::{self, Edit, Edited};
use crate::rules::{self, ApplyOptions};
use crate::soundness;

/// What became of the storage of a registry when one of its projects was deleted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StorageRemoval {
    /// It is kept: there are other projects, or it is to be kept (`keep_tables`, `schema_mode`).
    Kept,
    /// That was the last project, and the storage was removed with it.
    Removed,
    /// It could not be removed, or it is not known whether other projects are left. The project is gone all the same.
    Failed(Error),
}

impl Registry {
    /// Creates or replaces one object of a project, which is made if it is not there. Of an object that says what is
    /// already stored, nothing is written. For a project, `project` is its own name.
    ///
    /// Views get versions (`rules::versions`), and keep what has been materialized of them; feature services get their
    /// projections completed. Returns when the object is durable.
    ///
    /// # Errors
    /// `InvalidArgument` for bytes that are not a message of the kind, and for names that cannot be;
    /// `ConflictingFeatureViewNames`, `FeatureViewPinConflict`; `FeatureNotFound` for a service over a missing view.
    #[doc(alias(
        "apply_entity",
        "apply_data_source",
        "apply_feature_view",
        "apply_feature_service",
        "apply_saved_dataset",
        "apply_validation_reference",
        "apply_permission",
        "apply_project",
        "apply_label_view",
        "update_infra"
    ))]
    pub async fn apply(&self, project: &str, object: impl Into<Object>) -> Result<Edited> {
        let edited = self.edit(project, vec![Edit::Apply(object.into())], ApplyOptions::default()).await?;
        edited.into_iter().next().ok_or_else(|| Error::internal("an apply has no outcome"))
    }

    /// Applies many objects of one project in one commit: all of them or none. Later ones see earlier ones.
    ///
    /// # Errors
    /// As [`apply`](Self::apply); then nothing is written.
    pub async fn apply_all(&self, project: &str, objects: Vec<Object>, options: ApplyOptions) -> Result<Vec<Edited>> {
        self.edit(project, objects.into_iter().map(Edit::Apply).collect(), options).await
    }

    /// Applies and deletes objects of one project in one commit: all of it or nothing. Later edits see earlier ones.
    /// Returns what became of each, in their order.
    ///
    /// # Errors
    /// As [`apply`](Self::apply) and [`delete`](Self::delete); then nothing is written. `InvalidArgument` for the deletion
    /// of a project; `Changed` when what one of them is bound to ([`Edit::when`]) is not so, which nobody is told of an edit that they
    /// may not do, or that could not be done anyway: of what is to be deleted and is not there, that is said.
    pub async fn edit(&self, project: &str, edits: Vec<Edit>, options: ApplyOptions) -> Result<Vec<Edited>> {
        for edit in &edits {
            self.check_edit(project, edit)?;
        }
        self.check_room_for_permissions(project, edits.iter().filter_map(Edit::applied)).await?;
        let queries = edit::fetch(project, &edits)?;
        let done = self
            .transact(&queries, edit::scope(&edits), |draft, ctx| edit::run(draft, ctx, project, &edits, options))
            .await?;
        if !self.call.is_dry() {
            self.inner.later.forgive(project, &edits);
        }
        Ok(done.value.into_iter().map(|edited| edited.with_revision(done.revision)).collect())
    }

    /// Whether an edit can be one of a project.
    pub(super) fn check_edit(&self, project: &str, edit: &Edit) -> Result<()> {
        match edit {
            Edit::Apply(object) | Edit::ApplyKnown(object) => self.check_object(project, object),
            Edit::Delete { kind: Kind::Project, name } => Err(Error::invalid(format!(
                "project `{name}` is not deleted by an edit; delete it, with everything in it, by itself"
            ))),
            Edit::Delete { .. } | Edit::DeleteView { .. } => Ok(()),
            Edit::When { edit, .. } => self.check_edit(project, edit),
        }
    }

    /// Whether an object can be one of a project.
    fn check_object(&self, project: &str, object: &Object) -> Result<()> {
        // Before it is decoded.
        rules::check_structure(object, project)?;
        soundness::check(object).map_err(|error| {
            Error::new(ErrorKind::InvalidArgument, format!("what was sent is not a {}", object.kind)).with_source(error)
        })?;
        rules::check_names(object, project, &self.inner.limits)?;
        if object.kind == Kind::Permission {
            access::check_permission(object, project)?;
        }
        if object.kind == Kind::Project && object.name()? != project {
            return Err(Error::invalid(format!(
                "project `{}` cannot be applied to project `{project}`",
                object.name()?
            )));
        }
        Ok(())
    }

    /// Deletes an object; with a view goes its history, with a project everything in it. When the last project goes and
    /// `schema_mode` is `auto`, the storage is removed too; the next write makes it again.
    ///
    /// # Errors
    /// `NotFound` when it is not there.
    #[doc(alias(
        "delete_entity",
        "delete_data_source",
        "delete_label_view",
        "delete_feature_service",
        "delete_saved_dataset",
        "delete_validation_reference",
        "delete_permission",
        "delete_project"
    ))]
    pub async fn delete(&self, kind: Kind, project: &str, name: &str) -> Result<()> {
        if kind == Kind::Project {
            return self.delete_project(name).await;
        }
        self.edit(project, vec![Edit::delete(kind, name)], ApplyOptions::default()).await.map(drop)
    }

    /// Deletes a view, of whichever of the four kinds it is.
    ///
    /// # Errors
    /// `ViewNotFound`.
    #[doc(alias("delete_feature_view"))]
    pub async fn delete_view(&self, project: &str, name: &str) -> Result<()> {
        self.edit(project, vec![Edit::delete_view(name)], ApplyOptions::default()).await.map(drop)
    }

    /// Deletes a project with everything in it and nothing of another, in one commit; see [`delete`](Self::delete).
    ///
    /// # Errors
    /// `NotFound` when it is not there.
    #[doc(alias("teardown"))]
    pub async fn delete_project(&self, project: &str) -> Result<()> {
        match self.delete_project_if(project, None).await? {
            StorageRemoval::Removed => tracing::info!(
                location = self.location(),
                "the last project is deleted, and the storage of the registry is removed with it; with `keep_tables: true` \
                 in the registry block it stays"
            ),
            StorageRemoval::Kept => {}
            StorageRemoval::Failed(error) => {
                let location = self.location();
                tracing::warn!(%error, location, "the storage of the registry could not be removed after its last project");
            }
        }
        Ok(())
    }

    /// Deletes the project of an object that was read, if that object is still the same: for those who let somebody look at
    /// a project, or ask, before it is deleted. Says what became of the storage. Only the project's own object is compared, not
    /// what is in the project.
    ///
    /// # Errors
    /// `NotFound` when the project is not there; `Changed` when its object is another than `seen`; `InvalidArgument` when `seen`
    /// is no project.
    pub async fn delete_project_as_seen(&self, seen: &Object) -> Result<StorageRemoval> {
        if seen.kind != Kind::Project {
            return Err(Error::invalid(format!("a {} is no project", seen.kind)));
        }
        self.delete_project_if(&seen.name()?, Some(&seen.bytes)).await
    }

    /// The project is gone when this returns, whatever became of the storage: an error would have the caller try again.
    async fn delete_project_if(&self, project: &str, seen: Option<&Bytes>) -> Result<StorageRemoval> {
        let queries = vec![Query::Keys(vec![Key::project_object(project)])];
        let deadline = self.deadline();
        let delete = |draft: &mut Draft<'_>, ctx: &mut Context<'_>| {
            if !ctx.judges.check_stored(draft, Action::Delete.into(), (project, &[Kind::Project], project))? {
                return Err(Error::not_found(Kind::Project, project, project));
            }
            rules::delete_project(draft, project, seen)
        };
        self.transact(&queries, LockScope::Projects, delete).await?;
        if self.inner.keeps_tables || self.call.is_dry() {
            return Ok(StorageRemoval::Kept);
        }
        Ok(match self.inner.backend.remove_if_empty(&deadline).await {
            Ok(true) => StorageRemoval::Removed,
            Ok(false) => StorageRemoval::Kept,
            Err(error) => StorageRemoval::Failed(error),
        })
    }

    /// Records that a view has been materialized from `start` to `end` (UTC), adding exactly this interval to what is
    /// stored, and sets its state to `AVAILABLE_ONLINE`.
    ///
    /// # Errors
    /// `NotFound` when there is no such view; `InvalidArgument` for on demand feature views and label views, and for
    /// moments that protobuf does not allow.
    pub async fn apply_materialization(
        &self,
        project: &str,
        view: &str,
        start: Option<Timestamp>,
        end: Option<Timestamp>,
    ) -> Result<()> {
        let interval = rules::interval(start, end)?;
        if rules::is_backwards(&interval) {
            // As in Feast it is stored all the same.
            tracing::warn!(project, view, "a materialization is recorded that ends before it starts");
        }
        let queries = rules::fetch_for_materialization(project, view);
        let record = |draft: &mut Draft<'_>, ctx: &mut Context<'_>| {
            if !ctx.judges.check_stored(draft, Action::WriteOnline.into(), (project, Kind::VIEWS, view))? {
                return Err(Error::not_found(Kind::FeatureView, project, view));
            }
            rules::apply_materialization(draft, ctx, project, view, interval)
        };
        self.transact(&queries, LockScope::Objects, record).await.map(drop)
    }

    /// Removes an interval from what has been materialized of a view, in all its occurrences. No apply ever does.
    ///
    /// # Errors
    /// As [`apply_materialization`](Self::apply_materialization), and `InvalidArgument` when there is no such interval.
    pub async fn remove_materialization(
        &self,
        project: &str,
        view: &str,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<()> {
        let interval = rules::interval(Some(start), Some(end))?;
        let queries = rules::fetch_for_materialization(project, view);
        let remove = |draft: &mut Draft<'_>, ctx: &mut Context<'_>| {
            if !ctx.judges.check_stored(draft, Action::WriteOnline.into(), (project, Kind::VIEWS, view))? {
                return Err(Error::not_found(Kind::FeatureView, project, view));
            }
            rules::remove_materialization(draft, ctx, project, view, &interval)
        };
        self.transact(&queries, LockScope::Objects, remove).await.map(drop)
    }

    /// Attaches bytes to a view, or with `None` takes them away (Feast: `apply_user_metadata`).
    ///
    /// # Errors
    /// `NotFound` when there is no such view of this kind; `InvalidArgument` for a kind that is not a view.
    pub async fn apply_user_metadata(
        &self,
        kind: Kind,
        project: &str,
        view: &str,
        metadata: Option<Bytes>,
    ) -> Result<()> {
        if !kind.is_view() {
            return Err(Error::invalid(format!("user metadata is attached to views, and a {kind} is none")));
        }
        let queries = rules::fetch_for_user_metadata(kind, project, view);
        let attach = |draft: &mut Draft<'_>, ctx: &mut Context<'_>| {
            if !ctx.judges.check_stored(draft, Actions::REPLACE, (project, &[kind], view))? {
                return Err(Error::not_found(kind, project, view));
            }
            rules::apply_user_metadata(draft, ctx, kind, project, view, metadata.clone())
        };
        self.transact(&queries, LockScope::Objects, attach).await.map(drop)
    }
}
