//! `feast-registry list`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use feast_registry::{Freshness, Kind, ListFilter, Object};
use prost_reflect::{DynamicMessage, Value};
use prost_types::Timestamp;

use super::location::{Location, Opened};
use super::message::{self, Fields};
use super::output::{self, Format, Table};
use super::selection::{self, Selection};
use super::{Cli, project, text};

/// List the objects of a kind.
///
/// Without a project, those of all projects are listed; with `-c`, those of the project that the feature_store.yaml is
/// for.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry list projects
  feast-registry list views --project rides --tag team=ml
  feast-registry list feature-services -c feature_store.yaml -o json | jq -r '.[].spec.name'
  feast-registry list all -o proto > registry.pb             a feast.core.Registry, as in Feast's registry files

`-o json` and `-o yaml` print an array of protobuf's JSON; for `views` and `all`, a Registry with a key for each kind.
A table in a terminal leaves out the columns that do not fit; `| cat` shows all.")]
pub(crate) struct List {
    /// What to list: a kind, the views of all four kinds, or all.
    #[arg(value_name = "KIND", ignore_case = true, value_parser = selection::of_many())]
    selection: Selection,

    /// Only objects of this project.
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,

    /// Objects of all projects, also with `-c`.
    #[arg(short = 'A', long, conflicts_with = "project")]
    all_projects: bool,

    /// Only objects that have this tag. Given several times, they must have all of them.
    ///
    /// A `=` in the key is written `\=`, and a `\` before one `\\`: 'a\=b=c' is the key `a=b` with the value `c`.
    #[arg(short, long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,

    /// The output format.
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    output: ListFormat,

    #[command(flatten)]
    location: Location,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ListFormat {
    /// A table for people.
    Table,
    /// Protobuf's JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// A feast.core.Registry with what is listed, in bytes.
    Proto,
}

/// The value begins after the first `=` that has no `\` before it.
fn tag(text: &str) -> Result<(String, String), &'static str> {
    let mut key = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let after = rest.as_str();
        match c {
            '=' => return Ok((key, after.to_owned())),
            '\\' if after.starts_with(['=', '\\']) => key.extend(rest.next()),
            c => key.push(c),
        }
    }
    Err("a tag is given as KEY=VALUE; a `=` in the key is written `\\=`")
}

/// An object and the project that it is stored in, which its message may not say.
struct Listed {
    project: String,
    object: Object,
}

impl List {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let opened = self.location.open(cli).await?;
        let scope = self.scope(&opened).await?;
        let listed = self.find(&opened, scope.as_deref()).await?;
        for key in opened.registry.undecodable() {
            output::warn(&format!("{} cannot be decoded, and is left out", text::clean(&key.to_string())));
        }
        let format = match self.output {
            ListFormat::Json => Format::Json,
            ListFormat::Yaml => Format::Yaml,
            ListFormat::Proto => Format::Proto,
            ListFormat::Table if listed.is_empty() => {
                self.note_empty(&opened, scope.as_deref());
                return Ok(());
            }
            ListFormat::Table => {
                let with_project =
                    self.all_projects || scope.is_none() && project::names(&opened.registry).await?.len() > 1;
                return output::print(self.table(&listed, with_project)?.render("").as_bytes());
            }
        };
        let objects: Vec<Object> = listed.into_iter().map(|listed| listed.object).collect();
        match self.selection {
            Selection::One(_) => output::print_array(&objects, format),
            Selection::Views | Selection::All => output::print_registry(&objects, format),
        }
    }

    /// The one project to list; `None` for all.
    async fn scope(&self, opened: &Opened) -> Result<Option<String>> {
        let configured = opened.project.as_ref().filter(|_| !self.all_projects);
        match self.project.as_ref().or(configured) {
            None => Ok(None),
            // A project is in no project.
            Some(_) if self.project.is_none() && self.selection == Selection::One(Kind::Project) => Ok(None),
            Some(wanted) => project::choose(opened, Some(wanted)).await.map(Some),
        }
    }

    /// Project by project, kind by kind.
    async fn find(&self, opened: &Opened, scope: Option<&str>) -> Result<Vec<Listed>> {
        let filter = ListFilter::all().with_tags(self.tags.iter().cloned().collect::<BTreeMap<_, _>>());
        let projects = match scope {
            Some(project) => vec![project.to_owned()],
            None => project::names(&opened.registry).await?,
        };
        let mut listed = Vec::new();
        for project in projects {
            for kind in self.selection.kinds() {
                let objects = opened.registry.list(kind, Some(&project), &filter, Freshness::Stored).await?;
                listed.extend(objects.into_iter().map(|object| Listed { project: project.clone(), object }));
            }
        }
        Ok(listed)
    }

    fn note_empty(&self, opened: &Opened, scope: Option<&str>) {
        let what = self.selection.plural();
        let tagged = if self.tags.is_empty() { "" } else { " with these tags" };
        let place = match scope {
            Some(project) => format!("project `{}`", text::clean(project)),
            None => opened.registry.location(),
        };
        output::note(&format!("There are no {what}{tagged} in {place}."));
    }

    fn table(&self, listed: &[Listed], with_project: bool) -> Result<Table> {
        let (is_mixed, columns) = match self.selection {
            Selection::One(kind) => (false, columns(kind)),
            Selection::Views | Selection::All => (true, Vec::new()),
        };
        let with_project = with_project && self.selection != Selection::One(Kind::Project);
        let mut titles = vec!["NAME"];
        titles.extend(is_mixed.then_some("KIND"));
        titles.extend(with_project.then_some("PROJECT"));
        titles.extend(columns.iter().map(|(title, _)| *title));
        titles.extend(COMMON.iter().map(|(title, _)| *title));
        let mut table = Table::new(titles);
        for Listed { project, object } in listed {
            let fields = Fields::of(object).with_context(|| format!("project `{}`", text::clean(project)))?;
            let mut cells = vec![text::clean(&object.name()?)];
            cells.extend(is_mixed.then(|| object.kind.label().to_owned()));
            cells.extend(with_project.then(|| text::clean(project)));
            cells.extend(columns.iter().chain(&COMMON).map(|(_, part)| part.words(&fields)));
            table.push(cells);
        }
        Ok(table)
    }
}

