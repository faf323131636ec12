//! Features as a list of their own, and one of them.

use std::sync::Arc;

use feast_registry_core::{Error, ErrorKind, Feature, ObjectType};
use serde_json::Value;

use super::answer::Answer;
use super::call::Call;
use super::definition;
use super::document::{Document, Identifier, Item};
use super::error::Result;
use super::json;
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

    /// What it has at the top that is text, but for what is empty.
    fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Feature { name, view, type_name, description, .. } = &self.feature;
        let project = self.project.as_deref().map(|project| ("project", project));
        let texts = [("name", name), ("featureView", view), ("type", type_name), ("description", description)];
        let texts = texts.map(|(name, text)| (name, text.as_str())).into_iter().filter(|(_, text)| !text.is_empty());
        texts.chain([("kind", kind_of(&self.feature))]).chain(project)
    }

    /// What stands under a name at the top of its JSON, if it is text.
    pub(crate) fn top_level(&self, key: &str) -> Option<Value> {
        self.texts().find(|(name, _)| *name == key).map(|(_, text)| Value::from(text))
    }
}

impl Item for FeatureEntry {
    fn write(&self, out: &mut Vec<u8>) {
        // As from Feast's server, it has neither an owner nor timestamps.
        out.push(b'{');
        for (name, text) in self.texts() {
            json::member(name, out);
            json::text(text, out);
        }
        if !self.feature.tags.is_empty() {
            json::member("tags", out);
            // To memory tags are written always.
            drop(serde_json::to_writer(&mut *out, &self.feature.tags));
        }
        out.push(b'}');
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
        let mut text = Vec::new();
        entry.write(&mut text);
        document.fields_of(&text);
        if self.given.includes_relationships() {
            let relations = self.lists().relationships(&wanted, (ObjectType::Feature, name), true).await?;
            document.array("relationships", Related::all(relations));
        }
        document.field("featureDefinition", &definition::of_feature(&entry.feature));
        Ok(Answer::document(document))
    }
}
