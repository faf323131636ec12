//! Schemas of what is answered: objects with what is told beside them, and what holds them.

use serde_json::{Map, Value, json};

use super::forms::{closed, count, flag, list, map, moment, one_of, optional_text, reference, tags, text};
use super::messages::{Schemas, properties};

/// Adds all of them.
pub(super) fn add(schemas: &mut Schemas) {
    objects(schemas);
    lists(schemas);
    lineage(schemas);
    overviews(schemas);
    labels(schemas);
    let others = [
        (
            "Error",
            closed(
                &["detail"],
                [
                    ("status_code", json!({ "type": "integer", "minimum": 400, "maximum": 599 })),
                    ("detail", text()),
                    ("error_type", text()),
                ],
            ),
        ),
        ("Version", closed(&["version", "server"], [("version", text()), ("server", text())])),
        (
            "Applied",
            closed(
                &["name", "project", "status"],
                [
                    ("name", text()),
                    ("project", text()),
                    ("status", one_of(&["applied", "deleted", "ok", "dry run"])),
                    ("dry_run", flag()),
                    ("changed", flag()),
                ],
            ),
        ),
        (
            "BatchApplied",
            closed(
                &["project", "status", "edits"],
                [
                    ("project", text()),
                    ("status", one_of(&["applied", "dry run"])),
                    (
                        "edits",
                        list(closed(
                            &["kind", "name", "changed", "version"],
                            [
                                ("kind", text()),
                                ("name", text()),
                                ("changed", flag()),
                                ("version", json!({ "type": ["integer", "null"] })),
                            ],
                        )),
                    ),
                    ("dry_run", flag()),
                    ("changed", flag()),
                ],
            ),
        ),
        ("Jobs", closed(&["jobs"], [("jobs", list(map(json!({}))))])),
        (
            "Welcome",
            closed(
                &["name", "version", "docs", "openapi"],
                [("name", text()), ("version", text()), ("docs", text()), ("openapi", text())],
            ),
        ),
        ("OpenApi", json!({ "type": "object", "required": ["openapi", "info", "paths"] })),
    ];
    schemas.extend(others.map(|(name, schema)| (name.to_owned(), schema)));
}

/// An object of a kind: the message that is stored, and what is told beside it.
fn object(message: &str, schemas: &mut Schemas) -> Map<String, Value> {
    let mut fields = properties(&format!("feast.core.{message}"), schemas);
    // Lists across projects tell it of each item.
    fields.insert("project".to_owned(), text());
    fields
}

/// The same as it is told by its name.
fn named(message: &str, schemas: &mut Schemas) -> Map<String, Value> {
    let mut fields = object(message, schemas);
    fields.insert("relationships".to_owned(), list(reference("Relationship")));
    fields.insert("featureDefinition".to_owned(), text());
    fields
}

/// The kinds of view, and what each says that it is.
const VIEWS: [(&str, &str); 4] = [
    ("FeatureView", "featureView"),
    ("StreamFeatureView", "streamFeatureView"),
    ("OnDemandFeatureView", "onDemandFeatureView"),
    ("LabelView", "labelView"),
];

fn objects(schemas: &mut Schemas) {
    let project = closed(&[], properties("feast.core.Project", schemas));
    schemas.insert("Project".to_owned(), project);
    for name in ["DataSource", "FeatureService", "Permission"] {
        let fields = named(name, schemas);
        schemas.insert(name.to_owned(), closed(&[], fields));
    }
    let mut entity = named("Entity", schemas);
    entity.insert("dataSources".to_owned(), list(reference("feast.core.DataSource")));
    schemas.insert("Entity".to_owned(), closed(&[], entity));
    let mut dataset = named("SavedDataset", schemas);
    let mut spec = properties("feast.core.SavedDatasetSpec", schemas);
    spec.insert("dataSources".to_owned(), list(text()));
    dataset.insert("spec".to_owned(), closed(&[], spec));
    schemas.insert("SavedDataset".to_owned(), closed(&[], dataset));
    let mut of_type = Vec::new();
    for (message, name) in VIEWS {
        let mut view = named(message, schemas);
        view.insert("type".to_owned(), one_of(&[name]));
        // One that does not say what it is, is a feature view.
        let required: &[&str] = if message == "FeatureView" { &[] } else { &["type"] };
        let schema = format!("{message}Object");
        schemas.insert(schema.clone(), closed(required, view));
        of_type.push(reference(&schema));
    }
    schemas.insert("FeatureView".to_owned(), json!({ "anyOf": of_type }));
    let feature = closed(
        &["name", "kind"],
        [
            ("name", text()),
            ("featureView", text()),
            ("type", text()),
            ("description", text()),
            ("tags", tags()),
            ("kind", one_of(&["feature", "label"])),
            ("project", text()),
            ("relationships", list(reference("Relationship"))),
            ("featureDefinition", text()),
        ],
    );
    schemas.insert("Feature".to_owned(), feature);
}

