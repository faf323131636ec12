//! Objects of the kinds that Feast's API has: lists of a project, lists across projects, and one by name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use feast_registry_core::proto::core::SavedDataset;
use feast_registry_core::{Kind, Lineage, ListFilter, Object, ObjectType, Relation};
use serde_json::Value;

use super::answer::Answer;
use super::call::Call;
use super::definition;
use super::document::{Document, Identifier, Item};
use super::entry::Entry;
use super::error::Result;
use super::features::FeatureEntry;
use super::relations::{OfObject, Related, of_objects};
use super::resources::{batch_source_of, has_entity};
use super::tag::Tag;
use crate::lists::{FeatureFilter, ViewFilter, Wanted};
use crate::paging;
use crate::proto::PaginationMetadata;

/// A kind of object as the API has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Entities,
    DataSources,
    /// All views but label views.
    FeatureViews,
    LabelViews,
    FeatureServices,
    SavedDatasets,
    Permissions,
    Features,
    Labels,
    /// Features and labels, which Feast tells apart in lists of their own alone.
    FeaturesAndLabels,
}

impl Resource {
    /// Under which name a list has them.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Entities => "entities",
            Self::DataSources => "dataSources",
            // That is how Feast has label views too.
            Self::FeatureViews | Self::LabelViews => "featureViews",
            Self::FeatureServices => "featureServices",
            Self::SavedDatasets => "savedDatasets",
            Self::Permissions => "permissions",
            Self::Features | Self::FeaturesAndLabels => "features",
            Self::Labels => "labels",
        }
    }

    /// What lineage calls them, if it has them.
    fn object_type(self) -> Option<ObjectType> {
        match self {
            Self::Entities => Some(ObjectType::Entity),
            Self::DataSources => Some(ObjectType::DataSource),
            Self::FeatureViews | Self::LabelViews => Some(ObjectType::FeatureView),
            Self::FeatureServices => Some(ObjectType::FeatureService),
            Self::SavedDatasets => Some(ObjectType::SavedDataset),
            Self::Features | Self::Labels | Self::FeaturesAndLabels => Some(ObjectType::Feature),
            Self::Permissions => None,
        }
    }
}

/// What stands in a list: an object, or a feature of one.
#[derive(Debug, Clone)]
pub(crate) enum Listed {
    Object(Entry),
    Feature(FeatureEntry),
}

impl Listed {
    fn name(&self) -> String {
        match self {
            // What has no name that can be read is in no list.
            Self::Object(entry) => entry.object.name().unwrap_or_default(),
            Self::Feature(entry) => entry.feature.name.clone(),
        }
    }

    pub(crate) fn of_project(self, project: &Arc<str>) -> Self {
        match self {
            Self::Object(entry) => Self::Object(entry.of_project(project)),
            Self::Feature(entry) => Self::Feature(entry.of_project(project)),
        }
    }

    /// What stands under a name in its JSON, if that is a text or a number: Feast sorts lists across projects by that.
    fn top_level(&self, key: &str) -> Option<Value> {
        let value = match self {
            Self::Object(entry) => entry.top_level(key)?,
            Self::Feature(entry) => entry.top_level(key)?,
        };
        (value.is_string() || value.is_number() || value.is_boolean()).then_some(value)
    }
}

impl Item for Listed {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Object(entry) => entry.write(out),
            Self::Feature(entry) => entry.write(out),
        }
    }

    fn identify(&self, to: &mut Identifier) {
        match self {
            Self::Object(entry) => entry.identify(to),
            Self::Feature(entry) => entry.identify(to),
        }
    }

    fn own_size(&self) -> usize {
        match self {
            Self::Object(entry) => entry.own_size(),
            Self::Feature(entry) => entry.own_size(),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Object(entry) => entry.size(),
            Self::Feature(entry) => entry.size(),
        }
    }
}

