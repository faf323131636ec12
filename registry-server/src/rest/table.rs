//! All routes, in one table.

use feast_registry_core::Kind;

use super::objects::Resource;
use super::parameters::Parameter;
use super::route::{Route, Verb};

const NAME: &[Parameter] = &[Parameter::path("name", "Its name.")];
const PROJECT: &[Parameter] = &[Parameter::text("project", "The project.").required()];
const CACHE: &[Parameter] = &[Parameter::flag(
    "allow_cache",
    "true",
    "Whether the answer may come from the server's cache, which is at most a second old; `false` reads the storage.",
)];
const RELATIONSHIPS: &[Parameter] =
    &[Parameter::flag("include_relationships", "false", "Whether to include what each object is related to.")];
const TAGS: &[Parameter] = &[Parameter::texts(
    "tags",
    "`key:value`: only objects with all of these tags. A value without a colon is ignored.",
)];
const PAGE: &[Parameter] = &[
    Parameter::number(
        "page",
        (1, i32::MAX),
        "Which page, counted from 1. It has an effect only together with `limit`.",
    ),
    Parameter::number("limit", (1, 100), "How many items a page has. It has an effect only together with `page`."),
    Parameter::text("sort_by", "An attribute to sort by, such as `name`, `created_timestamp` or `batch_source.name`."),
    Parameter::one_of("sort_order", &["asc", "desc"], "The direction of the sort.").or("asc"),
];
const PAGE_OF_ALL: &[Parameter] = &[
    Parameter::number("page", (1, i32::MAX), "Which page, counted from 1.").or("1"),
    Parameter::number("limit", (1, 100), "How many items a page has.").or("50"),
    Parameter::text("sort_by", "A field to sort by, of those at the top level of each item."),
    Parameter::text("sort_order", "`desc` sorts in the other direction.").or("asc"),
];
const VIEWS: &[Parameter] = &[
    Parameter::text("entity", "Only views of this entity."),
    Parameter::text("feature", "Only views with a feature of this name."),
    Parameter::text("feature_service", "Only views whose features this feature service has."),
    Parameter::text("data_source", "Only views that read this data source."),
    Parameter::text(
        "updated_since",
        "Only views that were written at this moment or later, to the second (ISO 8601; UTC if it has no offset).",
    ),
];
const SERVICES: &[Parameter] = &[Parameter::text("feature_view", "Only services with features of this view.")];
const DATASETS: &[Parameter] = &[
    Parameter::text("namespace", "Only datasets of this namespace."),
    Parameter::text("collection", "Only datasets of this collection."),
];
const FEATURES: &[Parameter] =
    &[Parameter::text("feature_view", "Only those of this view."), Parameter::text("name", "Only those of this name.")];
const LINEAGE_FILTER: &[Parameter] = &[
    Parameter::text(
        "filter_object_type",
        "Only relations of an object of this type. It has an effect only together with `filter_object_name`.",
    ),
    Parameter::text("filter_object_name", "Only relations of an object of this name."),
];

/// A read.
macro_rules! get {
    ($path:expr, $tag:literal, $summary:expr, [$($parameters:expr),* $(,)?], $answer:literal, |$call:ident| $handler:expr) => {
        Route {
            method: Verb::Get,
            path: $path,
            tag: $tag,
            summary: $summary,
            parameters: &[$($parameters),*],
            body: None,
            answers: (200, $answer),
            is_open: false,
            handler: |$call| Box::pin($handler),
        }
    };
}

/// A read of what the server tells everybody.
macro_rules! open {
    ($path:literal, $summary:literal, $answer:literal, |$call:ident| $handler:expr) => {
        Route { is_open: true, ..get!($path, "documentation", $summary, [], $answer, |$call| $handler) }
    };
}