fn lists(schemas: &mut Schemas) {
    for (name, key, item) in [
        ("Projects", "projects", "Project"),
        ("Entities", "entities", "Entity"),
        ("DataSources", "dataSources", "DataSource"),
        ("FeatureViews", "featureViews", "FeatureView"),
        ("FeatureServices", "featureServices", "FeatureService"),
        ("SavedDatasets", "savedDatasets", "SavedDataset"),
        ("Permissions", "permissions", "Permission"),
        ("Features", "features", "Feature"),
        ("Labels", "labels", "Feature"),
    ] {
        let list = closed(
            &[key, "pagination"],
            [
                (key, list(reference(item))),
                ("pagination", reference("Pagination")),
                ("relationships", map(list(reference("Relationship")))),
            ],
        );
        schemas.insert(name.to_owned(), list);
    }
    let pagination = closed(
        &[],
        [
            ("page", count()),
            ("limit", count()),
            ("totalCount", count()),
            ("totalPages", count()),
            ("hasNext", flag()),
            ("hasPrevious", flag()),
        ],
    );
    schemas.insert("Pagination".to_owned(), pagination);
}

fn lineage(schemas: &mut Schemas) {
    let end = closed(&["type", "name"], [("type", text()), ("name", text())]);
    let relationship = closed(&["source", "target"], [("source", end.clone()), ("target", end), ("project", text())]);
    let relationships = || list(reference("Relationship"));
    let registry = closed(
        &["relationships", "indirect_relationships"],
        [
            ("relationships", relationships()),
            ("indirect_relationships", relationships()),
            ("relationships_pagination", reference("Pagination")),
            ("indirect_relationships_pagination", reference("Pagination")),
        ],
    );
    let of_object =
        closed(&["pagination"], [("relationships", relationships()), ("pagination", reference("Pagination"))]);
    let mut any_view = Map::from_iter([("project".to_owned(), text())]);
    for (message, name) in VIEWS {
        let fields = properties(&format!("feast.core.{message}"), schemas);
        any_view.insert(name.to_owned(), closed(&[], fields));
    }
    let label_view = closed(&[], object("LabelView", schemas));
    let dataset = closed(&[], object("SavedDataset", schemas));
    let objects = closed(
        &[],
        [
            ("entities", list(reference("Entity"))),
            ("dataSources", list(reference("DataSource"))),
            ("featureViews", list(closed(&[], any_view))),
            ("labelViews", list(label_view)),
            ("featureServices", list(reference("FeatureService"))),
            ("features", list(reference("Feature"))),
            ("labels", list(reference("Feature"))),
            ("savedDatasets", list(dataset)),
        ],
    );
    let complete = closed(
        &["project", "objects", "relationships", "indirectRelationships"],
        [
            ("project", text()),
            ("objects", objects),
            ("relationships", relationships()),
            ("indirectRelationships", relationships()),
            ("pagination", map(reference("Pagination"))),
        ],
    );
    let all = closed(&["projects"], [("projects", list(reference("Complete")))]);
    let named = [
        ("Relationship", relationship),
        ("Lineage", registry),
        ("Relationships", of_object),
        ("Complete", complete),
        ("CompleteAll", all),
    ];
    schemas.extend(named.map(|(name, schema)| (name.to_owned(), schema)));
}