impl Call {
    /// The objects of a project that a list is to have, before it is sorted and paged, and sorted and paged.
    pub(crate) async fn listed(
        &self,
        resource: Resource,
        wanted: &Wanted,
        is_paged: bool,
    ) -> Result<(Vec<Listed>, PaginationMetadata)> {
        let (pagination, sorting) = match is_paged {
            true => (self.given.pagination(), self.given.sorting()),
            false => (None, None),
        };
        let lists = self.lists();
        let given = |name| self.given.text_or_empty(name).to_owned();
        let features = |kind: &str| FeatureFilter {
            kind: kind.to_owned(),
            feature_view: given("feature_view"),
            name: given("name"),
        };
        let objects = match resource {
            Resource::Features | Resource::Labels | Resource::FeaturesAndLabels => {
                let kind = match resource {
                    Resource::Labels => "label",
                    Resource::Features => "feature",
                    _ => "",
                };
                let found = lists.features(wanted, &features(kind)).await?;
                let (found, page) = lists.page(found, pagination, sorting.as_ref()).await?;
                let found = found.into_iter().map(|feature| Listed::Feature(FeatureEntry::new(feature)));
                return Ok((found.collect(), page));
            }
            Resource::Entities => lists.of_kind(Kind::Entity, wanted).await?,
            Resource::DataSources => lists.of_kind(Kind::DataSource, wanted).await?,
            Resource::LabelViews => lists.of_kind(Kind::LabelView, wanted).await?,
            Resource::Permissions => lists.of_kind(Kind::Permission, wanted).await?,
            Resource::FeatureServices => lists.feature_services(wanted, &given("feature_view")).await?,
            Resource::SavedDatasets => lists.saved_datasets(wanted, &given("namespace"), &given("collection")).await?,
            Resource::FeatureViews => {
                let made_of = ViewFilter {
                    entity: given("entity"),
                    feature: given("feature"),
                    feature_service: given("feature_service"),
                    data_source: given("data_source"),
                    updated_since: self.updated_since()?,
                };
                lists.views(wanted, &made_of).await?
            }
        };
        let (objects, page) = lists.page(objects, pagination, sorting.as_ref()).await?;
        let entries = match resource {
            Resource::FeatureViews | Resource::LabelViews => {
                objects.into_iter().map(|view| Listed::Object(Entry::view(view))).collect()
            }
            Resource::SavedDatasets => {
                let sources = self.sources_of_views(wanted, !objects.is_empty()).await?;
                let entry = |dataset: Object| {
                    let sources = data_sources_of(&dataset, &sources);
                    Listed::Object(Entry::new(dataset).with_data_sources(sources))
                };
                objects.into_iter().map(entry).collect()
            }
            _ => objects.into_iter().map(|object| Listed::Object(Entry::new(object))).collect(),
        };
        Ok((entries, page))
    }

    /// `GET /RESOURCE`.
    pub(crate) async fn list(self, resource: Resource, has_tags: bool) -> Result<Answer> {
        let wanted = if has_tags { self.wanted_with_tags() } else { self.wanted() };
        let (listed, page) = self.listed(resource, &wanted, true).await?;
        let relations = match self.given.includes_relationships() {
            true => Some(self.related_to(resource, &wanted, &listed).await?),
            false => None,
        };
        let mut document = Document::new();
        document.array(resource.key(), listed);
        document.field("pagination", &paging::to_json(&page));
        if let Some(relations) = relations {
            document.map("relationships", relations);
        }
        Ok(Answer::document(document))
    }

