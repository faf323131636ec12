//! What the pages of the web UI ask of label views: how labels come in, and how people make them. The labels themselves are in Feast's
//! stores, which only its Python reads and writes.

use std::collections::BTreeMap;

use feast_registry_core::proto::core::{FeatureSpecV2, LabelView, LabelViewSpec};
use feast_registry_core::{Freshness, Kind, ListFilter, Object};
use serde_json::{Map, Value, json};
use tonic::codegen::http::StatusCode;

use super::answer::Answer;
use super::call::Call;
use super::error::{RestError, Result};

/// Who labels, unless the view says in which field that stands.
const LABELER: &str = "labeler";

/// What a tag of a label view begins with that is meant for the pages.
const FOR_PAGES: &str = "feast.io/";

impl Call {
    /// `GET /webhook/config/{name}`: how tools of others send labels.
    pub(crate) async fn webhook_config(self) -> Result<Answer> {
        Ok(Answer::json(&webhook(&self.label_view().await?)))
    }

    /// `GET /annotation-config/{name}`: how people make labels.
    pub(crate) async fn annotation_config(self) -> Result<Answer> {
        Ok(Answer::json(&annotation(&self.label_view().await?)))
    }

    /// What is done with labels: Feast's stores have them.
    pub(crate) async fn labels_need_python(self) -> Result<Answer> {
        Err(RestError::new(
            StatusCode::NOT_IMPLEMENTED,
            "labels are read and written with Feast's stores, which run in Python: use a FeatureStore (`push`), or `feast ui`",
        ))
    }

    /// The label view of this name. The pages do not say of which project, and Feast's server has one: so if none is named it is that of
    /// the server's project, or else the first of all.
    async fn label_view(&self) -> Result<LabelViewSpec> {
        let (name, freshness) = (self.given.text_or_empty("name"), Freshness::Cached);
        if let Some(project) = self.given.text("project") {
            return spec(&self.registry.get(Kind::LabelView, project, name, freshness).await?);
        }
        let views = self.registry.list(Kind::LabelView, None, &ListFilter::all(), freshness).await?;
        let mut found: Vec<_> = views.into_iter().filter(|view| view.name().is_ok_and(|own| own == name)).collect();
        let configured = self.served.options.project.as_deref();
        found.sort_by_key(|view| view.project().ok().as_deref() != configured);
        match found.first() {
            Some(view) => spec(view),
            None => Err(RestError::new(StatusCode::NOT_FOUND, format!("there is no label view `{name}`"))),
        }
    }
}

fn spec(view: &Object) -> Result<LabelViewSpec> {
    Ok(view.decode::<LabelView>()?.spec.unwrap_or_default())
}

fn names(fields: &[FeatureSpecV2]) -> Vec<&str> {
    fields.iter().map(|field| field.name.as_str()).collect()
}

/// In which field it stands who has made a label.
fn labeler(view: &LabelViewSpec) -> &str {
    if view.labeler_field.is_empty() { LABELER } else { &view.labeler_field }
}

/// Under which name labels are pushed.
fn source(view: &LabelViewSpec) -> Option<&str> {
    view.source.as_ref().map(|source| source.name.as_str())
}

fn webhook(view: &LabelViewSpec) -> Value {
    let (entities, labels, labeler) = (names(&view.entity_columns), names(&view.features), labeler(view));
    let mut record = Map::new();
    for field in entities.iter().chain(&labels) {
        record.insert((*field).to_owned(), format!("<{field}_value>").into());
    }
    record.insert("event_timestamp".to_owned(), "2026-01-01T00:00:00Z".into());
    record.insert(labeler.to_owned(), "<labeler_id>".into());
    let required: Vec<&str> = entities.iter().chain(&labels).copied().chain([labeler]).collect();
    json!({
        "label_view": view.name,
        "push_source_name": source(view),
        "webhook_url": "/api/v1/webhook/label-ingest",
        "batch_url": "/api/v1/batch-push",
        "required_fields": required,
        "entity_fields": entities,
        "label_fields": labels,
        "labeler_field": labeler,
        "payload_example": { "push_source_name": source(view), "records": [record] },
    })
}

