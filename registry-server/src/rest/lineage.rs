//! Lineage of a project, of one object, and everything that a page about a project shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use feast_registry_core::{Lineage, ObjectType, Relation};
use serde_json::{Value, json};

use super::answer::Answer;
use super::call::Call;
use super::document::Document;
use super::entry::Entry;
use super::error::{RestError, Result};
use super::objects::{Listed, Resource};
use super::relations::Related;
use crate::lists::Wanted;
use crate::paging;

/// What may be asked for by its type, as in Feast.
const TYPES: [ObjectType; 6] = [
    ObjectType::DataSource,
    ObjectType::Entity,
    ObjectType::FeatureView,
    ObjectType::FeatureService,
    ObjectType::Feature,
    ObjectType::SavedDataset,
];

/// What a project has, as pages show it, by the names that they have there.
const OBJECTS: [(&str, Resource); 8] = [
    ("entities", Resource::Entities),
    ("dataSources", Resource::DataSources),
    ("featureViews", Resource::FeatureViews),
    ("labelViews", Resource::LabelViews),
    ("featureServices", Resource::FeatureServices),
    ("features", Resource::FeaturesAndLabels),
    ("labels", Resource::Labels),
    ("savedDatasets", Resource::SavedDatasets),
];

impl Call {
    async fn lineage_of(&self, wanted: &Wanted) -> Result<Lineage> {
        let given = &self.given;
        let (object_type, name) =
            (given.text_or_empty("filter_object_type"), given.text_or_empty("filter_object_name"));
        Ok(self.lists().lineage(wanted, object_type, name).await?)
    }

    async fn page_of_relations(&self, relations: Vec<Relation>) -> Result<(Vec<Related>, Value)> {
        let (pagination, sorting) = (self.given.pagination(), self.given.sorting());
        let (relations, page) = self.lists().page(relations, pagination, sorting.as_ref()).await?;
        Ok((Related::all(relations), paging::to_json(&page)))
    }

    /// `GET /lineage/registry`.
    pub(crate) async fn registry_lineage(self) -> Result<Answer> {
        let lineage = self.lineage_of(&self.wanted()).await?;
        let (direct, direct_page) = self.page_of_relations(lineage.direct).await?;
        let (indirect, indirect_page) = self.page_of_relations(lineage.indirect).await?;
        let mut document = Document::new();
        document.array("relationships", direct);
        document.array("indirect_relationships", indirect);
        document.field("relationships_pagination", &direct_page);
        document.field("indirect_relationships_pagination", &indirect_page);
        Ok(Answer::document(document))
    }

    /// `GET /lineage/registry/all`.
    pub(crate) async fn all_lineage(self) -> Result<Answer> {
        let (mut direct, mut indirect) = (Vec::new(), Vec::new());
        for project in self.project_names().await? {
            let lineage = self.lineage_of(&Wanted::of(&*project, self.given.allow_cache())).await?;
            let of_project = |relation| Related { relation, project: Some(Arc::clone(&project)) };
            direct.extend(lineage.direct.into_iter().map(of_project));
            indirect.extend(lineage.indirect.into_iter().map(of_project));
        }
        let mut document = Document::new();
        document.array("relationships", direct);
        document.array("indirect_relationships", indirect);
        Ok(Answer::document(document))
    }

    /// `GET /lineage/objects/{object_type}/{object_name}`.
    pub(crate) async fn object_lineage(self) -> Result<Answer> {
        let object_type = self.given.text_or_empty("object_type");
        let object_type = object_type.parse().ok().filter(|of| TYPES.contains(of)).ok_or_else(|| {
            let names = TYPES.map(|of| of.to_string()).join(", ");
            RestError::invalid_value(format!("`{object_type}` is not a type of object; the types are {names}"))
        })?;
        let object = (object_type, self.given.text_or_empty("object_name"));
        let indirect = self.given.flag_or("include_indirect", false);
        let relations = self.lists().relationships(&self.wanted(), object, indirect).await?;
        let (relations, page) = self.page_of_relations(relations).await?;
        let mut document = Document::new();
        if !relations.is_empty() {
            document.array("relationships", relations);
        }
        document.field("pagination", &page);
        Ok(Answer::document(document))
    }