    /// `GET /RESOURCE/all`: across all projects, always paged.
    pub(crate) async fn list_all(self, resource: Resource) -> Result<Answer> {
        let mut all = Vec::new();
        let mut relations: BTreeMap<String, OfObject> = BTreeMap::new();
        for project in self.lists().projects(BTreeMap::new(), self.given.allow_cache()).await? {
            let name = project.name()?;
            let wanted = Wanted::of(&name, self.given.allow_cache());
            let (listed, _) = self.listed(resource, &wanted, false).await?;
            if self.given.includes_relationships() && !listed.is_empty() {
                let related = self.related_to(resource, &wanted, &listed).await?;
                relations.extend(related.into_iter().map(|of| (of.name.clone(), of)));
            }
            let project: Arc<str> = name.into();
            all.extend(listed.into_iter().map(|listed| listed.of_project(&project)));
        }
        let paging = self.given.paging();
        let sorting = self.given.sorting();
        let count = if sorting.is_some() { all.len() } else { 0 };
        let paged = move || {
            if let Some(sorting) = sorting {
                all = sorted(all, &sorting.sort_by, sorting.sort_order == "desc");
            }
            Ok(paging.take(all))
        };
        let (listed, pagination) = self.registry.compute(count, paged).await?;
        let mut document = Document::new();
        document.array(resource.key(), listed);
        document.field("pagination", &paging::to_json(&pagination));
        if self.given.includes_relationships() {
            document.map("relationships", relations.into_values().collect());
        }
        Ok(Answer::document(document))
    }

    /// What the objects of a list are related to. Of two with one name there is one.
    async fn related_to(&self, resource: Resource, wanted: &Wanted, listed: &[Listed]) -> Result<Vec<OfObject>> {
        let names: Vec<String> = listed.iter().map(Listed::name).collect();
        let lineage = match resource.object_type() {
            Some(_) => self.lists().lineage(wanted, "", "").await?,
            None => Lineage::default(),
        };
        let count = lineage.direct.len() + lineage.indirect.len();
        let of_objects = move || Ok(of_objects(lineage, resource.object_type(), names));
        Ok(self.registry.compute(count, of_objects).await?)
    }

    /// `GET /RESOURCE/{name}`, of a kind that has one object of a name.
    pub(crate) async fn get(self, resource: Resource, kind: Kind) -> Result<Answer> {
        let (project, name) = (self.given.project(), self.given.text_or_empty("name"));
        let object = self.registry.get(kind, project, name, self.freshness()).await?;
        let entry = match kind {
            Kind::LabelView => Entry::view(object),
            Kind::SavedDataset => {
                let sources = self.sources_of_views(&self.wanted(), true).await?;
                let sources = data_sources_of(&object, &sources);
                Entry::new(object).with_data_sources(sources)
            }
            _ => Entry::new(object),
        };
        self.one(resource, entry).await
    }

    /// `GET /feature_views/{name}`, of any kind of view.
    pub(crate) async fn get_view(self) -> Result<Answer> {
        let (project, name) = (self.given.project(), self.given.text_or_empty("name"));
        let view = self.registry.get_any_view(project, name, self.freshness()).await?;
        self.one(Resource::FeatureViews, Entry::view(view)).await
    }

    /// One object, with what is told besides.
    async fn one(&self, resource: Resource, entry: Entry) -> Result<Answer> {
        let name = self.given.text_or_empty("name");
        let relations = match (self.given.includes_relationships(), resource.object_type()) {
            (true, Some(of)) => self.lists().relationships(&self.wanted(), (of, name), true).await?,
            _ => Vec::new(),
        };
        let sources = match resource {
            Resource::Entities => Some(self.sources_of_entity(name).await?),
            _ => None,
        };
        let tells_relations = self.given.includes_relationships();
        let relations = Related::all(relations);
        let bytes = entry.object.bytes.len();
        let mut besides = Identifier::new();
        besides.add(env!("CARGO_PKG_VERSION").as_bytes());
        besides.add(&[u8::from(tells_relations), u8::from(resource == Resource::LabelViews)]);
        entry.identify_into(&mut besides);
        relations.iter().for_each(|relation| relation.identify(&mut besides));
        sources.iter().flatten().for_each(|source| source.identify(&mut besides));
        let tag = Tag::of_object(&entry.object, besides);
        if self.has(&tag) {
            return Ok(Answer::empty().with_tag(tag));
        }
        let written = move || {
            let mut document = Document::new();
            document.fields_of(&entry.json()?);
            if let Some(sources) = sources {
                document.array("dataSources", sources);
            }
            if tells_relations {
                document.array("relationships", relations);
            }
            if resource != Resource::LabelViews
                && let Some(definition) = definition::of_object(&entry.object)?
            {
                document.field("featureDefinition", &definition);
            }
            Ok(document)
        };
        Ok(Answer::document(self.work(bytes, written).await?).with_tag(tag))
    }

