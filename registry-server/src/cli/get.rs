//! `feast-registry get`, and finding the one object that a command is about.

use anyhow::Result;
use clap::Args;
use clap::error::ErrorKind;
use feast_registry::{ErrorKind as RegistryErrorKind, Freshness, Kind, Object};

use super::location::{Location, Opened};
use super::output::{self, Format};
use super::selection::{self, Selection};
use super::{Cli, missing, project};

/// Print one object as it is stored.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry get feature-view driver_stats
  feast-registry get view driver_stats -o json | jq .meta.materializationIntervals
  feast-registry get data-source trips --project rides -o proto > trips.pb

YAML and JSON are protobuf's JSON form, as Feast prints it. `-o proto` is the message itself, byte for byte.")]
pub(crate) struct Get {
    #[command(flatten)]
    which: Which,

    /// The output format.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    output: Format,

    #[command(flatten)]
    location: Location,
}

impl Get {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        self.which.require_name(cli);
        let opened = self.location.open(cli).await?;
        output::print_object(&self.which.find(&opened).await?.object, self.output)
    }
}

/// Which object a command is about.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The kind of object; `view` is a view of any of the four kinds.
    #[arg(value_name = "KIND", ignore_case = true, value_parser = selection::of_one())]
    selection: Selection,

    /// Its name; may be left out for `project` and `infra`.
    name: Option<String>,

    /// The project that it is in. Default: the one that the feature_store.yaml is for, or the only one there is.
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,
}

/// An object, and the project that it is stored in.
pub(super) struct Found {
    pub(super) project: String,
    pub(super) object: Object,
}

impl Which {
    /// Ends with clap's usage error when the name is missing.
    pub(super) fn require_name(&self, cli: &Cli) {
        if self.name.is_none() && !matches!(self.selection, Selection::One(Kind::Project | Kind::Infra)) {
            let missing = "the NAME of the object is missing; only `project` and `infra` may do without one";
            cli.refuse(ErrorKind::MissingRequiredArgument, missing);
        }
    }

    /// The kinds that it may be of.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.selection.kinds()
    }

    /// The name and the project that were asked for, of an object that need not be there any more.
    pub(super) fn asked(&self) -> (Option<&str>, Option<&str>) {
        (self.name.as_deref(), self.project.as_deref())
    }

    /// Its kind, its project and its name, whether it is there or not. A view that is in none of the four kinds is a feature view.
    pub(super) async fn named(&self, opened: &Opened) -> Result<(Kind, String, String)> {
        let (selection, name) = (self.selection, self.name.as_deref().unwrap_or_default());
        let of_project = self.name.as_deref().filter(|_| selection == Selection::One(Kind::Project));
        // One that is not there may be made.
        let project = match of_project.or(self.project.as_deref()) {
            Some(project) => project.to_owned(),
            None => self.choose_project(opened).await?,
        };
        let kind = match selection {
            Selection::One(Kind::Project) => return Ok((Kind::Project, project.clone(), project)),
            Selection::One(kind) => kind,
            Selection::Views | Selection::All => {
                match opened.registry.get_any_view(&project, name, Freshness::Stored).await {
                    Ok(view) => view.kind,
                    Err(error) if error.kind() == RegistryErrorKind::ViewNotFound => Kind::FeatureView,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        Ok((kind, project, name.to_owned()))
    }

    /// Finds it.
    pub(super) async fn find(&self, opened: &Opened) -> Result<Found> {
        match (self.selection, self.name.as_deref()) {
            (Selection::One(Kind::Project), name) => {
                let project = project::choose(opened, name.or(self.project.as_deref())).await?;
                let object = opened.registry.get(Kind::Project, &project, &project, Freshness::Stored).await?;
                Ok(Found { project, object })
            }
            (Selection::One(Kind::Infra), None) => {
                let project = self.choose_project(opened).await?;
                let object = opened.registry.get_infra(&project, Freshness::Stored).await?;
                Ok(Found { project, object })
            }
            (_, name) => self.find_named(opened, name.unwrap_or_default()).await,
        }
    }

    async fn find_named(&self, opened: &Opened, name: &str) -> Result<Found> {
        let project = self.choose_project(opened).await?;
        let registry = &opened.registry;
        let object = match self.selection {
            Selection::One(kind) => registry.get(kind, &project, name, Freshness::Stored).await,
            Selection::Views | Selection::All => registry.get_any_view(&project, name, Freshness::Stored).await,
        };
        match object {
            Ok(object) => Ok(Found { project, object }),
            Err(error) => Err(missing::explain(error, registry, &project, &self.selection.kinds(), name).await),
        }
    }

    async fn choose_project(&self, opened: &Opened) -> Result<String> {
        project::choose(opened, self.project.as_deref()).await
    }
}