/// A part of an object that a column shows.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// A field of the definition.
    Spec(&'static str),
    /// How many there are of a field of the definition.
    Count(&'static str),
    /// A field of what the registry keeps about the object.
    Meta(&'static str),
    /// The version that a view is at.
    Version,
    /// When the object was last changed.
    Updated,
}

type Column = (&'static str, Part);

/// What follows the columns of the kind.
const COMMON: [Column; 4] = [
    ("UPDATED", Part::Updated),
    ("TAGS", Part::Spec("tags")),
    ("DESCRIPTION", Part::Spec("description")),
    ("OWNER", Part::Spec("owner")),
];

/// The columns that only objects of this kind have.
fn columns(kind: Kind) -> Vec<Column> {
    use Part::{Count, Meta, Spec, Version};
    match kind {
        Kind::Project => vec![],
        Kind::Entity => vec![("JOIN KEY", Spec("join_key")), ("TYPE", Spec("value_type"))],
        Kind::DataSource => vec![("TYPE", Spec("type")), ("TIMESTAMP FIELD", Spec("timestamp_field"))],
        Kind::FeatureView | Kind::StreamFeatureView => vec![
            ("ENTITIES", Spec("entities")),
            ("FEATURES", Count("features")),
            ("TTL", Spec("ttl")),
            ("ONLINE", Spec("online")),
            ("STATE", Meta("state")),
            ("VERSION", Version),
        ],
        Kind::OnDemandFeatureView => vec![
            ("SOURCES", Spec("sources")),
            ("FEATURES", Count("features")),
            ("STATE", Meta("state")),
            ("VERSION", Version),
        ],
        Kind::LabelView => {
            vec![("ENTITIES", Spec("entities")), ("LABELS", Count("features")), ("LABELER", Spec("labeler_field"))]
        }
        Kind::FeatureService => vec![("VIEWS", Spec("features"))],
        Kind::SavedDataset => vec![("FEATURES", Count("features")), ("SERVICE", Spec("feature_service_name"))],
        Kind::ValidationReference => vec![("DATASET", Spec("reference_dataset_name"))],
        Kind::Permission => vec![("TYPES", Spec("types")), ("ACTIONS", Spec("actions"))],
        Kind::Infra => vec![("OBJECTS", Count("infra_objects"))],
    }
}

impl Part {
    fn words(self, fields: &Fields) -> String {
        let meta = || fields.meta();
        match self {
            Part::Spec(name) => message::words(&fields.spec(), name),
            Part::Count(name) => count(&fields.spec(), name),
            Part::Meta(name) => meta().map(|meta| message::words(&meta, name)).unwrap_or_default(),
            Part::Version => meta().map(|meta| version(&meta)).unwrap_or_default(),
            Part::Updated => meta().and_then(|meta| updated(&meta)).unwrap_or_default(),
        }
    }
}

fn count(message: &DynamicMessage, field: &str) -> String {
    match message::field(message, field) {
        Some(Value::List(items)) => items.len().to_string(),
        _ => "0".to_owned(),
    }
}

/// The version that a view is at; the first one is number 0, which protobuf does not write.
pub(super) fn version(meta: &DynamicMessage) -> String {
    let number = message::words(meta, "current_version_number");
    format!("v{}", if number.is_empty() { "0" } else { &number })
}

fn updated(meta: &DynamicMessage) -> Option<String> {
    let Some(Value::Message(moment)) = message::field(meta, "last_updated_timestamp") else { return None };
    Some(text::second(&moment.transcode_to::<Timestamp>().ok()?))
}