    /// `GET /lineage/complete`.
    pub(crate) async fn complete(self) -> Result<Answer> {
        let whole = self.project_whole(self.given.project(), true).await?;
        let mut document = Document::new();
        whole.fill(&mut document, None, true);
        Ok(Answer::document(document))
    }

    /// `GET /lineage/complete/all`.
    pub(crate) async fn complete_all(self) -> Result<Answer> {
        let mut wholes = Vec::new();
        for project in self.project_names().await? {
            wholes.push(self.project_whole(&project, false).await?);
        }
        let mut document = Document::new();
        document.objects("projects", wholes, |whole, document| {
            let project: Arc<str> = whole.project.as_str().into();
            whole.fill(document, Some(&project), false);
        });
        Ok(Answer::document(document))
    }

    async fn project_whole(&self, project: &str, is_paged: bool) -> Result<Whole> {
        let wanted = Wanted::of(project, self.given.allow_cache());
        let lineage = self.lists().lineage(&wanted, "", "").await?;
        let mut whole = Whole { project: project.to_owned(), ..Whole::default() };
        for (name, resource) in OBJECTS {
            let (listed, page) = self.listed(resource, &wanted, is_paged).await?;
            let listed = match resource {
                // Here Feast has them as they are in its `AnyFeatureView`, and label views as they are.
                Resource::FeatureViews => with_entries(listed, Entry::any_view),
                Resource::LabelViews | Resource::SavedDatasets => with_entries(listed, Entry::new),
                _ => listed,
            };
            whole.objects.push((name, listed));
            whole.pages.push((name, paging::to_json(&page)));
        }
        for (name, relations) in [("relationships", lineage.direct), ("indirectRelationships", lineage.indirect)] {
            let (relations, page) = match is_paged {
                true => self.page_of_relations(relations).await?,
                false => (Related::all(relations), Value::Null),
            };
            whole.relations.push((name, relations));
            whole.pages.push((name, page));
        }
        Ok(whole)
    }

    /// The names of all projects but those that are protected.
    pub(crate) async fn project_names(&self) -> Result<Vec<Arc<str>>> {
        let projects = self.lists().projects(BTreeMap::new(), self.given.allow_cache()).await?;
        let names: std::result::Result<Vec<String>, _> = projects.iter().map(|project| project.name()).collect();
        Ok(names?.into_iter().map(Arc::from).collect())
    }
}

fn with_entries(listed: Vec<Listed>, entry: fn(feast_registry_core::Object) -> Entry) -> Vec<Listed> {
    listed
        .into_iter()
        .map(|listed| match listed {
            Listed::Object(of) => Listed::Object(entry(of.object)),
            feature => feature,
        })
        .collect()
}

/// All that there is of a project.
#[derive(Default)]
struct Whole {
    project: String,
    objects: Vec<(&'static str, Vec<Listed>)>,
    relations: Vec<(&'static str, Vec<Related>)>,
    pages: Vec<(&'static str, Value)>,
}

impl Whole {
    fn fill(self, document: &mut Document, of_project: Option<&Arc<str>>, is_paged: bool) {
        document.field("project", &self.project);
        document.object("objects", |objects| {
            for (name, listed) in self.objects {
                let listed = match of_project {
                    Some(project) => listed.into_iter().map(|listed| listed.of_project(project)).collect(),
                    None => listed,
                };
                objects.array(name, listed);
            }
        });
        for (name, relations) in self.relations {
            document.array(name, relations);
        }
        if is_paged {
            let pages: serde_json::Map<String, Value> =
                self.pages.into_iter().map(|(name, page)| (name.to_owned(), page)).collect();
            document.field("pagination", &json!(pages));
        }
    }
}