/// The lists of one kind of object: of a project, which may have filters, and across all.
macro_rules! lists {
    ($path:literal, $tag:literal, $what:literal, $answer:literal, $resource:ident, tags: $tags:literal, [$($filter:expr),*], all: [$($filter_of_all:expr),*]) => {
        &[
            get!(
                concat!("/", $path),
                $tag,
                concat!("The ", $what, " of a project"),
                [PROJECT, CACHE, RELATIONSHIPS, $($filter,)* PAGE],
                $answer,
                |call| call.list(Resource::$resource, $tags)
            ),
            get!(
                concat!("/", $path, "/all"),
                $tag,
                concat!("The ", $what, " of all projects"),
                [CACHE, PAGE_OF_ALL, RELATIONSHIPS $(, $filter_of_all)*],
                $answer,
                |call| call.list_all(Resource::$resource)
            ),
        ]
    };
}

/// One object by its name.
macro_rules! one {
    ($path:literal, $tag:literal, $what:literal, $answer:literal, |$call:ident| $handler:expr) => {
        get!(
            concat!("/", $path, "/{name}"),
            $tag,
            concat!("One ", $what),
            [NAME, PROJECT, CACHE, RELATIONSHIPS],
            $answer,
            |$call| $handler
        )
    };
}

/// A change, which can be a dry run.
macro_rules! change {
    ($verb:ident, $path:expr, $tag:literal, $summary:expr, [$($parameters:expr),* $(,)?], $body:expr, $answers:tt, |$call:ident| $handler:expr) => {
        act!($verb, $path, $tag, $summary, [$($parameters,)* CHANGES], $body, $answers, |$call| $handler)
    };
}

/// What is no read: a change, or something that only Feast's clients ask for in the same way.
macro_rules! act {
    ($verb:ident, $path:expr, $tag:literal, $summary:expr, [$($parameters:expr),* $(,)?], $body:expr, ($status:literal, $answer:literal), |$call:ident| $handler:expr) => {
        Route {
            method: Verb::$verb,
            path: $path,
            tag: $tag,
            summary: $summary,
            parameters: &[$($parameters),*],
            body: $body,
            answers: ($status, $answer),
            is_open: false,
            handler: |$call| Box::pin($handler),
        }
    };
}

/// The changes of one kind of object, which is named with its article: what Feast's API makes of a few fields, a whole object, a deletion.
macro_rules! changes {
    ($path:literal, $tag:literal, $what:literal, $object:literal, post: ($status:literal, $body:literal, $post:ident), put: |$put_call:ident| $put:expr, delete: |$delete_call:ident| $delete:expr) => {
        &[
            change!(
                Post,
                concat!("/", $path),
                $tag,
                concat!("Make or replace ", $what, " from a few fields"),
                [],
                Some($body),
                ($status, "Applied"),
                |call| call.$post()
            ),
            change!(
                Put,
                concat!("/", $path, "/{name}"),
                $tag,
                concat!("Make or replace ", $what, ", whole, as `GET` returns it"),
                [NAME, PROJECT],
                Some($object),
                (200, "Applied"),
                |$put_call| $put
            ),
            change!(
                Delete,
                concat!("/", $path, "/{name}"),
                $tag,
                concat!("Delete ", $what),
                [NAME, PROJECT],
                None,
                (200, "Applied"),
                |$delete_call| $delete
            ),
        ]
    };
}

/// What only Feast's Python does with labels.
macro_rules! labels_in_python {
    ($path:literal) => {
        act!(
            Post,
            $path,
            "labels",
            "Labels, which only Feast's Python code reads and writes",
            [],
            None,
            (501, "Nothing"),
            |call| call.labels_need_python()
        )
    };
}

/// All routes.
pub(crate) fn routes() -> impl Iterator<Item = &'static Route> {
    let tables = [SYSTEM, LINEAGE, OBJECTS, OVERVIEWS, DATASETS_IN_PYTHON, MONITORING, LABELING, DOCUMENTATION];
    LISTS.iter().chain(CHANGES_OF_OBJECTS).copied().chain(tables).flatten()
}

const CHANGES: &[Parameter] = &[Parameter::flag("dry_run", "false", "Only report what would change, and any error.")];

const SYSTEM: &[Route] = &[
    get!("/version", "system", "The Feast version whose API this server implements", [], "Version", |call| call
        .version()),
    get!("/projects", "projects", "All projects", [CACHE, PAGE], "Projects", |call| call.list_projects()),
    get!("/projects/{name}", "projects", "One project", [NAME, CACHE], "Project", |call| call.get_project()),
];

