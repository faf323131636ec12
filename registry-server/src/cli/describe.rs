//! `feast-registry describe`.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use clap::Args;
use feast_registry::{Freshness, Kind, Lineage, ListFilter, ObjectType, Reference};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, ReflectMessage, Value};
use prost_types::Timestamp;

use super::get::{Found, Which};
use super::list::version;
use super::location::{Location, Opened};
use super::message::{self, Fields};
use super::output::{self, Table};
use super::{Cli, project, text};

/// How many materialization intervals are shown: the latest ones.
const INTERVALS: usize = 20;

/// The room before everything that stands under a heading.
const INDENT: &str = "  ";

/// Describe one object for people.
///
/// That is its definition, its schema, what of it has been materialized, the versions that it had, and what uses it.
/// Times are UTC.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry describe view driver_stats
  feast-registry describe project rides
  feast-registry describe feature-service driver_ranking -c feature_store.yaml

For programs there is `feast-registry get`.")]
pub(crate) struct Describe {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    location: Location,
}

impl Describe {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        self.which.require_name(cli);
        let opened = self.location.open(cli).await?;
        let found = self.which.find(&opened).await?;
        output::print(page(&opened, &found).await?.as_bytes())
    }
}

/// Everything about an object.
async fn page(opened: &Opened, found: &Found) -> Result<String> {
    let kind = found.object.kind;
    let fields = Fields::of(&found.object)?;
    let mut page = heading(found)?;
    let mut facts = definition(&fields);
    facts.extend(kept(&fields, kind));
    facts.extend(beside(opened, found).await?);
    page += &aligned(&facts);
    page += &section("Schema", &schema(&fields, kind));
    page += &section("Features", &projections(&fields, kind));
    page += &section("In the online store", &infrastructure(&fields, kind));
    page += &transformation(&fields);
    page += &materialized(&fields);
    page += &section("Versions", &versions(opened, found, &fields).await?);
    page += &section("Used by", &used_by(opened, found).await?);
    page += &section("Objects", &contents(opened, found).await?);
    Ok(page)
}

/// What it is.
fn heading(found: &Found) -> Result<String> {
    let (kind, project) = (found.object.kind, text::clean(&found.project));
    let name = text::clean(&found.object.name()?);
    Ok(match kind {
        Kind::Project => format!("project `{name}`\n"),
        Kind::Infra => format!("infrastructure of project `{project}`\n"),
        _ => format!("{kind} `{name}` of project `{project}`\n"),
    })
}

fn section(title: &str, table: &Table) -> String {
    if table.is_empty() { String::new() } else { format!("\n{title}\n{}", table.render(INDENT)) }
}

/// Something about the object: what, and how it is.
type Fact = (String, String);

fn aligned(facts: &[Fact]) -> String {
    let width = facts.iter().map(|(label, _)| label.len()).max().unwrap_or_default();
    facts.iter().map(|(label, value)| format!("{INDENT}{label:<width$}  {value}\n")).collect()
}

/// Fields of a definition that have a place of their own on the page.
const ELSEWHERE: [&str; 4] = ["name", "project", "user_defined_function", "infra_objects"];

/// The definition, field by field.
fn definition(fields: &Fields) -> Vec<Fact> {
    let spec = fields.spec();
    let mut facts = Vec::new();
    for field in spec.descriptor().fields().filter(|field| Some(field.number()) != fields.meta_in_spec()) {
        // A switch that is off is worth a line; of other fields, those that are set are.
        let is_switch = field.kind() == FieldKind::Bool && !field.supports_presence() && !is_deprecated(&field);
        if is_switch || spec.has_field(&field) {
            add_facts(&mut facts, "", &spec, &field);
        }
    }
    let place = |(label, _): &Fact| match label.as_str() {
        "description" => 0,
        "owner" => 2,
        "tags" => 3,
        _ => 1,
    };
    facts.sort_by_key(place);
    facts
}

/// Adds what a field says, or what the fields below it say.
fn add_facts(facts: &mut Vec<Fact>, above: &str, message: &DynamicMessage, field: &FieldDescriptor) {
    if ELSEWHERE.contains(&field.name()) || is_deprecated(field) || is_list_of_features(field) {
        return;
    }
    let label = match field.name() {
        "version" => "version asked for".to_owned(),
        "created_timestamp" => "created".to_owned(),
        "last_updated_timestamp" => "updated".to_owned(),
        // One of several possibilities says with its name which one it is.
        name if field.containing_oneof().is_some() => name.replace('_', " "),
        name => format!("{above}{}", name.replace('_', " ")),
    };
    match message.get_field(field).as_ref() {
        Value::Message(below) if !message::is_simple(below) && below.fields().next().is_some() => {
            let above = format!("{label} ");
            below.fields().for_each(|(field, _)| add_facts(facts, &above, below, &field));
        }
        Value::Message(below) if !message::is_simple(below) => facts.push((label, "yes".to_owned())),
        _ => facts.push((label, message::field_in_words(message, field))),
    }
}

fn is_deprecated(field: &FieldDescriptor) -> bool {
    field.field_descriptor_proto().options.as_ref().is_some_and(|options| options.deprecated())
}

