//! What reads from a registry.

use std::collections::BTreeMap;
use std::slice;

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::backend::{INFRA_NAME, Key, Query, Record};
use crate::deadline::Deadline;
use crate::encoded::{Encoded, Object};
use crate::error::{Error, ErrorKind, Result};
use crate::features::{self, Feature};
use crate::kind::{FeastObject, Kind};
use crate::lineage::{self, Lineage};
use crate::proto::core::{self, ProjectMetadata};
use crate::registry::{Freshness, RETRY_FOR, Registry, fact};
use crate::{rules, wire};

/// Which objects a list has.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Only objects that have all of these tags.
    pub tags: BTreeMap<String, String>,
    /// Only objects that were written at this moment (UTC) or later, to the second.
    pub updated_since: Option<Timestamp>,
}

/// One version in the history of a view.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureViewVersion {
    /// Its number, counted from 0.
    pub number: i32,
    /// The identity of the record, a UUID.
    pub version_id: String,
    /// When it was made (UTC), to the second.
    pub created_timestamp: Timestamp,
    /// What was said about it; Feast says nothing.
    pub description: String,
    /// The view as it was.
    pub view: Object,
}

impl Registry {
    /// An object. For a project, `project` does not matter.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get(&self, kind: Kind, project: &str, name: &str, freshness: Freshness) -> Result<Object> {
        let project = if kind == Kind::Project { name } else { project };
        self.find(slice::from_ref(&kind), project, name, freshness)
            .await?
            .ok_or_else(|| Error::not_found(kind, project, name))
    }

    /// A decoded object.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_message<T: FeastObject>(&self, project: &str, name: &str, freshness: Freshness) -> Result<T> {
        self.get(T::KIND, project, name, freshness).await?.decode()
    }

    /// A view, of whichever of the four kinds it is.
    ///
    /// # Errors
    /// `ViewNotFound`.
    pub async fn get_any_view(&self, project: &str, name: &str, freshness: Freshness) -> Result<Object> {
        self.find(&Kind::VIEWS, project, name, freshness).await?.ok_or_else(|| Error::view_not_found(project, name))
    }

    /// The first of these kinds that has an object of this name.
    async fn find(&self, kinds: &[Kind], project: &str, name: &str, freshness: Freshness) -> Result<Option<Object>> {
        match freshness {
            Freshness::Cached => {
                self.inner.settle().await;
                self.inner.cache.ensure_fresh(self.inner.reads()).await?;
                Ok(kinds.iter().find_map(|kind| self.inner.cache.get(*kind, project, name)))
            }
            Freshness::Stored => {
                let keys = kinds.iter().map(|kind| Key::object(*kind, project, name)).collect();
                Ok(self.read(Query::Keys(keys)).await?.into_iter().next().and_then(object_of))
            }
        }
    }

    /// The infrastructure of a project; empty when there is none, also for a project that is not there.
    pub async fn get_infra(&self, project: &str, freshness: Freshness) -> Result<Object> {
        let infra = self.find(&[Kind::Infra], project, INFRA_NAME, freshness).await?;
        Ok(infra.unwrap_or_else(|| Object::new(Kind::Infra, Bytes::new())))
    }

    /// The objects of a kind in a project, in the order in which they were first stored; `None` is every project.
    pub async fn list(
        &self,
        kind: Kind,
        project: Option<&str>,
        filter: &ListFilter,
        freshness: Freshness,
    ) -> Result<Vec<Object>> {
        self.list_kinds(&[kind], project, filter, freshness).await
    }

    /// The views of all four kinds in a project, kind after kind.
    pub async fn list_views(&self, project: &str, filter: &ListFilter, freshness: Freshness) -> Result<Vec<Object>> {
        self.list_kinds(&Kind::VIEWS, Some(project), filter, freshness).await
    }

    async fn list_kinds(
        &self,
        kinds: &[Kind],
        project: Option<&str>,
        filter: &ListFilter,
        freshness: Freshness,
    ) -> Result<Vec<Object>> {
        let since = filter.updated_since.map(|moment| moment.seconds);
        let mut objects: Vec<Object> = match freshness {
            Freshness::Cached => {
                self.inner.settle().await;
                self.inner.cache.ensure_fresh(self.inner.reads()).await?;
                let listed = kinds.iter().flat_map(|kind| self.inner.cache.list(*kind, project));
                let recent = listed.filter(|(_, updated)| since.is_none_or(|since| *updated >= since));
                recent.map(|(object, _)| object).collect()
            }
            Freshness::Stored => {
                let query = |kind: &Kind| Query::Objects {
                    kind: *kind,
                    project: project.map(str::to_owned),
                    updated_since: since,
                    page: None,
                };
                let queries: Vec<Query> = kinds.iter().map(query).collect();
                self.inner.settle().await;
                let answers = self.inner.reads().read(&queries, &Deadline::after(RETRY_FOR)).await?;
                answers.into_iter().flatten().filter_map(object_of).collect()
            }
        };
        if !filter.tags.is_empty() {
            let mut kept = Vec::with_capacity(objects.len());
            for object in objects {
                if object.has_tags(&filter.tags)? {
                    kept.push(object);
                }
            }
            objects = kept;
        }
        Ok(objects)
    }

    /// What is known of a project besides its objects: one message with its UUID, or none when nothing is
    /// (Feast: `list_project_metadata`).
    pub async fn list_project_metadata(&self, project: &str, freshness: Freshness) -> Result<Vec<ProjectMetadata>> {
        let facts = self.project_facts(project, freshness).await?;
        if facts.is_empty() {
            return Ok(Vec::new());
        }
        let uuid = facts.iter().find(|(name, _)| name == Key::PROJECT_UUID);
        let project_uuid = uuid.map(|(_, text)| fact(text)).unwrap_or_default();
        Ok(vec![ProjectMetadata { project: project.to_owned(), project_uuid }])
    }

    /// One fact about a project, as [`Key::LAST_UPDATED`] (Feast: `get_project_metadata`).
    pub async fn get_project_metadata(&self, project: &str, name: &str) -> Result<Option<String>> {
        let facts = self.project_facts(project, Freshness::Stored).await?;
        Ok(facts.into_iter().find(|(stored, _)| stored == name).map(|(_, text)| fact(&text)))
    }

    async fn project_facts(&self, project: &str, freshness: Freshness) -> Result<Vec<(String, Bytes)>> {
        if freshness == Freshness::Cached {
            self.inner.settle().await;
            self.inner.cache.ensure_fresh(self.inner.reads()).await?;
            return Ok(self.inner.cache.metadata(project));
        }
        let records = self.read(Query::Metadata { project: Some(project.to_owned()) }).await?;
        let facts = records.into_iter().filter_map(|record| match record.key {
            Key::Metadata { name, .. } => Some((name, record.value)),
            _ => None,
        });
        Ok(facts.collect())
    }

    /// The bytes that a user attached to a view (Feast: `get_user_metadata`).
    ///
    /// # Errors
    /// `NotFound` when there is no such view of this kind.
    pub async fn get_user_metadata(&self, kind: Kind, project: &str, view: &str) -> Result<Option<Bytes>> {
        let keys = vec![Key::object(kind, project, view), rules::user_metadata_key(kind, project, view)];
        let mut records = self.read(Query::Keys(keys)).await?.into_iter();
        if records.next().is_none() {
            return Err(Error::not_found(kind, project, view));
        }
        Ok(records.next().map(|record| record.value))
    }

    /// The history of a view, oldest version first; empty when it has none (Feast: `list_feature_view_versions`).
    pub async fn list_versions(&self, project: &str, view: &str) -> Result<Vec<FeatureViewVersion>> {
        let query = Query::Versions { project: project.to_owned(), view: view.to_owned(), latest_only: false };
        self.read(query).await?.iter().map(|record| version_of(&record.value)).collect()
    }

    /// One version of a view (Feast: `get_feature_view_by_version`).
    ///
    /// # Errors
    /// `VersionNotFound`.
    pub async fn get_version(&self, project: &str, view: &str, number: i32) -> Result<FeatureViewVersion> {
        let key = Key::Version { project: project.to_owned(), view: view.to_owned(), number };
        match self.read(Query::Keys(vec![key])).await?.first() {
            Some(record) => version_of(&record.value),
            None => Err(Error::new(
                ErrorKind::VersionNotFound,
                format!("feature view `{view}` of project `{project}` has no version v{number}"),
            )),
        }
    }

    /// How the objects of a project depend on each other.
    pub async fn lineage(&self, project: &str, freshness: Freshness) -> Result<Lineage> {
        let kinds = lineage::KINDS;
        lineage::lineage(&self.list_kinds(&kinds, Some(project), &ListFilter::default(), freshness).await?)
    }

    /// The features of all views of a project.
    pub async fn list_features(&self, project: &str, freshness: Freshness) -> Result<Vec<Feature>> {
        let views = self.list_views(project, &ListFilter::default(), freshness).await?;
        let mut all = Vec::new();
        for view in &views {
            all.extend(features::features_of(view)?);
        }
        Ok(all)
    }

    /// All projects and their objects as one message (Feast: `proto`). As from Feast's server, it has neither
    /// infrastructure nor project metadata nor history. Objects are copied as they are stored, undecoded.
    pub async fn proto(&self, freshness: Freshness) -> Result<Encoded<core::Registry>> {
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Infra).collect();
        let mut objects = self.list_kinds(&kinds, None, &ListFilter::default(), freshness).await?;
        objects.sort_by_key(|object| object.kind.registry_field());
        let mut message = Vec::with_capacity(objects.iter().map(|object| object.bytes.len() + 8).sum());
        let mut last_updated: Option<Timestamp> = None;
        for object in &objects {
            wire::put(&mut message, object.kind.registry_field(), &object.bytes);
            if object.kind == Kind::Project {
                let updated = object.last_updated_timestamp()?;
                last_updated =
                    last_updated.into_iter().chain(updated).max_by_key(|moment| (moment.seconds, moment.nanos));
            }
        }
        if let Some(moment) = last_updated {
            const LAST_UPDATED: u32 = 5;
            wire::put(&mut message, LAST_UPDATED, &moment.encode_to_vec());
        }
        Ok(Encoded::from_bytes(message.into()))
    }

    /// Asks the storage whether it answers.
    ///
    /// # Errors
    /// What the storage says.
    pub async fn ping(&self) -> Result<()> {
        let query = [Query::Keys(vec![Key::metadata("", Key::LAST_UPDATED)])];
        self.inner.backend.read(&query, &Deadline::after(RETRY_FOR)).await?;
        match &self.inner.replica {
            Some(replica) => replica.read(&query, &Deadline::after(RETRY_FOR)).await.map(drop),
            None => Ok(()),
        }
    }

    async fn read(&self, query: Query) -> Result<Vec<Record>> {
        self.inner.settle().await;
        let answers = self.inner.reads().read(slice::from_ref(&query), &Deadline::after(RETRY_FOR)).await?;
        Ok(answers.into_iter().next().unwrap_or_default())
    }
}

fn object_of(record: Record) -> Option<Object> {
    match record.key {
        Key::Object { kind, .. } => Some(Object { kind, bytes: record.value }),
        _ => None,
    }
}

fn version_of(record: &Bytes) -> Result<FeatureViewVersion> {
    let record = rules::decode_record(record)?;
    let kind = Kind::from_version_type(&record.feature_view_type).ok_or_else(|| {
        let (number, view, kind) = (record.version_number, &record.feature_view_name, &record.feature_view_type);
        Error::new(ErrorKind::Corrupt, format!("version v{number} of `{view}` is of an unknown kind, `{kind}`"))
    })?;
    Ok(FeatureViewVersion {
        number: record.version_number,
        version_id: record.version_id,
        created_timestamp: record.created_timestamp.unwrap_or_default(),
        description: record.description,
        view: Object::new(kind, record.feature_view_proto),
    })
}
