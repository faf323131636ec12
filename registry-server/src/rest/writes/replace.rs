//! Whole objects, as the API tells them: `PUT` stores what `GET` has answered, with what was changed in it. What JSON does not tell,
//! since only a newer version knows of it, stays as it is.

use std::sync::Arc;

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

/// Reads an object of a kind and of a project from protobuf's JSON.
///
/// # Errors
/// 422 for what the kind does not have, or what says that it is of another kind of view or another project.
pub(super) fn object(kind: Kind, project: &str, mut fields: Map<String, Value>) -> Result<Object> {
    check_project(kind, project, &fields)?;
    for name in BESIDES {
        fields.remove(name);
    }
    if kind.is_view()
        && let Some(named) = fields.remove("type")
        && named != view_type(kind)
    {
        return Err(RestError::invalid_value(format!("`type`: {named} is not {}, which a {kind} is", view_type(kind))));
    }
    if let (Kind::SavedDataset, Some(Value::Object(spec))) = (kind, fields.get_mut("spec")) {
        spec.remove("dataSources");
    }
    let message = DESCRIPTORS.get_message_by_name(&format!("feast.core.{}", kind.message_name()));
    let message = message.ok_or_else(|| RestError::invalid_value(format!("a {kind} has no form in JSON")))?;
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(message, Value::Object(fields), &options)
        .map_err(|error| RestError::invalid_request(format!("this is no {kind}: {error}")))?;
    Ok(Object::new(kind, Bytes::from(message.encode_to_vec())))
}

/// What was read from one project is not stored in another by mistake: there, it would even make the project.
fn check_project(kind: Kind, project: &str, fields: &Map<String, Value>) -> Result<()> {
    if kind == Kind::Project {
        return Ok(());
    }
    let within = fields.get("spec").and_then(|spec| spec.get("project"));
    let others = [fields.get("project"), within].into_iter().flatten().filter_map(Value::as_str);
    match others.into_iter().find(|own| !own.is_empty() && *own != project) {
        Some(own) => Err(RestError::invalid_value(format!(
            "it is of project `{own}`, and the request of project `{project}`: leave `project` out to store it there"
        ))),
        None => Ok(()),
    }
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
            "it is the {} `{own}`, and the request is about `{name}`",
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
        self.put(move |_| Ok(kind)).await
    }

    /// `PUT /feature_views/{name}`, of the kind of view that it says it is.
    pub(crate) async fn replace_view(self) -> Result<Answer> {
        self.put(view_kind).await
    }

    async fn put(&self, kind: impl FnOnce(&Map<String, Value>) -> Result<Kind> + Send + 'static) -> Result<Answer> {
        let name = self.given.text_or_empty("name");
        let given = Arc::clone(&self.given);
        let object = move |fields: Map<String, Value>| {
            named(object(kind(&fields)?, given.project(), fields)?, given.text_or_empty("name"))
        };
        let object = self.read(object).await?;
        let project = if object.kind == Kind::Project { name } else { self.given.project() };
        let edit = self.conditions()?.on(Edit::apply_known(object));
        let edited = self.edit(project, vec![edit]).await?.into_iter().next();
        let edited = edited.ok_or_else(|| RestError::from(Error::internal("an edit has no outcome")))?;
        let told = json!({ "name": name, "project": project, "status": "applied" });
        self.done(told, Some(&edited), StatusCode::OK)
    }
}
