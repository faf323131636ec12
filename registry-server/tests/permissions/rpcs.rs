//! The table: each method that the server has, how it is asked for something, and what each caller is told.

use serde_json::{Value, json};
use tonic::Code::{
    self, InvalidArgument as Invalid, NotFound as Missing, Ok as Fine, PermissionDenied as Denied,
    Unimplemented as Undone,
};

use crate::wire::End;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ask {
    pub(crate) project: String,
    pub(crate) name: String,
    /// What is said in an object that is applied.
    pub(crate) text: String,
    /// Whether the cache may answer.
    pub(crate) cached: bool,
    /// A revision after which everything of the project was made.
    pub(crate) began: u64,
    /// The commit that changed something.
    pub(crate) revision: u64,
}

impl Ask {
    pub(crate) fn of(project: &str, name: &str, text: &str) -> Self {
        let (project, name, text) = (project.to_owned(), name.to_owned(), text.to_owned());
        Self { project, name, text, cached: false, began: 0, revision: 0 }
    }
}

/// What is not there, of what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The object.
    Name,
    /// The project.
    Project,
    /// The commit.
    Revision,
}

/// Of each of [`Who::ALL`](crate::fixture::Who::ALL).
type Codes = [Code; 5];

pub(crate) struct Row {
    pub(crate) rpc: &'static str,
    /// What the names of the objects that it is about end with: one of [`NOUNS`], `project` or `infra`.
    pub(crate) noun: &'static str,
    pub(crate) request: fn(&Ask) -> Value,
    pub(crate) absent: Absent,
    /// What callers are told of `hidden_…` of `alpha`.
    pub(crate) of_hidden: Codes,
    /// What they are told when it is not there.
    pub(crate) of_absent: Codes,
    /// What whoever sees all of `alpha` is told; who sees a part of it is told of those that begin with `open_`.
    pub(crate) shows: &'static [&'static str],
    /// Whether it changes something for whoever may.
    pub(crate) changes: bool,
    pub(crate) end: End,
    /// Whether it is for everybody, also without a token.
    pub(crate) is_public: bool,
    /// Whether who is denied is told the same of what is there and what is not.
    pub(crate) tells_alike: bool,
}

impl Row {
    pub(crate) fn applies(&self) -> bool {
        self.rpc.contains("/Apply") && !self.rpc.ends_with("/ApplyMaterialization")
            || self.rpc.ends_with("/UpdateInfra")
    }
}

/// What objects there are, but projects and their infrastructure. Those that others refer to come first.
pub(crate) const NOUNS: &[&str] =
    &["entity", "source", "view", "stream", "demand", "label", "service", "dataset", "reference", "permission"];

const BASE: Row = Row {
    rpc: "",
    noun: "entity",
    request: |_| json!({}),
    absent: Absent::Name,
    of_hidden: [Fine; 5],
    of_absent: [Fine; 5],
    shows: &[],
    changes: false,
    end: End::Servers,
    is_public: false,
    tells_alike: true,
};

const READS: Codes = [Denied, Fine, Denied, Fine, Fine];
const WRITES: Codes = [Denied, Denied, Denied, Fine, Fine];
const ADMIN: Codes = [Denied, Denied, Denied, Denied, Fine];

/// `feast.registry.RegistryServer/…`, as it is written here.
macro_rules! feast {
    ($name:literal) => {
        concat!("feast.registry.RegistryServer/", $name)
    };
}

macro_rules! history {
    ($name:literal) => {
        concat!("feast_registry.v1.History/", $name)
    };
}

const fn get(rpc: &'static str, noun: &'static str, request: fn(&Ask) -> Value) -> Row {
    Row { rpc, noun, request, of_hidden: READS, of_absent: [Denied, Missing, Denied, Missing, Missing], ..BASE }
}