/// These are tables.
fn is_list_of_features(field: &FieldDescriptor) -> bool {
    const FEATURES: [&str; 2] = ["feast.core.FeatureSpecV2", "feast.core.FeatureViewProjection"];
    field.is_list() && matches!(field.kind(), FieldKind::Message(item) if FEATURES.contains(&item.full_name()))
}

/// What the registry keeps about the object.
fn kept(fields: &Fields, kind: Kind) -> Vec<Fact> {
    let Some(meta) = fields.meta() else { return Vec::new() };
    let mut facts = Vec::new();
    for field in meta.descriptor().fields() {
        match field.name() {
            "materialization_intervals" => {}
            "current_version_number" if kind.layout().current_version_number.is_some() => {
                facts.push(("version".to_owned(), version(&meta)));
            }
            _ if meta.has_field(&field) => add_facts(&mut facts, "", &meta, &field),
            _ => {}
        }
    }
    facts
}

/// What the registry keeps beside the object.
async fn beside(opened: &Opened, found: &Found) -> Result<Vec<Fact>> {
    let (registry, project, kind) = (&opened.registry, &found.project, found.object.kind);
    let mut facts = Vec::new();
    if kind == Kind::Project {
        let metadata = registry.list_project_metadata(project, Freshness::Stored).await?;
        facts.extend(metadata.iter().map(|known| ("uuid".to_owned(), text::clean(&known.project_uuid))));
    }
    if kind.is_view() {
        let bytes = registry.get_user_metadata(kind, project, &found.object.name()?).await?;
        facts.extend(bytes.map(|bytes| ("user metadata".to_owned(), format!("{} bytes", bytes.len()))));
    }
    Ok(facts)
}

/// The columns of a view or of a request source.
fn schema(fields: &Fields, kind: Kind) -> Table {
    let mut table = Table::new(["NAME", "TYPE", "ROLE", "VECTOR INDEX", "TAGS", "DESCRIPTION"]);
    let mut add = |role: &str, columns: Vec<DynamicMessage>| {
        for column in columns {
            let word = |name| message::words(&column, name);
            table.push([
                word("name"),
                word("value_type"),
                role.to_owned(),
                vector(&column),
                word("tags"),
                word("description"),
            ]);
        }
    };
    let spec = fields.spec();
    if kind.is_view() {
        add("join key", message::messages(&spec, "entity_columns"));
        add(if kind == Kind::LabelView { "label" } else { "feature" }, message::messages(&spec, "features"));
    }
    if let Some(Value::Message(request)) = message::field(&spec, "request_data_options") {
        add("", message::messages(&request, "schema"));
    }
    table
}

/// How a feature is searched by nearness; empty when it is not.
fn vector(column: &DynamicMessage) -> String {
    if message::field(column, "vector_index").is_none() {
        return String::new();
    }
    let (metric, length) = (message::words(column, "vector_search_metric"), message::words(column, "vector_length"));
    let metric = if metric.is_empty() { "yes".to_owned() } else { metric };
    if length.is_empty() { metric } else { format!("{metric}, {length}") }
}

/// What a feature service takes from which views.
fn projections(fields: &Fields, kind: Kind) -> Table {
    let mut table = Table::new(["VIEW", "ALIAS", "VERSION", "FEATURES", "JOIN KEYS"]);
    if kind == Kind::FeatureService {
        for projection in message::messages(&fields.spec(), "features") {
            let word = |name| message::words(&projection, name);
            let version = word("version_tag");
            let version = if version.is_empty() { version } else { format!("v{version}") };
            let (view, alias) = (word("feature_view_name"), word("feature_view_name_alias"));
            table.push([view, alias, version, word("feature_columns"), word("join_key_map")]);
        }
    }
    table
}

/// The code of a view that computes its features.
fn transformation(fields: &Fields) -> String {
    let spec = fields.spec();
    let function = message::field(&spec, "feature_transformation")
        .and_then(|transformation| message::field(transformation.as_message()?, "user_defined_function"))
        .or_else(|| message::field(&spec, "user_defined_function"));
    let Some(function) = function.as_ref().and_then(Value::as_message) else { return String::new() };
    let code = match message::field(function, "body_text") {
        Some(Value::String(code)) => code,
        _ => format!("(compiled, without its text: {})", message::words(function, "body")),
    };
    format!("\nTransformation\n{}", text::indented(&code, INDENT))
}

/// What a project has in its online store.
fn infrastructure(fields: &Fields, kind: Kind) -> Table {
    let mut table = Table::new(["CLASS", "NAME"]);
    if kind == Kind::Infra {
        for object in message::messages(fields.message(), "infra_objects") {
            let details =
                object.fields().find_map(|(_, value)| value.as_message()).map(|it| message::words(it, "name"));
            table.push([message::words(&object, "infra_object_class_type"), details.unwrap_or_default()]);
        }
    }
    table
}