const LISTS: &[&[Route]] = &[
    // Feast takes no tags for entities.
    lists!("entities", "entities", "entities", "Entities", Entities, tags: false, [], all: []),
    lists!("data_sources", "data sources", "data sources", "DataSources", DataSources, tags: true, [TAGS], all: []),
    lists!("feature_views", "feature views", "views, without label views,", "FeatureViews", FeatureViews, tags: true, [VIEWS, TAGS], all: []),
    lists!("label_views", "label views", "label views", "FeatureViews", LabelViews, tags: true, [TAGS], all: []),
    lists!("feature_services", "feature services", "feature services", "FeatureServices", FeatureServices, tags: true, [SERVICES, TAGS], all: []),
    lists!("saved_datasets", "saved datasets", "saved datasets", "SavedDatasets", SavedDatasets, tags: true, [DATASETS, TAGS], all: [DATASETS]),
    lists!("features", "features", "features", "Features", Features, tags: false, [FEATURES], all: []),
    lists!("labels", "features", "labels", "Labels", Labels, tags: false, [FEATURES], all: []),
];

const OBJECTS: &[Route] = &[
    one!("entities", "entities", "entity, with its data sources", "Entity", |call| call
        .get(Resource::Entities, Kind::Entity)),
    one!("data_sources", "data sources", "data source", "DataSource", |call| call
        .get(Resource::DataSources, Kind::DataSource)),
    one!("feature_views", "feature views", "view of any kind", "FeatureView", |call| call.get_view()),
    one!("label_views", "label views", "label view", "FeatureView", |call| call
        .get(Resource::LabelViews, Kind::LabelView)),
    one!("feature_services", "feature services", "feature service", "FeatureService", |call| call
        .get(Resource::FeatureServices, Kind::FeatureService)),
    one!("saved_datasets", "saved datasets", "saved dataset", "SavedDataset", |call| call
        .get(Resource::SavedDatasets, Kind::SavedDataset)),
    one!("permissions", "permissions", "permission", "Permission", |call| call
        .get(Resource::Permissions, Kind::Permission)),
    get!(
        "/features/{feature_view}/{name}",
        "features",
        "One feature, or one label",
        [&[Parameter::path("feature_view", "The view that has it.")], NAME, PROJECT, CACHE, RELATIONSHIPS],
        "Feature",
        |call| call.get_feature()
    ),
    get!(
        "/permissions",
        "permissions",
        "The permissions of a project",
        [PROJECT, CACHE, RELATIONSHIPS, PAGE],
        "Permissions",
        |call| call.list(Resource::Permissions, false)
    ),
];

const CHANGES_OF_OBJECTS: &[&[Route]] = &[
    changes!("entities", "entities", "an entity", "Entity", post: (201, "ApplyEntity", apply_entity), put: |call| call.replace(Kind::Entity), delete: |call| call.delete(Kind::Entity)),
    changes!("data_sources", "data sources", "a data source", "DataSource", post: (201, "ApplyDataSource", apply_data_source), put: |call| call.replace(Kind::DataSource), delete: |call| call.delete(Kind::DataSource)),
    changes!("feature_views", "feature views", "a view", "FeatureView", post: (201, "ApplyFeatureView", apply_feature_view), put: |call| call.replace_view(), delete: |call| call.delete_view()),
    changes!("feature_services", "feature services", "a feature service", "FeatureService", post: (201, "ApplyFeatureService", apply_feature_service), put: |call| call.replace(Kind::FeatureService), delete: |call| call.delete(Kind::FeatureService)),
    changes!("permissions", "permissions", "a permission", "Permission", post: (201, "ApplyPermission", apply_permission), put: |call| call.replace(Kind::Permission), delete: |call| call.delete(Kind::Permission)),
    changes!("saved_datasets", "saved datasets", "a saved dataset", "SavedDataset", post: (200, "ApplySavedDataset", apply_saved_dataset), put: |call| call.replace(Kind::SavedDataset), delete: |call| call.delete(Kind::SavedDataset)),
    &[
        change!(
            Put,
            "/label_views/{name}",
            "label views",
            "Make or replace a label view, whole, as `GET` returns it",
            [NAME, PROJECT],
            Some("LabelViewObject"),
            (200, "Applied"),
            |call| call.replace(Kind::LabelView)
        ),
        change!(
            Delete,
            "/label_views/{name}",
            "label views",
            "Delete a label view",
            [NAME, PROJECT],
            None,
            (200, "Applied"),
            |call| call.delete(Kind::LabelView)
        ),
        change!(
            Put,
            "/projects/{name}",
            "projects",
            "Make or replace a project, whole, as `GET` returns it",
            [NAME],
            Some("Project"),
            (200, "Applied"),
            |call| call.replace(Kind::Project)
        ),
        change!(
            Post,
            "/batch",
            "changes",
            "Make, replace and delete objects of a project in one commit: all of them, or none",
            [PROJECT],
            Some("Batch"),
            (200, "BatchApplied"),
            |call| call.batch()
        ),
        act!(
            Post,
            "/registry/refresh",
            "system",
            "Read the storage into the server's cache again",
            [],
            None,
            (200, "Nothing"),
            |call| call.refresh()
        ),
    ],
];

