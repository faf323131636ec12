//! An object as the API tells it: the stored message as JSON, with what Feast adds to it.

use std::sync::Arc;

use feast_registry_core::{Kind, Object, Result};
use serde_json::{Value, json};

use super::document::{Identifier, Item};
use super::json;

/// About how many bytes JSON has for one of a message.
const GROWS: usize = 2;

/// Under which name a list across projects says of which one an object is.
const PROJECT: &str = "project";

/// An object of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) object: Object,
    /// What a view says it is.
    type_name: Option<&'static str>,
    /// Where lists go across projects.
    pub(crate) project: Option<Arc<str>>,
    /// Of a saved dataset, what it was made from.
    data_sources: Vec<String>,
    /// Under which name it stands in an object of its own, as in Feast's `AnyFeatureView`.
    within: Option<&'static str>,
}

impl Entry {
    pub(crate) fn new(object: Object) -> Self {
        Self { object, type_name: None, project: None, data_sources: Vec::new(), within: None }
    }

    /// A view that says what it is.
    pub(crate) fn view(object: Object) -> Self {
        let type_name = Some(view_type(object.kind));
        Self { type_name, ..Self::new(object) }
    }

    /// A view as Feast's `AnyFeatureView`.
    pub(crate) fn any_view(object: Object) -> Self {
        let within = Some(view_type(object.kind));
        Self { within, ..Self::new(object) }
    }

    pub(crate) fn of_project(self, project: &Arc<str>) -> Self {
        Self { project: Some(Arc::clone(project)), ..self }
    }

    /// A saved dataset with what it was made from.
    pub(crate) fn with_data_sources(self, data_sources: Vec<String>) -> Self {
        Self { data_sources, ..self }
    }

    /// As JSON.
    ///
    /// # Errors
    /// `Corrupt` when the object has no form in JSON.
    pub(crate) fn json(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(self.object.bytes.len() * GROWS + 64);
        self.write_to(&mut out)?;
        Ok(out)
    }

    fn write_to(&self, out: &mut Vec<u8>) -> Result<()> {
        out.push(b'{');
        if let Some(within) = self.within {
            json::member(within, out);
            json::write(&self.object, out)?;
        } else {
            if let Some(type_name) = self.type_name {
                json::member("type", out);
                json::text(type_name, out);
            }
            if self.data_sources.is_empty() {
                // What says its project by itself is not to say it twice.
                let except = self.project.as_ref().map(|_| PROJECT);
                json::write_fields(&self.object, except, out)?;
            } else {
                let mut fields = json::value(&self.object)?;
                if let Some(Value::Object(spec)) = fields.get_mut("spec") {
                    spec.insert("dataSources".to_owned(), json!(self.data_sources));
                }
                for (name, value) in fields {
                    json::member(&name, out);
                    out.extend_from_slice(value.to_string().as_bytes());
                }
            }
        }
        if let Some(project) = &self.project {
            json::member(PROJECT, out);
            json::text(project, out);
        }
        out.push(b'}');
        Ok(())
    }

    /// What stands under a name at the top of its JSON.
    pub(crate) fn top_level(&self, key: &str) -> Option<Value> {
        if key == PROJECT
            && let Some(project) = &self.project
        {
            return Some(json!(**project));
        }
        if key == "type"
            && let Some(type_name) = self.type_name
        {
            return Some(json!(type_name));
        }
        if self.within.is_some() { None } else { json::field(&self.object, key).ok()? }
    }

    pub(crate) fn identify_into(&self, to: &mut Identifier) {
        to.add(&self.object.bytes);
        to.add(self.type_name.or(self.within).unwrap_or_default().as_bytes());
        to.add(self.project.as_deref().unwrap_or_default().as_bytes());
        self.data_sources.iter().for_each(|source| to.add(source.as_bytes()));
    }
}

impl Item for Entry {
    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        if let Err(error) = self.write_to(out) {
            // As of one that cannot be decoded, which lists leave out too.
            tracing::warn!(%error, "an object was left out of a list");
            out.truncate(start);
        }
    }

    fn identify(&self, to: &mut Identifier) {
        self.identify_into(to);
    }

    fn own_size(&self) -> usize {
        self.data_sources.iter().map(String::len).sum()
    }

    fn size(&self) -> usize {
        self.object.bytes.len() * GROWS
    }
}

/// What Feast calls a kind of view in JSON: the name of its field in `AnyFeatureView`.
pub(crate) fn view_type(kind: Kind) -> &'static str {
    match kind {
        Kind::StreamFeatureView => "streamFeatureView",
        Kind::OnDemandFeatureView => "onDemandFeatureView",
        Kind::LabelView => "labelView",
        _ => "featureView",
    }
}

#[cfg(test)]
mod tests {
    use feast_registry_core::proto::core::{
        DataSource, Entity, EntitySpecV2, FeatureView, SavedDataset, SavedDatasetSpec,
    };

    use super::*;

    fn parsed(entry: Entry) -> Value {
        let text = entry.json().expect("JSON");
        let value: Value = serde_json::from_slice(&text).expect("it is JSON");
        assert_eq!(value.to_string().as_bytes(), text, "no name is there twice");
        for key in ["project", "type", "name", "spec", "none"] {
            assert_eq!(entry.top_level(key).as_ref(), value.get(key), "{key}");
        }
        value
    }

    #[test]
    fn what_is_added_stands_beside_what_is_stored() {
        let project: Arc<str> = "ri\"des".into();
        let spec = Some(EntitySpecV2 { name: "user".into(), ..Default::default() });
        let entity = Object::encode(&Entity { spec, meta: None });
        assert_eq!(parsed(Entry::new(entity.clone())), json!({ "spec": { "name": "user" } }));
        let of_project = Entry::new(entity).of_project(&project);
        assert_eq!(parsed(of_project), json!({ "spec": { "name": "user" }, "project": "ri\"des" }));
        let empty = Object::encode(&FeatureView::default());
        assert_eq!(parsed(Entry::new(empty.clone())), json!({}));
        assert_eq!(parsed(Entry::new(empty.clone()).of_project(&project)), json!({ "project": "ri\"des" }));
        assert_eq!(parsed(Entry::view(empty.clone())), json!({ "type": "featureView" }));
        let view = Entry::view(empty.clone()).of_project(&project);
        assert_eq!(parsed(view), json!({ "type": "featureView", "project": "ri\"des" }));
        assert_eq!(parsed(Entry::any_view(empty)), json!({ "featureView": {} }));
        let source = DataSource { name: "table".into(), project: "own".into(), r#type: 1, ..Default::default() };
        let source = Entry::new(Object::encode(&source));
        let own = json!({ "type": "BATCH_FILE", "name": "table", "project": "own" });
        assert_eq!(parsed(source.clone()), own);
        let of_project = json!({ "type": "BATCH_FILE", "name": "table", "project": "ri\"des" });
        assert_eq!(parsed(source.of_project(&project)), of_project);
        let spec = Some(SavedDatasetSpec { name: "past".into(), ..Default::default() });
        let dataset = Entry::new(Object::encode(&SavedDataset { spec, meta: None }));
        let dataset = dataset.with_data_sources(vec!["table".into()]);
        let dataset: Value = serde_json::from_slice(&dataset.json().expect("JSON")).expect("it is JSON");
        assert_eq!(dataset, json!({ "spec": { "name": "past", "dataSources": ["table"] } }));
    }
}
