//! What changes a registry.

use std::sync::Arc;

use bytes::Bytes;
use prost_types::Timestamp;

use crate::backend::{Key, Query};
use crate::deadline::Deadline;
use crate::encoded::Object;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::{FeastObject, Kind};
use crate::locks::Reach;
use crate::proto::core;
use crate::registry::{Inner, RETRY_FOR, Registry};
use crate::rules::{self, ApplyOptions};

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
    pub async fn apply(&self, project: &str, object: impl Into<Object>) -> Result<()> {
        self.apply_all(project, vec![object.into()], ApplyOptions::default()).await
    }

    /// Applies many objects of one project at once: all of them or none. Later ones see earlier ones.
    ///
    /// # Errors
    /// As [`apply`](Self::apply); then nothing is written.
    pub async fn apply_all(&self, project: &str, objects: Vec<Object>, options: ApplyOptions) -> Result<()> {
        for object in &objects {
            self.check_object(project, object)?;
        }
        self.inner.settle().await;
        let (inner, project) = (Arc::clone(&self.inner), project.to_owned());
        let task = tokio::spawn(async move { inner.apply_all(&project, objects, options).await });
        task.await.map_err(|error| Error::internal("a write of the registry was aborted").with_source(error))?
    }

    /// Whether an object can be one of a project.
    pub(super) fn check_object(&self, project: &str, object: &Object) -> Result<()> {
        check_message(object)?;
        rules::check_names(object, project, &self.inner.limits)?;
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
    pub async fn delete(&self, kind: Kind, project: &str, name: &str) -> Result<()> {
        if kind == Kind::Project {
            return self.delete_project(name).await;
        }
        let queries = rules::fetch_for_delete(project, name, &[kind]);
        let (project, name) = (project.to_owned(), name.to_owned());
        self.transact(queries, Reach::Objects, move |draft, ctx| rules::delete(draft, ctx, kind, &project, &name)).await
    }

    /// Deletes a view, of whichever of the four kinds it is.
    ///
    /// # Errors
    /// `ViewNotFound`.
    pub async fn delete_view(&self, project: &str, name: &str) -> Result<()> {
        let queries = rules::fetch_for_delete(project, name, &Kind::VIEWS);
        let (project, name) = (project.to_owned(), name.to_owned());
        self.transact(queries, Reach::Objects, move |draft, ctx| rules::delete_view(draft, ctx, &project, &name)).await
    }

    /// Deletes a project with everything in it and nothing of another, in one commit; see [`delete`](Self::delete).
    ///
    /// # Errors
    /// `NotFound` when it is not there.
    pub async fn delete_project(&self, project: &str) -> Result<()> {
        let queries = vec![Query::Keys(vec![Key::project_object(project)])];
        let name = project.to_owned();
        self.transact(queries, Reach::Projects, move |draft, _| rules::delete_project(draft, &name)).await?;
        // The project is gone, whatever becomes of the storage: an error here would have the caller try again.
        if let Err(error) = self.inner.backend.remove_if_empty(&Deadline::after(RETRY_FOR)).await {
            tracing::warn!(%error, "the storage of the registry could not be removed after its last project");
        }
        Ok(())
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
        let queries = rules::fetch_for_materialization(project, view);
        let (project, view) = (project.to_owned(), view.to_owned());
        self.transact(queries, Reach::Objects, move |draft, ctx| {
            rules::apply_materialization(draft, ctx, &project, &view, interval)
        })
        .await
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
        let (project, view) = (project.to_owned(), view.to_owned());
        self.transact(queries, Reach::Objects, move |draft, ctx| {
            rules::remove_materialization(draft, ctx, &project, &view, &interval)
        })
        .await
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
        let (project, view) = (project.to_owned(), view.to_owned());
        self.transact(queries, Reach::Objects, move |draft, ctx| {
            rules::apply_user_metadata(draft, ctx, kind, &project, &view, metadata.clone())
        })
        .await
    }
}

impl Inner {
    /// Applies objects that were checked.
    pub(super) async fn apply_all(&self, project: &str, objects: Vec<Object>, options: ApplyOptions) -> Result<()> {
        let queries = rules::fetch_for_apply(project, &objects)?;
        let has_project = objects.iter().any(|object| object.kind == Kind::Project);
        let reach = if has_project { Reach::Projects } else { Reach::Objects };
        self.transact(&queries, reach, |draft, ctx| {
            objects.iter().try_for_each(|object| rules::apply(draft, ctx, project, object, options))
        })
        .await
    }
}

/// Checks that the bytes are a message of the kind: what is not must never be stored.
fn check_message(object: &Object) -> Result<()> {
    fn check<T: FeastObject>(object: &Object) -> Result<()> {
        object.decode::<T>().map(drop)
    }
    let checked = match object.kind {
        Kind::Project => check::<core::Project>(object),
        Kind::Entity => check::<core::Entity>(object),
        Kind::DataSource => check::<core::DataSource>(object),
        Kind::FeatureView => check::<core::FeatureView>(object),
        Kind::StreamFeatureView => check::<core::StreamFeatureView>(object),
        Kind::OnDemandFeatureView => check::<core::OnDemandFeatureView>(object),
        Kind::LabelView => check::<core::LabelView>(object),
        Kind::FeatureService => check::<core::FeatureService>(object),
        Kind::SavedDataset => check::<core::SavedDataset>(object),
        Kind::ValidationReference => check::<core::ValidationReference>(object),
        Kind::Permission => check::<core::Permission>(object),
        Kind::Infra => check::<core::Infra>(object),
    };
    checked.map_err(|error| {
        Error::new(ErrorKind::InvalidArgument, format!("what was sent is not a {}", object.kind)).with_source(error)
    })
}