/// What has been materialized, in the order of time.
fn materialized(fields: &Fields) -> String {
    let meta = fields.meta();
    let mut intervals: Vec<(Timestamp, Timestamp)> = meta
        .iter()
        .flat_map(|meta| message::messages(meta, "materialization_intervals"))
        .map(|interval| (moment(&interval, "start_time"), moment(&interval, "end_time")))
        .collect();
    intervals.sort_by_key(|(start, end)| (start.seconds, start.nanos, end.seconds, end.nanos));
    let latest = &intervals[intervals.len().saturating_sub(INTERVALS)..];
    let mut table = Table::new(["FROM", "TO", "LENGTH"]);
    for (start, end) in latest {
        table.push([text::moment(start), text::moment(end), text::between(start, end)]);
    }
    let title = if latest.len() < intervals.len() {
        format!("Materialized (the latest {} of {} intervals; `get` has all)", latest.len(), intervals.len())
    } else {
        "Materialized".to_owned()
    };
    section(&title, &table)
}

fn moment(message: &DynamicMessage, name: &str) -> Timestamp {
    let value = message::field(message, name);
    value.and_then(|value| value.as_message()?.transcode_to().ok()).unwrap_or_default()
}

/// The history of a view.
async fn versions(opened: &Opened, found: &Found, fields: &Fields) -> Result<Table> {
    let mut table = Table::new(["VERSION", "", "MADE", "KIND", "FEATURES", "DESCRIPTION", "ID"]);
    if !found.object.kind.is_view() {
        return Ok(table);
    }
    let current = fields.meta().map(|meta| version(&meta)).unwrap_or_default();
    for past in opened.registry.list_versions(&found.project, &found.object.name()?).await? {
        let number = format!("v{}", past.number);
        let mark = if number == current { "current" } else { "" };
        // A name may have been another kind of view's before.
        let kind = if past.view.kind == found.object.kind { "" } else { past.view.kind.label() };
        let features = Fields::of(&past.view).map(|view| message::messages(&view.spec(), "features").len().to_string());
        table.push([
            number,
            mark.to_owned(),
            text::second(&past.created_timestamp),
            kind.to_owned(),
            features.unwrap_or_else(|_| "?".to_owned()),
            text::clean(&past.description),
            text::clean(&past.version_id),
        ]);
    }
    Ok(table)
}

/// What is made from the object, directly or by way of something else.
async fn used_by(opened: &Opened, found: &Found) -> Result<Table> {
    let mut table = Table::new(["NAME", "KIND", ""]);
    let Some(object_type) = object_type(found.object.kind) else { return Ok(table) };
    let source = Reference { object_type, name: found.object.name()? };
    let Lineage { direct, indirect } = opened.registry.lineage(&found.project, Freshness::Stored).await?;
    let views = other_views(opened, &found.project).await?;
    let mut seen = HashSet::new();
    for (relations, how) in [(direct, ""), (indirect, "indirectly")] {
        for relation in relations.into_iter().filter(|relation| relation.source == source) {
            let target = relation.target;
            // By way of a view, Feast has an entity lead to the source, which does not use it.
            if target.object_type != ObjectType::DataSource && seen.insert(target.clone()) {
                let kind = match target.object_type {
                    ObjectType::FeatureView => views.get(&target.name).map_or("feature view", |kind| kind.label()),
                    other => type_in_words(other),
                };
                table.push([text::clean(&target.name), kind.to_owned(), how.to_owned()]);
            }
        }
    }
    Ok(table)
}

/// The views that lineage calls feature views and that are of another kind.
async fn other_views(opened: &Opened, project: &str) -> Result<HashMap<String, Kind>> {
    let mut views = HashMap::new();
    for kind in [Kind::StreamFeatureView, Kind::OnDemandFeatureView] {
        for view in opened.registry.list(kind, Some(project), &ListFilter::default(), Freshness::Stored).await? {
            views.insert(view.name()?, kind);
        }
    }
    Ok(views)
}

/// What lineage calls a kind; `None` for kinds that nothing is made from.
fn object_type(kind: Kind) -> Option<ObjectType> {
    match kind {
        Kind::Entity => Some(ObjectType::Entity),
        Kind::DataSource => Some(ObjectType::DataSource),
        Kind::FeatureView | Kind::StreamFeatureView | Kind::OnDemandFeatureView => Some(ObjectType::FeatureView),
        Kind::LabelView => Some(ObjectType::LabelView),
        _ => None,
    }
}

fn type_in_words(object_type: ObjectType) -> &'static str {
    match object_type {
        ObjectType::DataSource => "data source",
        ObjectType::Entity => "entity",
        ObjectType::FeatureView => "feature view",
        ObjectType::LabelView => "label view",
        ObjectType::FeatureService => "feature service",
        ObjectType::Feature => "feature",
        ObjectType::SavedDataset => "saved dataset",
    }
}

/// What is in a project.
async fn contents(opened: &Opened, found: &Found) -> Result<Table> {
    let mut table = Table::new(["KIND", "NUMBER"]);
    if found.object.kind == Kind::Project {
        for (kind, number) in project::counts(&opened.registry, &found.project).await? {
            table.push([kind.label().to_owned(), number.to_string()]);
        }
    }
    Ok(table)
}