fn annotation(view: &LabelViewSpec) -> Value {
    let (mut roles, mut values, mut widgets) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (tag, value) in &view.tags {
        match tag.strip_prefix(FOR_PAGES).and_then(|tag| tag.split_once(':')) {
            Some(("field-role", field)) => drop(roles.insert(field, value)),
            Some(("label-widget", field)) => drop(widgets.insert(field, value)),
            Some(("label-values", field)) => {
                values.insert(field, value.split(',').map(str::trim).collect::<Vec<_>>());
            }
            _ => {}
        }
    }
    let method = view.tags.get(&format!("{FOR_PAGES}labeling-method"));
    json!({
        "label_view": view.name,
        "profile": method.map_or("table", String::as_str),
        "field_roles": roles,
        "label_values": values,
        "label_widgets": widgets,
        "entities": view.entities,
        "features": names(&view.features),
        "labeler_field": labeler(view),
        "push_source_name": source(view),
    })
}

#[cfg(test)]
mod tests {
    use feast_registry_core::proto::core::DataSource;

    use super::*;

    fn view() -> LabelViewSpec {
        let field = |name: &str| FeatureSpecV2 { name: name.into(), ..Default::default() };
        let tags = [
            ("feast.io/labeling-method", "classification"),
            ("feast.io/field-role:text", "content"),
            ("feast.io/label-values:sentiment", "good, bad,,  so so"),
            ("feast.io/label-widget:sentiment", "buttons"),
            ("feast.io/other:x", "y"),
            ("team", "risk"),
        ];
        LabelViewSpec {
            name: "reviews".into(),
            entities: vec!["review".into()],
            entity_columns: vec![field("review_id")],
            features: vec![field("sentiment"), field("labeler")],
            tags: tags.into_iter().map(|(tag, value)| (tag.to_owned(), value.to_owned())).collect(),
            source: Some(DataSource { name: "push".into(), ..Default::default() }),
            ..Default::default()
        }
    }

    /// As Feast 0.67 answers of the same view, but for the order of its parts.
    #[test]
    fn a_webhook_is_told_what_to_send() {
        let record = json!({
            "review_id": "<review_id_value>", "sentiment": "<sentiment_value>", "labeler": "<labeler_id>",
            "event_timestamp": "2026-01-01T00:00:00Z",
        });
        assert_eq!(
            webhook(&view()),
            json!({
                "label_view": "reviews",
                "push_source_name": "push",
                "webhook_url": "/api/v1/webhook/label-ingest",
                "batch_url": "/api/v1/batch-push",
                "required_fields": ["review_id", "sentiment", "labeler", "labeler"],
                "entity_fields": ["review_id"],
                "label_fields": ["sentiment", "labeler"],
                "labeler_field": "labeler",
                "payload_example": { "push_source_name": "push", "records": [record] },
            })
        );
    }

    #[test]
    fn tags_say_how_people_label() {
        assert_eq!(
            annotation(&view()),
            json!({
                "label_view": "reviews",
                "profile": "classification",
                "field_roles": { "text": "content" },
                "label_values": { "sentiment": ["good", "bad", "", "so so"] },
                "label_widgets": { "sentiment": "buttons" },
                "entities": ["review"],
                "features": ["sentiment", "labeler"],
                "labeler_field": "labeler",
                "push_source_name": "push",
            })
        );
        let plain = annotation(&LabelViewSpec { labeler_field: "who".into(), ..Default::default() });
        assert_eq!((&plain["profile"], &plain["labeler_field"]), (&json!("table"), &json!("who")));
        assert_eq!(plain["push_source_name"], Value::Null);
    }
}
