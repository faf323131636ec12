//! What reads from a registry.

use std::collections::BTreeMap;
use std::slice;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::backend::{INFRA_NAME, Key, Query, Record};
use crate::cache::Contents;
use crate::encoded::{Encoded, Object};
use crate::error::{Error, ErrorKind, Result};
use crate::features::Feature;
use crate::kind::{FeastObject, Kind};
use crate::lineage::{self, Lineage};
use crate::proto::core::{self, ProjectMetadata};
use crate::registry::{Freshness, Registry, fact};
use crate::{rules, wire};

/// How long the storage is given to answer a ping.
const PING_FOR: Duration = Duration::from_secs(5);

/// Which objects a list has.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ListFilter {
    /// Only objects that have all of these tags.
    pub tags: BTreeMap<String, String>,
    /// Only objects that were written at this moment (UTC) or later, to the second.
    pub updated_since: Option<Timestamp>,
}

impl ListFilter {
    /// All objects.
    pub fn all() -> Self {
        Self::default()
    }

    /// Of those, only the ones that have all of these tags.
    #[must_use]
    pub fn with_tags(mut self, tags: BTreeMap<String, String>) -> Self {
        self.tags = tags;
        self
    }

    /// Of those, only the ones that were written at this moment (UTC) or later, to the second.
    #[must_use]
    pub fn updated_since(mut self, moment: Timestamp) -> Self {
        self.updated_since = Some(moment);
        self
    }
}

/// One version in the history of a view.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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

/// What there is of one kind in a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holding {
    /// How many objects.
    pub objects: u64,
    /// How many bytes they have together.
    pub bytes: u64,
}

