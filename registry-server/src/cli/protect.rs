//! Feast's environment variable that protects the project of a feature_store.yaml.

use anyhow::{Context, Result};
use feast_registry::{ErrorKind, Freshness, Kind, Object, PROTECTED_PROJECT_TAG, Registry};
use prost::Message;
use prost_reflect::{DynamicMessage, MapKey, ReflectMessage, Value};

use super::message;

/// `true` protects the project, and any other value takes that back. Without it things stay as they are, unlike in Feast, where
/// a server that is started by hand would take away what a chart has set.
pub(super) const VARIABLE: &str = "FEAST_PROTECTED_PROJECT";

/// Does what the variable says. The project is made if it is not there and is to be protected. An error where it is set and there is no
/// configured project, or nothing can be written.
pub(super) async fn by_environment(registry: &Registry, project: Option<&str>) -> Result<()> {
    let Some(value) = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty()) else { return Ok(()) };
    let is_wanted = value.eq_ignore_ascii_case("true");
    let project = project
        .with_context(|| format!("{VARIABLE} protects the project of a feature_store.yaml: give one with -c"))?;
    let stored = match registry.get(Kind::Project, project, project, Freshness::Stored).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => None,
        stored => Some(stored?),
    };
    if stored.as_ref().map_or(Ok(false), Object::is_protected)? == is_wanted {
        return Ok(());
    }
    let mut object = message::decode("Project", stored.as_ref().map_or(&[], |object| &object.bytes))?;
    let spec = field_mut(&mut object, "spec", Value::as_message_mut)?;
    spec.set_field_by_name("name", Value::String(project.to_owned()));
    let tags = field_mut(spec, "tags", Value::as_map_mut)?;
    let tag = MapKey::String(PROTECTED_PROJECT_TAG.to_owned());
    match is_wanted {
        true => drop(tags.insert(tag, Value::String("true".to_owned()))),
        false => drop(tags.remove(&tag)),
    }
    registry.apply(project, Object::new(Kind::Project, object.encode_to_vec())).await?;
    tracing::info!(project, is_protected = is_wanted, "{VARIABLE} is done");
    Ok(())
}

/// A field of a message, which is there from then on.
fn field_mut<'a, T>(
    message: &'a mut DynamicMessage,
    name: &str,
    of: impl FnOnce(&'a mut Value) -> Option<&'a mut T>,
) -> Result<&'a mut T> {
    let field = message.descriptor().get_field_by_name(name);
    let field = field.with_context(|| format!("a project has no field {name}"))?;
    of(message.get_field_mut(&field)).with_context(|| format!("{name} is of another type"))
}
