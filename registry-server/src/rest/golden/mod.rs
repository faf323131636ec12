//! What the REST server of Feast 0.67.0 answered about one registry, and that registry.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use feast_registry_core::{Kind, Object};
use serde_json::Value;

use super::resources::Resources;

pub(crate) const SEARCH: &str = include_str!("search.json");
pub(crate) const METRICS: &str = include_str!("metrics.json");
pub(crate) const COMPUTE: &str = include_str!("compute.json");
pub(crate) const ENGINES: &str = include_str!("engines.json");
pub(crate) const VISITS: &str = include_str!("visits.json");

/// The registry: its projects, and when it was last changed.
pub(crate) fn registry() -> (Vec<Resources>, String) {
    let registry: Value = serde_json::from_str(include_str!("registry.json")).expect("JSON");
    let object = |object: &Value| {
        let kind: Kind = text(object, "kind").parse().expect("a kind");
        Object::new(kind, STANDARD.decode(text(object, "bytes")).expect("base64"))
    };
    let project = |project: &Value| Resources {
        name: text(project, "name").to_owned(),
        description: text(project, "description").to_owned(),
        objects: project["objects"].as_array().expect("objects").iter().map(object).collect(),
    };
    let projects = registry["projects"].as_array().expect("projects").iter().map(project).collect();
    (projects, text(&registry, "lastUpdated").to_owned())
}

/// A project of the registry; an empty one when it has none of this name.
pub(crate) fn project(name: &str) -> Resources {
    let found = registry().0.into_iter().find(|project| project.name == name);
    found.unwrap_or_else(|| Resources { name: name.to_owned(), ..Resources::default() })
}

/// The recorded calls.
pub(crate) fn calls(recorded: &str) -> Vec<Value> {
    serde_json::from_str(recorded).expect("JSON")
}

/// A text of a JSON object; empty when it is not there.
pub(crate) fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

/// A number of a JSON object.
pub(crate) fn number(object: &Value, name: &str) -> Option<i32> {
    object[name].as_i64().map(|number| i32::try_from(number).expect("a small number"))
}