const ANY_PROJECT: &[Parameter] = &[Parameter::text("project", "The project; all projects if it is not given.")];
const SEARCH: &[Parameter] = &[
    Parameter::text("query", "What to look for in names, descriptions and tags. An empty one finds everything.")
        .required(),
    Parameter::texts("projects", "Only in these projects; in all projects if it is not given."),
    Parameter::text("sort_by", "`match_score`, `name` or `type`.").or("match_score"),
    Parameter::text("sort_order", "`asc` or `desc`.").or("desc"),
    Parameter::any_number("page", "Which page, counted from 1.").or("1"),
    Parameter::any_number("limit", "How many results a page has, at most 100.").or("50"),
];
const TAGS_TOLD: &[Parameter] = &[Parameter::any_number("limit", "How many tags to list.").or("4")];
const VISITS: &[Parameter] = &[Parameter::text("object", "Only visits to this kind of object, such as `entities`.")];
const MATERIALIZED: &[Parameter] = &[
    Parameter::text("status", "Only jobs of this status; the registry knows only `SUCCEEDED`."),
    Parameter::text("feature_view", "Only jobs of this view."),
];

/// What is asked across kinds of object.
const OVERVIEWS: &[Route] = &[
    get!(
        "/search",
        "search",
        "Objects and features by their names, descriptions and tags",
        [SEARCH, TAGS, CACHE],
        "Found",
        |call| call.search()
    ),
    get!(
        "/metrics/resource_counts",
        "metrics",
        "How many objects there are",
        [ANY_PROJECT, CACHE],
        "ResourceCounts",
        |call| call.resource_counts()
    ),
    get!(
        "/metrics/popular_tags",
        "metrics",
        "The tags that most views have",
        [ANY_PROJECT, TAGS_TOLD, CACHE],
        "PopularTags",
        |call| call.popular_tags()
    ),
    get!(
        "/metrics/recently_visited",
        "metrics",
        "What the caller has looked at most recently, on this server since it started",
        [ANY_PROJECT, VISITS, PAGE],
        "Visits",
        |call| call.recently_visited()
    ),
    get!(
        "/compute_engines",
        "materialization",
        "The engine that materializes a project's views, from the server's configuration",
        [PROJECT, CACHE],
        "ComputeEngine",
        |call| call.compute_engine()
    ),
    get!(
        "/compute_engines/all",
        "materialization",
        "The same for all projects",
        [CACHE, PAGE_OF_ALL],
        "ComputeEngines",
        |call| call.compute_engines()
    ),
    get!(
        "/materialization_jobs",
        "materialization",
        "Which of a project's views were materialized and when, newest first",
        [PROJECT, MATERIALIZED, CACHE, PAGE],
        "MaterializationJobs",
        |call| call.materialization_jobs()
    ),
];

/// What Feast's server measures of data. Feast's pages ask for it, and show that it is off.
const MONITORING: &[Route] = &[
    get!(
        "/monitoring/{*rest}",
        "monitoring",
        "The quality of data, which only Feast's own server measures",
        [],
        "Nothing",
        |call| call.no_monitoring()
    ),
    act!(
        Post,
        "/monitoring/{*rest}",
        "monitoring",
        "The quality of data, which only Feast's own server measures",
        [],
        None,
        (200, "Nothing"),
        |call| call.no_monitoring()
    ),
];

