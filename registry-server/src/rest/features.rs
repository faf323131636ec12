//! Features as a list of their own, and one of them.

use std::sync::Arc;

use feast_registry_core::{Error, ErrorKind, Feature, ObjectType};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::call::Call;
use super::definition;
use super::document::{Document, Identifier, Item};
use super::error::Result;
use super::relations::Related;
use crate::lists::{FeatureFilter, kind_of};

/// A feature of an answer.
#[derive(Debug, Clone)]
pub(crate) struct FeatureEntry {
    pub(crate) feature: Feature,
    project: Option<Arc<str>>,
}

impl FeatureEntry {
    pub(crate) fn new(feature: Feature) -> Self {
        Self { feature, project: None }
    }

    pub(crate) fn of_project(self, project: &Arc<str>) -> Self {
        Self { project: Some(Arc::clone(project)), ..self }
    }

    /// As JSON. As from Feast's server, it has neither an owner nor timestamps.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let Feature { name, view, type_name, description, tags, .. } = &self.feature;
        let mut fields = Map::new();
        let texts = [("name", name), ("featureView", view), ("type", type_name), ("description", description)];
        for (field, text) in texts {
            if !text.is_empty() {
                fields.insert(field.to_owned(), json!(text));
            }
        }
        if !tags.is_empty() {
            fields.insert("tags".to_owned(), json!(tags));
        }
        fields.insert("kind".to_owned(), json!(kind_of(&self.feature)));
        if let Some(project) = &self.project {
            fields.insert("project".to_owned(), json!(**project));
        }
        fields
    }
}

impl Item for FeatureEntry {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(Value::Object(self.fields()).to_string().as_bytes());
    }

    fn identify(&self, to: &mut Identifier) {
        let Feature { name, view, type_name, description, tags, is_label, .. } = &self.feature;
        [name, view, type_name, description].into_iter().for_each(|text| to.add(text.as_bytes()));
        to.add(&[u8::from(*is_label)]);
        to.add(&(tags.len() as u64).to_le_bytes());
        tags.iter().flat_map(|(tag, value)| [tag, value]).for_each(|text| to.add(text.as_bytes()));
        to.add(self.project.as_deref().unwrap_or_default().as_bytes());
    }

    fn own_size(&self) -> usize {
        let Feature { name, view, type_name, description, tags, .. } = &self.feature;
        let tags: usize = tags.iter().map(|(tag, value)| tag.len() + value.len() + 64).sum();
        [name, view, type_name, description].into_iter().map(String::len).sum::<usize>() + tags
    }

    fn size(&self) -> usize {
        self.own_size() + 80
    }
}

impl Call {
    /// `GET /features/{feature_view}/{name}`.
    pub(crate) async fn get_feature(self) -> Result<Answer> {
        let (view, name) = (self.given.text_or_empty("feature_view"), self.given.text_or_empty("name"));
        let filter = FeatureFilter { kind: String::new(), feature_view: view.to_owned(), name: name.to_owned() };
        let wanted = self.wanted();
        let found = self.lists().features(&wanted, &filter).await?.into_iter().next();
        let feature = found.ok_or_else(|| {
            let message = format!("view `{view}` of project `{}` has no feature `{name}`", self.given.project());
            Error::new(ErrorKind::FeatureNotFound, message)
        })?;
        let mut document = Document::new();
        let entry = FeatureEntry::new(feature);
        document.fields_of(Value::Object(entry.fields()).to_string().as_bytes());
        if self.given.includes_relationships() {
            let relations = self.lists().relationships(&wanted, (ObjectType::Feature, name), true).await?;
            document.array("relationships", Related::all(relations));
        }
        document.field("featureDefinition", &definition::of_feature(&entry.feature));
        Ok(Answer::document(document))
    }
}