fn overviews(schemas: &mut Schemas) {
    let found = closed(
        &["type", "name", "description", "project", "matched_tags"],
        [
            ("type", text()),
            ("name", text()),
            ("description", text()),
            ("project", text()),
            ("featureView", text()),
            ("labelView", text()),
            ("matched_tags", tags()),
            ("match_score", json!({ "type": "number" })),
        ],
    );
    let search = closed(
        &["query", "projects_searched", "results", "pagination", "errors"],
        [
            ("query", text()),
            ("projects_searched", list(text())),
            ("results", list(found)),
            ("pagination", reference("Pagination")),
            ("errors", list(text())),
        ],
    );
    let counts = ["entities", "dataSources", "savedDatasets", "features", "featureViews", "featureServices"];
    let counts = closed(&counts, counts.map(|name| (name, count())));
    let of_project = || closed(&["name", "project"], [("name", text()), ("project", text())]);
    let view = closed(
        &["name", "project", "type", "featureCount"],
        [("name", text()), ("project", text()), ("type", text()), ("featureCount", count())],
    );
    let resource_counts = closed(
        &["featureServices", "featureViews", "projects", "registryLastUpdated"],
        [
            ("project", text()),
            ("counts", counts.clone()),
            ("total", counts.clone()),
            ("perProject", map(counts)),
            ("featureServices", list(of_project())),
            ("featureViews", list(view)),
            ("projects", list(closed(&["name"], [("name", text()), ("description", text())]))),
            ("registryLastUpdated", json!({ "type": ["string", "null"], "format": "date-time" })),
        ],
    );
    let tag = closed(
        &["tag_key", "tag_value", "feature_views", "total_feature_views"],
        [
            ("tag_key", text()),
            ("tag_value", text()),
            ("feature_views", list(of_project())),
            ("total_feature_views", count()),
        ],
    );
    let tags_told = closed(
        &["totalFeatureViews", "totalTags", "limit"],
        [("totalFeatureViews", count()), ("totalTags", count()), ("limit", json!({ "type": "integer" }))],
    );
    let popular = closed(&["popular_tags", "metadata"], [("popular_tags", list(tag)), ("metadata", tags_told)]);
    let told = ["path", "project", "user", "object", "object_name", "method"];
    let mut visit: Map<String, Value> = told.map(|name| (name.to_owned(), text())).into_iter().collect();
    visit.insert("timestamp".to_owned(), moment());
    let visits = closed(
        &["visits", "pagination"],
        [("visits", list(closed(&told, visit))), ("pagination", reference("Pagination"))],
    );
    let named = [("Found", search), ("ResourceCounts", resource_counts), ("PopularTags", popular), ("Visits", visits)];
    schemas.extend(named.map(|(name, schema)| (name.to_owned(), schema)));
    materialization(schemas);
}

fn materialization(schemas: &mut Schemas) {
    let engine = closed(
        &["engineType", "engineClass", "config", "project", "featureViewCount"],
        [
            ("engineType", text()),
            ("engineClass", text()),
            ("config", map(json!({}))),
            ("project", text()),
            ("featureViewCount", count()),
        ],
    );
    let interval = closed(&[], [("startTime", moment()), ("endTime", moment())]);
    let optional_moment = || json!({ "type": ["string", "null"], "format": "date-time" });
    let view = closed(
        &["name", "type", "online", "lastMaterialized", "materializationIntervals"],
        [
            ("name", text()),
            ("type", one_of(&["Batch", "Stream"])),
            ("online", flag()),
            ("lastMaterialized", optional_moment()),
            ("hasOverride", flag()),
            ("overrides", json!({ "type": "null" })),
            ("materializationIntervals", list(interval)),
        ],
    );
    let of_project = closed(&["engine", "featureViews"], [("engine", engine.clone()), ("featureViews", list(view))]);
    let page = closed(&["page", "limit", "total"], [("page", count()), ("limit", count()), ("total", count())]);
    let engines = closed(&["engines", "pagination"], [("engines", list(engine)), ("pagination", page.clone())]);
    let job = closed(
        &["id", "featureView", "status", "startTime", "endTime"],
        [
            ("id", text()),
            ("featureView", text()),
            ("status", optional_text()),
            ("startTime", optional_moment()),
            ("endTime", optional_moment()),
        ],
    );
    let jobs = closed(&["jobs", "pagination"], [("jobs", list(job)), ("pagination", page)]);
    let named = [("ComputeEngine", of_project), ("ComputeEngines", engines), ("MaterializationJobs", jobs)];
    schemas.extend(named.map(|(name, schema)| (name.to_owned(), schema)));
}

/// What is told of label views to those who make labels.
fn labels(schemas: &mut Schemas) {
    let names = || list(text());
    let example = [("push_source_name", optional_text()), ("records", list(tags()))];
    let webhook = closed(
        &["label_view", "webhook_url", "batch_url", "required_fields", "payload_example"],
        [
            ("label_view", text()),
            ("push_source_name", optional_text()),
            ("webhook_url", text()),
            ("batch_url", text()),
            ("required_fields", names()),
            ("entity_fields", names()),
            ("label_fields", names()),
            ("labeler_field", text()),
            ("payload_example", closed(&["push_source_name", "records"], example)),
        ],
    );
    let annotation = closed(
        &["label_view", "profile", "labeler_field"],
        [
            ("label_view", text()),
            ("profile", text()),
            ("field_roles", tags()),
            ("label_values", map(names())),
            ("label_widgets", tags()),
            ("entities", names()),
            ("features", names()),
            ("labeler_field", text()),
            ("push_source_name", optional_text()),
        ],
    );
    let named = [("LabelWebhook", webhook), ("LabelAnnotation", annotation)];
    schemas.extend(named.map(|(name, schema)| (name.to_owned(), schema)));
}
