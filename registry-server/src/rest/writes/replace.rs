//! Whole objects, as the API tells them: `PUT` stores what `GET` has answered, with what was changed in it. What JSON does not tell,
//! since only a newer version knows of it, stays as it is.

use bytes::Bytes;
use feast_registry_core::proto::DESCRIPTORS;
use feast_registry_core::{Edit, Error, Kind, Object};
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, ReflectMessage, Value as Field};
use serde_json::{Map, Value, json};
use tonic::codegen::http::StatusCode;

use super::super::answer::Answer;
use super::super::call::Call;
use super::super::entry::view_type;
use super::super::error::{RestError, Result};

/// What answers have beside an object, which is not stored.
const BESIDES: [&str; 4] = ["relationships", "featureDefinition", "dataSources", "project"];

/// Reads an object of a kind from protobuf's JSON.
///
/// # Errors
/// 422 for what the kind does not have.
pub(super) fn object(kind: Kind, mut fields: Map<String, Value>) -> Result<Object> {
    for name in BESIDES {
        fields.remove(name);
    }
    if kind.is_view() {
        fields.remove("type");
    }
    if let (Kind::SavedDataset, Some(Value::Object(spec))) = (kind, fields.get_mut("spec")) {
        spec.remove("dataSources");
    }
    let message = DESCRIPTORS.get_message_by_name(&format!("feast.core.{}", kind.message_name()));
    let message = message.ok_or_else(|| RestError::invalid_value(format!("a {kind} has no form in JSON")))?;
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(message, Value::Object(fields), &options)
        .map_err(|error| RestError::invalid_request(format!("the body is no {kind}: {error}")))?;
    Ok(Object::new(kind, Bytes::from(message.encode_to_vec())))
}

/// The same under a name, which it need not say.
///
/// # Errors
/// 422 when it says another.
pub(super) fn named(object: Object, name: &str) -> Result<Object> {
    let own = object.name()?;
    if own == name {
        return Ok(object);
    }
    if !own.is_empty() {
        return Err(RestError::invalid_value(format!(
            "the body is the {} `{own}`, and the path names `{name}`",
            object.kind
        )));
    }
    with_name(&object, name).ok_or_else(|| RestError::invalid_value(format!("a {} has no name", object.kind)))
}

fn with_name(object: &Object, name: &str) -> Option<Object> {
    let descriptor = DESCRIPTORS.get_message_by_name(&format!("feast.core.{}", object.kind.message_name()))?;
    let mut message = DynamicMessage::decode(descriptor, object.bytes.clone()).ok()?;
    let name = Field::String(name.to_owned());
    match object.kind.layout().spec {
        None => message.set_field_by_name("name", name),
        Some(spec) => {
            let mut inner = message.get_field_by_number(spec)?.as_message()?.clone();
            inner.descriptor().get_field_by_name("name")?;
            inner.set_field_by_name("name", name);
            message.set_field_by_number(spec, Field::Message(inner));
        }
    }
    Some(Object::new(object.kind, message.encode_to_vec()))
}

/// The kind of view that a body says it is.
fn view_kind(fields: &Map<String, Value>) -> Result<Kind> {
    let Some(named) = fields.get("type") else { return Ok(Kind::FeatureView) };
    let kind = Kind::VIEWS.iter().copied().find(|kind| named == view_type(*kind));
    kind.ok_or_else(|| {
        let names: Vec<_> = Kind::VIEWS.iter().map(|kind| view_type(*kind)).collect();
        RestError::invalid_value(format!("`type`: {named} is no kind of view; the kinds are {}", names.join(", ")))
    })
}

impl Call {
    /// `PUT /RESOURCE/{name}` of a kind.
    pub(crate) async fn replace(self, kind: Kind) -> Result<Answer> {
        let fields: Map<String, Value> = self.body()?;
        self.put(kind, fields).await
    }

    /// `PUT /feature_views/{name}`, of the kind of view that it says it is.
    pub(crate) async fn replace_view(self) -> Result<Answer> {
        let fields: Map<String, Value> = self.body()?;
        self.put(view_kind(&fields)?, fields).await
    }

    async fn put(&self, kind: Kind, fields: Map<String, Value>) -> Result<Answer> {
        let name = self.given.text_or_empty("name");
        let project = if kind == Kind::Project { name } else { self.given.project() };
        let object = named(object(kind, fields)?, name)?;
        let edit = self.conditions()?.on(Edit::apply_known(object));
        let edited = self.edit(project, vec![edit]).await?.into_iter().next();
        let edited = edited.ok_or_else(|| RestError::from(Error::internal("an edit has no outcome")))?;
        let told = json!({ "name": name, "project": project, "status": "applied" });
        self.done(told, Some(&edited), StatusCode::OK)
    }
}
