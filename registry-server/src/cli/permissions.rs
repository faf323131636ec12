//! `feast-registry permissions`.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use feast_registry::Kind;
use feast_registry::access::{Access, Action, Explanation, Identity};

use super::get::Which;
use super::location::Location;
use super::output::{self, Table};
use super::security::RuleArgs;
use super::{Cli, text};

/// Find out who may do what.
#[derive(Debug, Args)]
pub(crate) struct Permissions {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
}

/// Say whether somebody may do something with an object, and why.
///
/// The first line says it; below stands what each permission of the project has to do with it. The exit code is 0 if they may, and 3 if
/// they may not. Nobody is asked whether USER is known anywhere: roles, groups and namespaces are what is said here.
///
/// Servers decide in the same way, by the block `registry_server` of the same feature_store.yaml. To apply over an object that is there
/// takes DESCRIBE and UPDATE, to apply a new one CREATE; docs/security.md has the rest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  feast-registry permissions check --as bob --roles reader,tester describe feature-view driver_stats
  feast-registry permissions check --as ci --groups deploy delete project rides -c feature_store.yaml
  feast-registry permissions check --as bob create entity new_one --default deny")]
struct Check {
    /// Who is to do it.
    #[arg(long = "as", value_name = "USER")]
    user: String,

    /// The roles that they have, with commas between them.
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<String>,

    /// The groups that they are in, with commas between them.
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    groups: Vec<String>,

    /// The Kubernetes namespaces that they are in, with commas between them.
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    namespaces: Vec<String>,

    /// What is to be done.
    #[arg(value_name = "ACTION", ignore_case = true, value_parser = action())]
    action: Action,

    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    location: Location,

    #[command(flatten)]
    rules: RuleArgs,
}

impl Permissions {
    pub(super) async fn run(self, cli: &Cli) -> Result<ExitCode> {
        match self.command {
            Command::Check(check) => check.run(cli).await,
        }
    }
}

/// What a command ends with when the answer is no. 1 is an error.
const NO: u8 = 3;

impl Check {
    async fn run(self, cli: &Cli) -> Result<ExitCode> {
        self.which.require_name(cli);
        let rules = self.rules.of(&self.location.read(cli, |_| ())?.server)?;
        let identity =
            Identity::new(self.user).with_roles(self.roles).with_groups(self.groups).with_namespaces(self.namespaces);
        let access = Access::new(Arc::new(identity), Arc::new(rules));
        let opened = self.location.open(cli).await?;
        let (kind, project, name) = self.which.named(&opened).await?;
        let explained = opened.registry.explain(&access, self.action, (kind, &project, &name)).await?;
        output::print(page(&explained, kind).as_bytes())?;
        Ok(if explained.decision.is_allowed { ExitCode::SUCCESS } else { ExitCode::from(NO) })
    }
}

fn page(explained: &Explanation, kind: Kind) -> String {
    let answer = if explained.decision.is_allowed { "yes" } else { "no" };
    let mut page = format!("{answer}: {}\n", explained.decision.reason);
    if kind == Kind::Infra {
        page += "(infrastructure is judged as its project)\n";
    }
    let mut table = Table::new(["PERMISSION", "GRANTS IT", "WHY NOT"]);
    for weighed in &explained.weighed {
        let lacks: Vec<String> = weighed.lacks.iter().map(|lack| text::clean(&lack.to_string())).collect();
        let grants = if lacks.is_empty() { "yes" } else { "no" };
        table.push([text::clean(&weighed.permission), grants.to_owned(), lacks.join("; ")]);
    }
    if !table.is_empty() {
        page += "\n";
        page += &table.render("");
    }
    page
}

/// Reads an ACTION, as `write-online` or as Feast's `WRITE_ONLINE`.
fn action() -> impl TypedValueParser<Value = Action> {
    let value = |action: Action| PossibleValue::new(spelling(action)).alias(action.name());
    PossibleValuesParser::new(Action::ALL.map(value)).try_map(|text| text.replace('-', "_").parse::<Action>())
}

fn spelling(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Describe => "describe",
        Action::Update => "update",
        Action::Delete => "delete",
        Action::ReadOnline => "read-online",
        Action::ReadOffline => "read-offline",
        Action::WriteOnline => "write-online",
        Action::WriteOffline => "write-offline",
    }
}
