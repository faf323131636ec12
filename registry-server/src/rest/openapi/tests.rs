//! Tests of the document: whole, and of one piece with the table.

use std::collections::{BTreeSet, HashSet};

use super::*;

fn each<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Map<String, Value>)) {
    match value {
        Value::Object(fields) => {
            visit(fields);
            fields.values().for_each(|inner| each(inner, visit));
        }
        Value::Array(items) => items.iter().for_each(|item| each(item, visit)),
        _ => {}
    }
}

fn references() -> BTreeSet<&'static str> {
    let mut all = BTreeSet::new();
    each(document(), &mut |fields| all.extend(fields.get("$ref").and_then(Value::as_str)));
    all
}

#[test]
fn every_schema_that_the_table_names_is_there() {
    let schemas = document()["components"]["schemas"].as_object().expect("schemas");
    for route in table::routes() {
        let named = route.body.into_iter().chain([route.answers.1]);
        for name in named.filter(|name| ![NOTHING, PAGE].contains(name)) {
            assert!(schemas.contains_key(name), "{}: there is no schema {name}", route.name());
        }
    }
    assert!(schemas.values().all(Value::is_object), "each was made");
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_referred_to() {
    let references = references();
    for reference in &references {
        let pointer = reference.strip_prefix('#').expect("of this document");
        assert!(document().pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for name in document()["components"]["schemas"].as_object().expect("schemas").keys() {
        let reference = format!("#/components/schemas/{name}");
        assert!(references.contains(reference.as_str()), "nothing refers to {name}");
    }
}

#[test]
fn every_route_is_one_operation_with_its_parameters() {
    let mut ids = HashSet::new();
    for route in documented() {
        let operation = &document()["paths"][route.path][route.method.name().to_ascii_lowercase()];
        assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{}", route.name());
        let parameters = operation["parameters"].as_array().expect("parameters");
        let mut names = HashSet::new();
        for parameter in parameters {
            assert!(names.insert((parameter["in"].as_str(), parameter["name"].as_str())), "twice: {parameter}");
        }
        for declared in route.parameters.iter().copied().flatten() {
            assert!(names.iter().any(|(_, name)| *name == Some(declared.name)), "{}: {}", route.name(), declared.name);
        }
        assert!(operation["responses"][route.answers.0.to_string()].is_object(), "{}", route.name());
        let succeeds =
            operation["responses"].as_object().expect("responses").keys().any(|status| status.starts_with('2'));
        assert_eq!(succeeds, route.answers.0 < 400, "{}", route.name());
        assert_eq!(operation["security"] == json!([]), route.is_open, "{}", route.name());
    }
    assert_eq!(ids.len(), documented().count());
    assert!(table::routes().count() - ids.len() <= 2, "what is left out is what cannot be told");
}

#[test]
fn messages_that_hold_themselves_are_referred_to() {
    let source = &document()["components"]["schemas"]["feast.core.DataSource"]["properties"];
    assert_eq!(source["batchSource"], reference("feast.core.DataSource"));
    assert_eq!(source["tags"], json!({ "type": "object", "additionalProperties": { "type": "string" } }));
    let meta = &document()["components"]["schemas"]["feast.core.EntityMeta"]["properties"];
    assert_eq!(meta["createdTimestamp"]["format"], "date-time");
}

#[test]
fn what_a_client_prefers_is_what_it_says_most_exactly() {
    for (accepted, is_json) in [
        ("", false),
        ("*/*", false),
        ("application/json", true),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
        ("application/json, text/plain, */*", true),
        ("application/json, */*;q=0.5", true),
        ("text/html;q=0.1, application/*", true),
        ("application/json;q=0.2, text/html", false),
        ("application/json;q=x, text/html;q=0", true),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accepted.parse().expect("a value"));
        assert_eq!(prefers_json(&headers), is_json, "{accepted}");
    }
}

#[test]
fn the_page_names_every_route_and_escapes_what_it_shows() {
    let docs = page::docs(document());
    for route in documented() {
        assert!(docs.contains(&format!("id=\"{}\"", operation_id(route))), "{}", route.name());
    }
    assert!(!docs.contains("<script") && !docs.contains("http://") && !docs.contains("src="), "nothing from outside");
    let told = json!({
        "paths": { "/<x>": { "get": { "tags": ["\"t\""], "summary": "<b>&", "operationId": "x", "parameters": [] } } },
        "tags": [{ "name": "\"t\"" }],
        "components": { "schemas": {} },
    });
    let docs = page::docs(&told);
    assert!(docs.contains("&lt;b&gt;&amp;") && docs.contains("/&lt;x&gt;") && !docs.contains("<b>&"));
}