impl Registry {
    /// An object. For a project, `project` does not matter.
    ///
    /// # Errors
    /// `NotFound`.
    #[doc(alias(
        "get_entity",
        "get_data_source",
        "get_feature_view",
        "get_stream_feature_view",
        "get_on_demand_feature_view",
        "get_feature_service",
        "get_saved_dataset",
        "get_validation_reference",
        "get_permission",
        "get_project"
    ))]
    pub async fn get(&self, kind: Kind, project: &str, name: &str, freshness: Freshness) -> Result<Object> {
        let project = if kind == Kind::Project { name } else { project };
        self.find(slice::from_ref(&kind), project, name, freshness)
            .await?
            .ok_or_else(|| Error::not_found(kind, project, name))
    }

    /// An object as it is in the cache, whoever asks.
    pub(super) async fn find_cached(&self, kind: Kind, project: &str, name: &str) -> Result<Option<Object>> {
        self.find_any(slice::from_ref(&kind), project, name, Freshness::Cached).await
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
    #[doc(alias("get_any_feature_view"))]
    pub async fn get_any_view(&self, project: &str, name: &str, freshness: Freshness) -> Result<Object> {
        self.find(Kind::VIEWS, project, name, freshness).await?.ok_or_else(|| Error::view_not_found(project, name))
    }

    /// The first of these kinds that has an object of this name, if the caller may see it.
    ///
    /// # Errors
    /// `Corrupt` when it cannot be decoded; `PermissionDenied`.
    async fn find(&self, kinds: &[Kind], project: &str, name: &str, freshness: Freshness) -> Result<Option<Object>> {
        let found = self.find_any(kinds, project, name, freshness).await;
        if self.call.access().is_none() {
            return found;
        }
        self.shown((kinds, project, name), found).await
    }

    /// The same, whoever asks.
    pub(super) async fn find_any(
        &self,
        kinds: &[Kind],
        project: &str,
        name: &str,
        freshness: Freshness,
    ) -> Result<Option<Object>> {
        if freshness == Freshness::Stored || self.inner.overlay().is_some() {
            return self.find_record(kinds, project, name, freshness).await;
        }
        let look = |contents: &Contents| {
            let mut entries = kinds.iter().filter_map(|kind| Some((*kind, contents.entry(*kind, project, name)?)));
            let (kind, entry) = entries.next()?;
            Some((Object { kind, bytes: entry.bytes.clone() }, entry.is_sound))
        };
        match self.cached(look).await? {
            Some((object, false)) => {
                let key = Key::object(object.kind, project, name);
                self.inner.cache.check(&Record::new(key, object.bytes.clone(), 0)).map(|()| Some(object))
            }
            found => Ok(found.map(|(object, _)| object)),
        }
    }

    /// The same from the storage, or with what waits to be written.
    async fn find_record(
        &self,
        kinds: &[Kind],
        project: &str,
        name: &str,
        freshness: Freshness,
    ) -> Result<Option<Object>> {
        let keys: Vec<Key> = kinds.iter().map(|kind| Key::object(*kind, project, name)).collect();
        let found = match freshness {
            Freshness::Stored => self.read(Query::Keys(keys)).await?.into_iter().next(),
            Freshness::Cached => {
                let overlay = self.inner.overlay().unwrap_or_default();
                let mut records = self.cached(|contents| contents.records_of(&keys)).await?;
                overlay.show(&Query::Keys(keys), &mut records, self.inner.limits.keeps_order);
                records.into_iter().next()
            }
        };
        let Some(record) = found else { return Ok(None) };
        self.inner.cache.check(&record)?;
        Ok(object_of(record))
    }

    /// Looks at what is in memory, once that is filled and as fresh as it has to be. Looks once, and allocates and waits
    /// for nothing of its own when it is.
    pub(super) async fn cached<T>(&self, look: impl FnOnce(&Contents) -> T) -> Result<T> {
        let cache = &self.inner.cache;
        let look = match cache.read_if_fresh(look) {
            Ok(found) => return Ok(found),
            Err(look) => look,
        };
        let _permit = if cache.is_warm() { None } else { Some(self.inner.admit_read()?) };
        cache.freshen(|| self.deadline()).await?;
        cache.read(look)
    }

    /// The infrastructure of a project; empty when there is none, also for a project that is not there. Whoever may make a project
    /// may look before they do.
    pub async fn get_infra(&self, project: &str, freshness: Freshness) -> Result<Object> {
        if self.may_make(project).await? {
            return Ok(Object::new(Kind::Infra, Bytes::new()));
        }
        let infra = self.find(&[Kind::Infra], project, INFRA_NAME, freshness).await?;
        Ok(infra.unwrap_or_else(|| Object::new(Kind::Infra, Bytes::new())))
    }

    /// The objects of a kind in a project, in the order in which they were first stored; `None` is every project.
    #[doc(alias(
        "list_entities",
        "list_data_sources",
        "list_feature_views",
        "list_stream_feature_views",
        "list_on_demand_feature_views",
        "list_feature_services",
        "list_saved_datasets",
        "list_validation_references",
        "list_permissions",
        "list_projects"
    ))]
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
    #[doc(alias("list_all_feature_views"))]
    pub async fn list_views(&self, project: &str, filter: &ListFilter, freshness: Freshness) -> Result<Vec<Object>> {
        self.list_kinds(Kind::VIEWS, Some(project), filter, freshness).await
    }

    async fn list_kinds(
        &self,
        kinds: &[Kind],
        project: Option<&str>,
        filter: &ListFilter,
        freshness: Freshness,
    ) -> Result<Vec<Object>> {
        let since = filter.updated_since.map(|moment| moment.seconds);
        let queries = || -> Vec<Query> {
            let project = || project.map(str::to_owned);
            let query =
                |kind: &Kind| Query::Objects { kind: *kind, project: project(), updated_since: since, page: None };
            kinds.iter().map(query).collect()
        };
        let overlay = self.inner.overlay();
        // Of which project each of them is, only their keys say for certain.
        let of_all = project.is_none() && self.call.access().is_some();
        let objects: Vec<Object> = match (freshness, overlay) {
            (Freshness::Cached, None) if !of_all => {
                let list = |contents: &Contents| {
                    let mut listed = Vec::new();
                    kinds.iter().for_each(|kind| contents.list(*kind, project, since, &mut listed));
                    listed
                };
                self.cached(list).await?
            }
            (Freshness::Cached, overlay) => {
                let records = self.cached(|contents| {
                    kinds.iter().map(|kind| contents.records(*kind, project)).collect::<Vec<Vec<Record>>>()
                });
                let mut found = Vec::new();
                for (query, mut answer) in queries().iter().zip(records.await?) {
                    answer.retain(|record| since.is_none_or(|since| record.updated >= since));
                    if let Some(overlay) = &overlay {
                        overlay.show(query, &mut answer, self.inner.limits.keeps_order);
                    }
                    found.extend(answer);
                }
                if of_all {
                    found = self.only_seen_of_all(found).await?;
                }
                found.into_iter().filter_map(object_of).collect()
            }
            (Freshness::Stored, _) => {
                let mut records: Vec<Record> = self.read_all(&queries()).await?.into_iter().flatten().collect();
                self.inner.cache.keep_sound(&mut records);
                if of_all {
                    records = self.only_seen_of_all(records).await?;
                }
                records.into_iter().filter_map(object_of).collect()
            }
        };
        let objects = match project {
            Some(project) => self.only_seen(project, objects).await?,
            None => objects,
        };
        if filter.tags.is_empty() {
            return Ok(objects);
        }
        let count = objects.len();
        let tags = filter.tags.clone();
        let with_tags = move || {
            let mut kept = Vec::with_capacity(objects.len());
            for object in objects {
                if object.has_tags(&tags)? {
                    kept.push(object);
                }
            }
            Ok(kept)
        };
        self.compute(count, with_tags).await
    }

    /// How many objects of each kind every project has, and how many bytes they have as they are stored. Reads all of them.
    pub async fn inventory(&self) -> Result<BTreeMap<String, BTreeMap<Kind, Holding>>> {
        let mut inventory: BTreeMap<String, BTreeMap<Kind, Holding>> = BTreeMap::new();
        for kind in Kind::ALL.iter().copied() {
            let records = self.read(Query::objects(kind, None)).await?;
            for record in self.only_seen_of_all(records).await? {
                let holding = inventory.entry(record.key.project().to_owned()).or_default().entry(kind).or_default();
                holding.objects += 1;
                holding.bytes += record.value.len() as u64;
            }
        }
        Ok(inventory)
    }

    /// What is known of a project besides its objects: one message with its UUID, or none when nothing is
    /// (Feast: `list_project_metadata`).
    pub async fn list_project_metadata(&self, project: &str, freshness: Freshness) -> Result<Vec<ProjectMetadata>> {
        if !self.check_sees_project(project).await? {
            return Ok(Vec::new());
        }
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
        if !self.check_sees_project(project).await? {
            return Ok(None);
        }
        let facts = self.project_facts(project, Freshness::Stored).await?;
        Ok(facts.into_iter().find(|(stored, _)| stored == name).map(|(_, text)| fact(&text)))
    }

    async fn project_facts(&self, project: &str, freshness: Freshness) -> Result<Vec<(String, Bytes)>> {
        let query = Query::Metadata { project: Some(project.to_owned()) };
        let records = match freshness {
            Freshness::Stored => self.read(query).await?,
            Freshness::Cached => {
                let overlay = self.inner.overlay();
                let mut records = self.cached(|contents| contents.metadata_of(project)).await?;
                if let Some(overlay) = overlay {
                    overlay.show(&query, &mut records, self.inner.limits.keeps_order);
                }
                records
            }
        };
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
        let found = self.shown((&[kind], project, view), Ok(records.next().and_then(object_of))).await?;
        if found.is_none() {
            return Err(Error::not_found(kind, project, view));
        }
        Ok(records.next().map(|record| record.value))
    }

    /// The history of a view, oldest version first; empty when it has none (Feast: `list_feature_view_versions`). A version
    /// that cannot be decoded is left out and logged.
    #[doc(alias("list_feature_view_versions"))]
    pub async fn list_versions(&self, project: &str, view: &str) -> Result<Vec<FeatureViewVersion>> {
        let query = Query::Versions { project: project.to_owned(), view: view.to_owned(), latest_only: false };
        let versions = self.read(query).await?;
        let versions: Vec<_> = versions.iter().filter_map(|record| self.version_of(record).ok()).collect();
        self.only_seen_versions(project, view, versions).await
    }

    /// One version of a view (Feast: `get_feature_view_by_version`).
    ///
    /// # Errors
    /// `VersionNotFound`; `Corrupt` when it cannot be decoded.
    #[doc(alias("get_feature_view_by_version"))]
    pub async fn get_version(&self, project: &str, view: &str, number: i32) -> Result<FeatureViewVersion> {
        let key = Key::Version { project: project.to_owned(), view: view.to_owned(), number };
        let found = self.read(Query::Keys(vec![key])).await?;
        let versions = found.iter().map(|record| self.version_of(record)).collect::<Result<Vec<_>>>()?;
        match self.only_seen_versions(project, view, versions).await?.pop() {
            Some(version) => Ok(version),
            None => Err(Error::new(
                ErrorKind::VersionNotFound,
                format!("feature view `{view}` of project `{project}` has no version v{number}"),
            )),
        }
    }

    /// Those of versions of a view whose caller may see them, and the view as it is now, if it is there.
    async fn only_seen_versions(
        &self,
        project: &str,
        view: &str,
        mut versions: Vec<FeatureViewVersion>,
    ) -> Result<Vec<FeatureViewVersion>> {
        let Some(judge) = self.judge(project).await? else { return Ok(versions) };
        let is_hidden = match self.find_any(Kind::VIEWS, project, view, Freshness::Cached).await? {
            Some(now) => !judge.may_see(now.kind, view, Some(&now)),
            None => false,
        };
        versions.retain(|version| !is_hidden && judge.may_see(version.view.kind, view, Some(&version.view)));
        Ok(versions)
    }

    fn version_of(&self, record: &Record) -> Result<FeatureViewVersion> {
        version_of(&record.value).map_err(|error| self.inner.cache.unsound().note(&record.key, &record.value, error))
    }

    /// How the objects of a project depend on each other.
    #[doc(alias("get_registry_lineage", "get_object_relationships"))]
    pub async fn lineage(&self, project: &str, freshness: Freshness) -> Result<Lineage> {
        let objects = self.list_kinds(&lineage::KINDS, Some(project), &ListFilter::default(), freshness).await?;
        self.compute(objects.len(), move || Lineage::of(&objects)).await
    }

    /// The features of all views of a project.
    pub async fn list_features(&self, project: &str, freshness: Freshness) -> Result<Vec<Feature>> {
        let views = self.list_views(project, &ListFilter::default(), freshness).await?;
        let count = views.len();
        let features = move || {
            let mut all = Vec::new();
            for view in &views {
                all.extend(Feature::of_view(view)?);
            }
            Ok(all)
        };
        self.compute(count, features).await
    }

    /// All projects and their objects as one message (Feast: `proto`). As from Feast's server, it has neither
    /// infrastructure nor project metadata nor history. Objects are copied as they are stored, undecoded.
    pub async fn proto(&self, freshness: Freshness) -> Result<Encoded<core::Registry>> {
        let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Infra).collect();
        let objects = self.list_kinds(&kinds, None, &ListFilter::default(), freshness).await?;
        self.compute(objects.len(), move || as_one_message(objects)).await
    }

    /// Does work on so many objects that takes the processor and waits for nothing. Work on many objects is done on threads of
    /// its own, few at a time, so that it holds up no other call; it waits there for earlier work until the deadline of the
    /// call. What was begun goes on to its end when the caller leaves.
    ///
    /// # Errors
    /// Those of the work, and [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded) when the deadline is over first.
    pub async fn compute<T: Send + 'static>(
        &self,
        objects: usize,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.inner.compute.run(objects, &self.deadline(), work).await
    }

    /// Asks the storage whether it answers, for no longer than a few seconds. It does not queue behind other calls.
    ///
    /// # Errors
    /// What the storage says, or `DeadlineExceeded`.
    pub async fn ping(&self) -> Result<()> {
        let query = [Query::Keys(vec![Key::metadata("", Key::LAST_UPDATED)])];
        let deadline = self.deadline().at_most(PING_FOR);
        let backends = [Some(&self.inner.backend), self.inner.replica.as_ref()];
        for backend in backends.into_iter().flatten() {
            deadline.wait_for("the storage to answer at all", backend.read(&query, &deadline)).await??;
        }
        Ok(())
    }

    async fn read(&self, query: Query) -> Result<Vec<Record>> {
        Ok(self.read_all(slice::from_ref(&query)).await?.into_iter().next().unwrap_or_default())
    }

    /// Reads from the storage, with what waits to be written laid over it.
    pub(super) async fn read_all(&self, queries: &[Query]) -> Result<Vec<Vec<Record>>> {
        let _permit = self.inner.admit_read()?;
        let deadline = self.deadline();
        // What waits is looked at first: what is written meanwhile is then in one of the two, at the least.
        let overlay = self.inner.overlay();
        let read = self.inner.reads().read(queries, &deadline);
        let mut answers = deadline.wait_for("the storage to be read", read).await??;
        if let Some(overlay) = overlay {
            for (query, answer) in queries.iter().zip(&mut answers) {
                overlay.show(query, answer, self.inner.limits.keeps_order);
            }
        }
        Ok(answers)
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

/// Objects as one message, in the order of its fields.
fn as_one_message(mut objects: Vec<Object>) -> Result<Encoded<core::Registry>> {
    const LAST_UPDATED: u32 = 5;
    objects.sort_by_key(|object| object.kind.registry_field());
    let mut message = Vec::with_capacity(objects.iter().map(|object| object.bytes.len() + 8).sum());
    let mut last_updated: Option<Timestamp> = None;
    for object in &objects {
        wire::put(&mut message, object.kind.registry_field(), &object.bytes);
        if object.kind == Kind::Project {
            let updated = object.last_updated_timestamp()?;
            last_updated = last_updated.into_iter().chain(updated).max_by_key(|moment| (moment.seconds, moment.nanos));
        }
    }
    if let Some(moment) = last_updated {
        wire::put(&mut message, LAST_UPDATED, &moment.encode_to_vec());
    }
    Ok(Encoded::from_bytes(message.into()))
}