const JOBS: &[Parameter] =
    &[Parameter::text("project", "The project."), Parameter::text("status", "Only jobs of this status.")];

/// What Feast's Python does with datasets.
const DATASETS_IN_PYTHON: &[Route] = &[
    get!(
        "/saved_datasets/jobs",
        "saved datasets",
        "The jobs that make datasets; this server runs none",
        [JOBS],
        "Jobs",
        |call| call.dataset_jobs()
    ),
    Route {
        answers: (404, "Nothing"),
        ..get!(
            "/saved_datasets/jobs/{job_id}",
            "saved datasets",
            "A job that makes a dataset; this server runs none",
            [&[Parameter::path("job_id", "Its name.")]],
            "Nothing",
            |call| call.dataset_job()
        )
    },
    Route {
        answers: (501, "Nothing"),
        ..get!(
            "/saved_datasets/data/{name}",
            "saved datasets",
            "The data of a dataset, which only Feast's Python code reads",
            [NAME, PROJECT, &[Parameter::number("limit", (1, 100), "How many rows.").or("10")]],
            "Nothing",
            |call| call.needs_python()
        )
    },
    act!(
        Post,
        "/saved_datasets/create",
        "saved datasets",
        "Make the data of a dataset, which only Feast's Python code does",
        [],
        None,
        (501, "Nothing"),
        |call| call.needs_python()
    ),
];

/// What the pages of Feast's web UI ask of label views, as `feast ui` has it.
const LABELING: &[Route] = &[
    get!(
        "/webhook/config/{name}",
        "labels",
        "How other tools send labels to a label view",
        [NAME, ANY_PROJECT],
        "LabelWebhook",
        |call| call.webhook_config()
    ),
    get!(
        "/annotation-config/{name}",
        "labels",
        "How people make labels for a label view, as its tags say",
        [NAME, ANY_PROJECT],
        "LabelAnnotation",
        |call| call.annotation_config()
    ),
    labels_in_python!("/push"),
    labels_in_python!("/batch-push"),
    labels_in_python!("/get-online-labels"),
    labels_in_python!("/list-labels"),
    labels_in_python!("/label-quality"),
    labels_in_python!("/active-learning/candidates"),
    labels_in_python!("/training-dataset/export"),
    labels_in_python!("/webhook/label-ingest"),
];

const OBJECT: &[Parameter] = &[
    Parameter::path(
        "object_type",
        "`dataSource`, `entity`, `featureView`, `featureService`, `feature` or `savedDataset`.",
    ),
    Parameter::path("object_name", "Its name."),
    Parameter::flag("include_indirect", "false", "Whether to include indirect relations."),
];

const LINEAGE: &[Route] = &[
    get!(
        "/lineage/registry",
        "lineage",
        "How the objects of a project depend on each other",
        [PROJECT, CACHE, LINEAGE_FILTER, PAGE],
        "Lineage",
        |call| call.registry_lineage()
    ),
    get!("/lineage/registry/all", "lineage", "The same for all projects", [CACHE, LINEAGE_FILTER], "Lineage", |call| {
        call.all_lineage()
    }),
    get!(
        "/lineage/objects/{object_type}/{object_name}",
        "lineage",
        "What one object is related to",
        [OBJECT, PROJECT, CACHE, PAGE],
        "Relationships",
        |call| call.object_lineage()
    ),
    get!("/lineage/complete", "lineage", "Everything that a project has", [PROJECT, CACHE, PAGE], "Complete", |call| {
        call.complete()
    }),
    get!("/lineage/complete/all", "lineage", "Everything that all projects have", [CACHE], "CompleteAll", |call| call
        .complete_all()),
];

/// What the API is.
const DOCUMENTATION: &[Route] = &[
    open!("/", "What this server is", "Welcome", |call| call.welcome()),
    open!("/docs", "All routes, as a page", "Page", |call| call.docs()),
    open!("/openapi.json", "All routes, as an OpenAPI document", "OpenApi", |call| call.openapi()),
];