const fn list(rpc: &'static str, request: fn(&Ask) -> Value, shows: &'static [&'static str]) -> Row {
    Row { rpc, request, absent: Absent::Project, shows, ..BASE }
}

const fn apply(rpc: &'static str, noun: &'static str, request: fn(&Ask) -> Value) -> Row {
    Row { rpc, noun, request, of_hidden: WRITES, of_absent: WRITES, changes: true, ..BASE }
}

const fn delete(rpc: &'static str, noun: &'static str) -> Row {
    let of_absent = [Denied, Denied, Denied, Missing, Missing];
    Row { rpc, noun, request: deleted, of_hidden: WRITES, of_absent, changes: true, ..BASE }
}

/// A method that Feast has and this server does not.
const fn undone(rpc: &'static str, request: fn(&Ask) -> Value) -> Row {
    Row { rpc, request, of_hidden: [Undone; 5], of_absent: [Undone; 5], ..BASE }
}

const fn public(rpc: &'static str, request: fn(&Ask) -> Value, end: End) -> Row {
    Row { rpc, request, is_public: true, end, ..BASE }
}

fn named(ask: &Ask) -> Value {
    json!({"project": ask.project, "name": ask.name, "allowCache": ask.cached})
}

fn listed(ask: &Ask) -> Value {
    json!({"project": ask.project, "allowCache": ask.cached})
}

fn deleted(ask: &Ask) -> Value {
    json!({"project": ask.project, "name": ask.name, "commit": true})
}

fn spec(ask: &Ask, more: Value) -> Value {
    let mut spec = json!({"name": ask.name, "project": ask.project, "tags": {"text": ask.text}});
    let texts = json!({"description": format!("{} of {}", ask.text, ask.name)});
    for from in [texts, more] {
        spec.as_object_mut().expect("an object").extend(from.as_object().expect("an object").clone());
    }
    spec
}

/// A view's; another one when the text is another.
fn features(ask: &Ask) -> Value {
    let mut names = vec![format!("{}_feature", ask.name)];
    if ask.text.contains("versioned") {
        names.push(format!("{}_other", ask.name));
    }
    names.into_iter().map(|name| json!({"name": name, "valueType": "INT64"})).collect()
}

fn source(ask: &Ask) -> Value {
    let options = json!({"type": "BATCH_FILE", "timestampField": "at", "fileOptions": {"uri": "file:///data"}});
    spec(ask, options)
}

/// The source that a view has within it.
fn source_of(ask: &Ask) -> Value {
    source(&Ask { name: format!("{}_source", first_word(&ask.name)), ..ask.clone() })
}

fn first_word(name: &str) -> &str {
    name.split('_').next().unwrap_or_default()
}

/// The view that a service is over: one that is there, and that whoever sees the service sees.
fn view_of(ask: &Ask) -> String {
    let first = first_word(&ask.name);
    format!("{}_view", if first == "absent" { "open" } else { first })
}

fn applied(ask: &Ask, field: &str, object: Value) -> Value {
    json!({field: object, "project": ask.project, "commit": true})
}

fn entity_of(ask: &Ask) -> String {
    format!("{}_entity", first_word(&ask.name))
}

fn view(ask: &Ask) -> Value {
    let (entities, source) = ([entity_of(ask)], source_of(ask));
    spec(ask, json!({"features": features(ask), "entities": entities, "batchSource": source, "online": true}))
}

fn infra(ask: &Ask) -> Value {
    json!([{"infraObjectClassType": format!("{} of {}_infra", ask.text, ask.project)}])
}

/// A range of time, as any.
fn materialized(ask: &Ask) -> Value {
    let view = json!({"spec": {"name": ask.name, "project": ask.project}});
    json!({
        "project": ask.project, "featureView": view, "commit": true,
        "startDate": "2026-01-01T00:00:00Z", "endDate": "2026-01-02T00:00:00Z",
    })
}

fn filter(ask: &Ask) -> Value {
    json!({"project": ask.project, "names": [ask.name]})
}

fn undoing(ask: &Ask, is_dry: bool) -> Value {
    json!({"revision": ask.revision, "options": {"dryRun": is_dry, "force": true}})
}

fn restoring(ask: &Ask, is_dry: bool) -> Value {
    let target = json!({"project": ask.project, "kind": "KIND_ENTITY", "name": ask.name});
    json!({"object": target, "revision": ask.revision - 1, "options": {"dryRun": is_dry}})
}

fn restoring_all(ask: &Ask, is_dry: bool) -> Value {
    let target = json!({"project": ask.project});
    json!({"wholeProject": target, "revision": ask.revision - 1, "options": {"dryRun": is_dry}})
}

fn services(_: &Ask) -> Value {
    json!({"listServices": ""})
}

/// Those of History/Restore and History/Revert that only say what would be done.
const PLANS: Codes = READS;
const NO_REVISION: Codes = [Invalid; 5];

pub(crate) const ROWS: &[Row] = &[
    apply(feast!("ApplyEntity"), "entity", |ask| {
        applied(ask, "entity", json!({"spec": spec(ask, json!({"joinKey": "id"}))}))
    }),
    get(feast!("GetEntity"), "entity", named),
    list(feast!("ListEntities"), listed, &["hidden_entity", "open_entity"]),
    delete(feast!("DeleteEntity"), "entity"),
    apply(feast!("ApplyDataSource"), "source", |ask| applied(ask, "dataSource", source(ask))),
    get(feast!("GetDataSource"), "source", named),
    list(feast!("ListDataSources"), listed, &["hidden_source", "open_source"]),
    delete(feast!("DeleteDataSource"), "source"),
    apply(feast!("ApplyFeatureView"), "view", |ask| applied(ask, "featureView", json!({"spec": view(ask)}))),
    apply(feast!("ApplyFeatureView"), "stream", |ask| applied(ask, "streamFeatureView", json!({"spec": view(ask)}))),
    apply(feast!("ApplyFeatureView"), "demand", |ask| {
        applied(ask, "onDemandFeatureView", json!({"spec": spec(ask, json!({"features": features(ask)}))}))
    }),
    apply(feast!("ApplyFeatureView"), "label", |ask| {
        applied(
            ask,
            "labelView",
            json!({"spec": spec(ask, json!({"features": features(ask), "entities": [entity_of(ask)]}))}),
        )
    }),
    delete(feast!("DeleteFeatureView"), "view"),
    delete(feast!("DeleteFeatureView"), "stream"),
    delete(feast!("DeleteFeatureView"), "demand"),
    delete(feast!("DeleteFeatureView"), "label"),
    get(feast!("GetAnyFeatureView"), "view", named),
    get(feast!("GetAnyFeatureView"), "stream", named),
    get(feast!("GetAnyFeatureView"), "demand", named),
    get(feast!("GetAnyFeatureView"), "label", named),
    list(
        feast!("ListAllFeatureViews"),
        listed,
        &["hidden_view", "hidden_stream", "hidden_demand", "open_view", "open_stream", "open_demand"],
    ),
    Row {
        absent: Absent::Name,
        of_hidden: READS,
        of_absent: [Denied, Fine, Denied, Fine, Fine],
        shows: &["hidden_view"],
        noun: "service",
        ..list(feast!("ListAllFeatureViews"), |ask| json!({"project": ask.project, "featureService": ask.name}), &[])
    },
    get(feast!("GetFeatureView"), "view", named),
    list(feast!("ListFeatureViews"), listed, &["hidden_view", "open_view"]),
    get(feast!("GetStreamFeatureView"), "stream", named),
    list(feast!("ListStreamFeatureViews"), listed, &["hidden_stream", "open_stream"]),
    get(feast!("GetOnDemandFeatureView"), "demand", named),
    list(feast!("ListOnDemandFeatureViews"), listed, &["hidden_demand", "open_demand"]),
    get(feast!("GetLabelView"), "label", named),
    list(feast!("ListLabelViews"), listed, &["hidden_label", "open_label"]),
    apply(feast!("ApplyFeatureService"), "service", |ask| {
        let features = json!([{"featureViewName": view_of(ask)}]);
        applied(ask, "featureService", json!({"spec": spec(ask, json!({"features": features}))}))
    }),
    get(feast!("GetFeatureService"), "service", named),
    list(feast!("ListFeatureServices"), listed, &["hidden_service", "open_service"]),
    delete(feast!("DeleteFeatureService"), "service"),
    apply(feast!("ApplySavedDataset"), "dataset", |ask| {
        let storage = json!({"fileStorage": {"uri": "file:///data"}});
        applied(ask, "savedDataset", json!({"spec": spec(ask, json!({"storage": storage}))}))
    }),
    get(feast!("GetSavedDataset"), "dataset", named),
    list(feast!("ListSavedDatasets"), listed, &["hidden_dataset", "open_dataset"]),
    delete(feast!("DeleteSavedDataset"), "dataset"),
    undone(feast!("CreateDatasetFromRetrieval"), |ask| json!({"project": ask.project, "name": ask.name})),
    undone(feast!("GetDatasetData"), |ask| json!({"project": ask.project, "name": ask.name})),
    undone(feast!("GetDatasetJobStatus"), |ask| json!({"jobId": ask.name})),
    undone(feast!("ListDatasetJobs"), |ask| json!({"project": ask.project})),
    apply(feast!("ApplyValidationReference"), "reference", |ask| {
        applied(ask, "validationReference", spec(ask, json!({"referenceDatasetName": "data"})))
    }),
    get(feast!("GetValidationReference"), "reference", named),
    list(feast!("ListValidationReferences"), listed, &["hidden_reference", "open_reference"]),
    delete(feast!("DeleteValidationReference"), "reference"),
    apply(feast!("ApplyPermission"), "permission", |ask| {
        // It lets nobody see anything.
        let policy = json!({"roleBasedPolicy": {"roles": ["nobody"]}});
        let mut spec = spec(ask, json!({"actions": ["DESCRIBE"], "namePatterns": ["nothing"], "policy": policy}));
        spec.as_object_mut().expect("an object").remove("description");
        applied(ask, "permission", json!({"spec": spec}))
    }),
    get(feast!("GetPermission"), "permission", named),
    list(feast!("ListPermissions"), listed, &["hidden_permission", "open_permission", "picky", "readers", "writers"]),
    delete(feast!("DeletePermission"), "permission"),
    Row {
        absent: Absent::Project,
        of_absent: ADMIN,
        ..apply(feast!("ApplyProject"), "project", |ask| {
            let description = format!("{} of {}", ask.text, ask.project);
            json!({"project": {"spec": {"name": ask.project, "description": description}}, "commit": true})
        })
    },
    Row {
        absent: Absent::Project,
        of_absent: [Denied, Denied, Denied, Denied, Missing],
        ..get(feast!("GetProject"), "project", |ask| json!({"name": ask.project, "allowCache": ask.cached}))
    },
    list(feast!("ListProjects"), |ask| json!({"allowCache": ask.cached}), &["SECRET of alpha"]),
    Row {
        absent: Absent::Project,
        of_absent: [Denied, Denied, Denied, Denied, Missing],
        request: |ask| json!({"name": ask.project, "commit": true}),
        ..delete(feast!("DeleteProject"), "project")
    },
    Row {
        of_absent: [Denied, Denied, Denied, Missing, Missing],
        ..apply(feast!("ApplyMaterialization"), "view", materialized)
    },
    Row {
        of_hidden: READS,
        of_absent: ADMIN,
        noun: "project",
        ..list(feast!("ListProjectMetadata"), listed, &["alpha"])
    },
    Row {
        absent: Absent::Project,
        of_absent: ADMIN,
        ..apply(feast!("UpdateInfra"), "infra", |ask| applied(ask, "infra", json!({"infraObjects": infra(ask)})))
    },
    Row {
        absent: Absent::Project,
        of_absent: ADMIN,
        shows: &["SECRET of alpha_infra"],
        ..get(feast!("GetInfra"), "infra", listed)
    },
    Row { rpc: feast!("Commit"), ..BASE },
    Row {
        rpc: feast!("Refresh"),
        noun: "project",
        request: |ask| json!({"project": ask.project}),
        absent: Absent::Project,
        of_hidden: READS,
        of_absent: ADMIN,
        ..BASE
    },
    list(
        feast!("Proto"),
        |_| json!({}),
        &[
            "hidden_entity",
            "hidden_source",
            "hidden_view",
            "hidden_stream",
            "hidden_demand",
            "hidden_label",
            "hidden_service",
            "hidden_dataset",
            "hidden_reference",
            "hidden_permission",
            "SECRET of alpha",
            "open_entity",
            "open_source",
            "open_view",
            "open_stream",
            "open_demand",
            "open_label",
            "open_service",
            "open_dataset",
            "open_reference",
            "open_permission",
        ],
    ),
    list(
        feast!("GetRegistryLineage"),
        listed,
        &["hidden_entity", "hidden_view", "hidden_service", "open_entity", "open_view", "open_service"],
    ),
    Row {
        absent: Absent::Name,
        noun: "view",
        ..list(
            feast!("GetObjectRelationships"),
            |ask| json!({"project": ask.project, "objectType": "featureView", "objectName": ask.name, "allowCache": ask.cached}),
            &["hidden_entity", "hidden_service"],
        )
    },
    list(feast!("ListFeatures"), listed, &["hidden_view_feature", "hidden_stream_feature", "open_view_feature"]),
    Row {
        of_hidden: [Missing, Fine, Missing, Fine, Fine],
        of_absent: [Missing; 5],
        ..get(feast!("GetFeature"), "view", |ask| {
            let feature = format!("{}_feature", ask.name);
            json!({"project": ask.project, "featureView": ask.name, "name": feature, "allowCache": ask.cached})
        })
    },
    Row { rpc: history!("Log"), request: |ask| json!({"filter": filter(ask)}), shows: &["hidden_entity"], ..BASE },
    Row {
        rpc: history!("Get"),
        request: |ask| json!({"revision": ask.revision}),
        absent: Absent::Revision,
        of_hidden: [Invalid, Fine, Invalid, Fine, Fine],
        of_absent: NO_REVISION,
        shows: &["hidden_entity", "SECRET, changed,"],
        ..BASE
    },
    Row {
        rpc: history!("Diff"),
        request: |ask| json!({"after": ask.began, "filter": filter(ask)}),
        shows: &["hidden_entity", "SECRET, changed,"],
        ..BASE
    },
    Row {
        rpc: history!("Revert"),
        request: |ask| undoing(ask, true),
        absent: Absent::Revision,
        of_hidden: PLANS,
        of_absent: NO_REVISION,
        shows: &["hidden_entity", "SECRET of"],
        // That there is a revision is no secret; what it changed is.
        tells_alike: false,
        ..BASE
    },
    Row {
        rpc: history!("Revert"),
        request: |ask| undoing(ask, false),
        absent: Absent::Revision,
        of_hidden: WRITES,
        of_absent: NO_REVISION,
        changes: true,
        tells_alike: false,
        ..BASE
    },
    Row {
        rpc: history!("Restore"),
        request: |ask| restoring(ask, true),
        of_hidden: PLANS,
        of_absent: [Denied, Missing, Denied, Missing, Missing],
        shows: &["hidden_entity", "SECRET of"],
        ..BASE
    },
    Row {
        rpc: history!("Restore"),
        request: |ask| restoring(ask, false),
        of_hidden: WRITES,
        of_absent: [Denied, Missing, Denied, Missing, Missing],
        changes: true,
        ..BASE
    },
    Row {
        rpc: history!("Restore"),
        request: |ask| restoring_all(ask, true),
        absent: Absent::Project,
        of_hidden: PLANS,
        of_absent: [Denied, Denied, Denied, Denied, Missing],
        shows: &["hidden_entity", "SECRET of"],
        ..BASE
    },
    Row {
        rpc: history!("Restore"),
        request: |ask| restoring_all(ask, false),
        absent: Absent::Project,
        of_hidden: WRITES,
        of_absent: [Denied, Denied, Denied, Denied, Missing],
        changes: true,
        ..BASE
    },
    Row {
        rpc: history!("Watch"),
        request: |ask| json!({"after": ask.began, "filter": {"names": [ask.name, "lobby_entity"]}}),
        shows: &["hidden_entity", "SECRET, changed,"],
        end: End::Words("lobby_entity"),
        ..BASE
    },
    Row {
        rpc: history!("ListVersions"),
        noun: "view",
        request: |ask| json!({"project": ask.project, "view": ask.name}),
        shows: &["hidden_view_feature", "SECRET, versioned,"],
        ..BASE
    },
    public("grpc.health.v1.Health/Check", |_| json!({}), End::Servers),
    public("grpc.health.v1.Health/Watch", |_| json!({}), End::First),
    public("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", services, End::Servers),
    public("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", services, End::Servers),
];