    /// The data sources that an entity's views are made of, in the order of lineage.
    async fn sources_of_entity(&self, name: &str) -> Result<Vec<Entry>> {
        let wanted = self.wanted();
        let relations = self.lineage_of_entity(&wanted, name).await?.indirect;
        let is_of_it = |relation: &Relation| {
            relation.involves(ObjectType::Entity, name) && relation.target.object_type == ObjectType::DataSource
        };
        let sources: Vec<String> =
            relations.into_iter().filter(is_of_it).map(|relation| relation.target.name).collect();
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let mut by_name: HashMap<String, Object> = HashMap::new();
        for source in self.lists().of_kind(Kind::DataSource, &wanted).await? {
            by_name.insert(source.name()?, source);
        }
        // Each is taken once.
        let sources = sources.iter().filter_map(|source| by_name.remove(source));
        Ok(sources.map(Entry::new).collect())
    }

    /// What lineage has of an entity and of the data sources of its views: that of these views alone.
    async fn lineage_of_entity(&self, wanted: &Wanted, entity: &str) -> Result<Lineage> {
        let views = self.registry.list_views(&wanted.project, &ListFilter::all(), self.freshness()).await?;
        let (count, entity) = (views.len(), entity.to_owned());
        let lineage = move || {
            let mut names = HashSet::new();
            for view in &views {
                if has_entity(view, &entity)? {
                    names.insert(view.name()?);
                }
            }
            // Views of different kinds may have one name, and then are one to lineage.
            let mut of_entity = Vec::new();
            for view in views {
                if names.contains(&view.name()?) {
                    of_entity.push(view);
                }
            }
            Lineage::of(&of_entity)
        };
        Ok(self.registry.compute(count, lineage).await?)
    }

    /// The batch sources of views, by the names of the views.
    async fn sources_of_views(&self, wanted: &Wanted, are_needed: bool) -> Result<HashMap<String, String>> {
        if !are_needed {
            return Ok(HashMap::new());
        }
        let wanted = Wanted::of(&wanted.project, wanted.allow_cache);
        let views = self.lists().views(&wanted, &ViewFilter::default()).await?;
        let count = views.len();
        let sources = move || {
            let mut sources = HashMap::new();
            for view in views {
                if let Some(source) = batch_source_of(&view)? {
                    sources.insert(view.name()?, source);
                }
            }
            Ok(sources)
        };
        Ok(self.registry.compute(count, sources).await?)
    }
}

/// What a saved dataset was made from, by the views that its features are of.
fn data_sources_of(dataset: &Object, sources: &HashMap<String, String>) -> Vec<String> {
    let features = dataset.decode::<SavedDataset>().ok().and_then(|dataset| dataset.spec).unwrap_or_default().features;
    let mut seen = HashSet::new();
    let views = features.iter().filter_map(|feature| feature.split_once(':').map(|(view, _)| view));
    views.filter_map(|view| sources.get(view)).filter(|source| seen.insert(*source)).cloned().collect()
}

/// As Feast sorts them: by what stands at the top of each item's JSON, so that entities, whose name does not, cannot be sorted by
/// name. What is not there is an empty text; what cannot be compared stays where it is.
fn sorted(items: Vec<Listed>, key: &str, is_descending: bool) -> Vec<Listed> {
    let mut keyed: Vec<(String, Listed)> = items
        .into_iter()
        .map(|item| {
            let key = match item.top_level(key) {
                Some(Value::String(text)) => text,
                Some(other) => other.to_string(),
                None => String::new(),
            };
            (key, item)
        })
        .collect();
    keyed.sort_by(|(one, _), (other, _)| if is_descending { other.cmp(one) } else { one.cmp(other) });
    keyed.into_iter().map(|(_, item)| item).collect()
}
