//! The database servers that backends are tested against: found or started before anything that takes long, said, and
//! handed to the tests as environment variables.
//!
//! Each comes from the first of these that has it: a URL in the environment; a server that runs on its usual port; docker
//! compose, where an engine answers; Debian's packages, unpacked below target/. Where the environment names an image, it is
//! docker compose that runs it, or nothing.
//!
//! So are programs that tests start by themselves: servers of their own, and a browser.

mod chromium;
mod compose;
mod debian;
mod find;
mod mysql;
mod mysql_wire;
mod pgbouncer;
mod postgres;
mod postgres_wire;
mod process;
mod prometheus;
mod url;

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;

use crate::Project;
use process::Running;
use url::Url;

/// Names, in one variable, the services that this run does without: tests of those say that they were left out.
const WITHOUT: &str = "FEAST_REGISTRY_TEST_WITHOUT";

/// A database server that tests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    Postgres,
    Mariadb,
    Mysql,
    Pgbouncer,
}

impl Service {
    /// As its makers write it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Mariadb => "MariaDB",
            Self::Mysql => "MySQL 9",
            Self::Pgbouncer => "PgBouncer",
        }
    }

    /// As it is named on the command line, in `FEAST_REGISTRY_TEST_WITHOUT` and in compose.yaml.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mariadb => "mariadb",
            Self::Mysql => "mysql",
            Self::Pgbouncer => "pgbouncer",
        }
    }

    /// The environment variable with its URL.
    fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "FEAST_REGISTRY_TEST_POSTGRES_URL",
            Self::Mariadb => "FEAST_REGISTRY_TEST_MARIADB_URL",
            Self::Mysql => "FEAST_REGISTRY_TEST_MYSQL_URL",
            Self::Pgbouncer => "FEAST_REGISTRY_TEST_PGBOUNCER_URL",
        }
    }

    /// The environment variable with the image that compose.yaml runs in place of its own: another version of the server.
    fn image_variable(self) -> Option<&'static str> {
        match self {
            Self::Postgres => Some("FEAST_REGISTRY_TEST_POSTGRES_IMAGE"),
            Self::Mariadb => Some("FEAST_REGISTRY_TEST_MARIADB_IMAGE"),
            Self::Mysql => Some("FEAST_REGISTRY_TEST_MYSQL_IMAGE"),
            Self::Pgbouncer => None,
        }
    }

    /// The oldest major version that is taken as it is found.
    fn oldest(self) -> u32 {
        if self == Self::Mysql { 9 } else { 0 }
    }

    /// Where it listens unless told otherwise.
    fn usual_port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::Mariadb | Self::Mysql => 3306,
            Self::Pgbouncer => 6432,
        }
    }
}

/// Which services a run has.
#[derive(Clone, Copy)]
pub(crate) enum Choice<'a> {
    /// All but those that somebody leaves out.
    AllBut(&'a [Service]),
    /// One.
    Only(Service),
}

impl Choice<'_> {
    fn has(self, service: Service) -> bool {
        match self {
            Self::AllBut(without) => !without.contains(&service),
            Self::Only(only) => only == service,
        }
    }
}

/// What the environment says about a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Nothing,
    Url,
    Image,
}

impl Named {
    fn of(service: Service) -> Self {
        let is_set = |variable: &str| env::var_os(variable).is_some_and(|value| !value.is_empty());
        match service.image_variable() {
            _ if is_set(service.variable()) => Self::Url,
            Some(variable) if is_set(variable) => Self::Image,
            _ => Self::Nothing,
        }
    }
}

/// Where a service can come from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Environment,
    Running,
    Compose,
    Debian,
}

impl Source {
    /// What to try for a service, in order. A URL or an image that somebody set is used or fails: anything else would be a
    /// surprise.
    fn order(service: Service, named: Named) -> &'static [Self] {
        match (named, service) {
            (Named::Url, _) => &[Self::Environment],
            (Named::Image, _) => &[Self::Compose],
            // One that already runs may pool in another mode, and before another server.
            (Named::Nothing, Service::Pgbouncer) => &[Self::Debian],
            (Named::Nothing, _) => &[Self::Running, Self::Compose, Self::Debian],
        }
    }

    /// The first that has it; an error says why none does.
    fn first<T>(order: &[Self], mut from: impl FnMut(Self) -> Result<T>) -> Result<T> {
        let mut reasons = Vec::new();
        for source in order {
            match from(*source) {
                Ok(found) => return Ok(found),
                Err(error) => reasons.push(format!("{error:#}")),
            }
        }
        bail!("{}", reasons.join("; "))
    }
}

/// A service that can be used.
struct Found {
    version: String,
    /// How it came to be there.
    how: String,
    /// `None`: the environment has it already, and keeps it as it is.
    url: Option<Url>,
    address: String,
    running: Option<Running>,
}

/// The browser that tests start.
const CHROMIUM: &str = "FEAST_REGISTRY_TEST_CHROMIUM";

/// A program that could not be had.
struct Lacking {
    /// As its makers write it.
    label: &'static str,
    /// As it is named in `FEAST_REGISTRY_TEST_WITHOUT`.
    name: &'static str,
    reason: String,
}

/// What is settled for a run. Servers that were started for it stop when this is dropped.
pub(crate) struct Services {
    /// What is used, in words.
    pub(crate) uses: Vec<String>,
    /// What could not be had, and why.
    pub(crate) missing: Vec<(Service, String)>,
    /// The programs that could not be had and that tests do without.
    lacking: Vec<Lacking>,
    /// What was not chosen.
    without: Vec<Service>,
    environment: Vec<(&'static str, OsString)>,
    running: Vec<Running>,
}

impl Services {
    pub(crate) fn settle(project: &Project, choice: Choice) -> Result<Self> {
        let left_out = |service: &&Service| !choice.has(**service);
        let without: Vec<Service> = Service::value_variants().iter().filter(left_out).copied().collect();
        let is_refused = project.ci && matches!(choice, Choice::AllBut(_)) && !without.is_empty();
        ensure!(!is_refused, "with CI=true nothing may be left out: run without --without");
        let folder = Folder::new(project.root.join("target/services"))?;
        let mut services = Self {
            uses: Vec::new(),
            missing: Vec::new(),
            lacking: Vec::new(),
            without,
            environment: Vec::new(),
            running: Vec::new(),
        };
        let mut postgres = None;
        for service in Service::value_variants() {
            if !choice.has(*service) {
                if let Choice::AllBut(_) = choice {
                    services.uses.push(format!("no {} (--without {})", service.label(), service.name()));
                }
                continue;
            }
            match services.find(project, &folder, *service, postgres.as_ref()) {
                Ok(Found { version, how, url, address, running }) => {
                    let name = service.label().trim_end_matches(" 9");
                    services.uses.push(format!("{name} {version} at {address} ({how})").replace("  ", " "));
                    services.running.extend(running);
                    if let Some(url) = url {
                        services.environment.push((service.variable(), url.text().into()));
                        if *service == Service::Postgres {
                            postgres = Some(url);
                        }
                    } else if *service == Service::Postgres {
                        postgres = Some(find::named(*service)?);
                    }
                }
                Err(error) => {
                    let reason = format!("{error:#}; start one and name it with {}", service.variable());
                    services.uses.push(format!("NO {}: {reason}", service.label()));
                    services.missing.push((*service, reason));
                }
            }
        }
        services.programs(&folder, choice);
        Ok(services)
    }

    fn find(&self, project: &Project, folder: &Folder, service: Service, postgres: Option<&Url>) -> Result<Found> {
        Source::first(Source::order(service, Named::of(service)), |source| match source {
            Source::Environment => find::in_environment(service),
            Source::Running => find::running(service),
            Source::Compose => compose::start(project, folder, service),
            Source::Debian => match service {
                Service::Postgres => postgres::start(folder),
                Service::Mariadb => mysql::start(folder, &mysql::mariadb(folder)?),
                Service::Mysql => mysql::start(folder, &mysql::mysql(folder)?),
                Service::Pgbouncer => {
                    let behind = postgres.context("there is no PostgreSQL to put it before")?;
                    pgbouncer::start(folder, behind)
                }
            },
        })
    }

    /// Programs that tests start by themselves, to stop and start them, or to look at what they show: those of the system, else
    /// those of Debian's packages.
    fn programs(&mut self, folder: &Folder, choice: Choice) {
        type Look = fn(&Folder) -> Result<PathBuf>;
        let programs: [(_, _, Look); 5] = [
            (CHROMIUM, None, chromium::program),
            ("FEAST_REGISTRY_TEST_PROMETHEUS_BIN", None, prometheus::programs),
            ("FEAST_REGISTRY_TEST_POSTGRES_BIN", Some(Service::Postgres), postgres::programs),
            ("FEAST_REGISTRY_TEST_MARIADBD", Some(Service::Mariadb), |folder| Ok(mysql::mariadb(folder)?.script)),
            ("FEAST_REGISTRY_TEST_MYSQLD", Some(Service::Mysql), |folder| Ok(mysql::mysql(folder)?.script)),
        ];
        for (variable, service, look) in programs {
            let unwanted = service.is_some_and(|service| {
                !choice.has(service) || self.missing.iter().any(|(missing, _)| *missing == service)
            });
            // Only those of PostgreSQL are for other tests than the interop tests, which a run of one backend does not have.
            let needless = matches!(choice, Choice::Only(_)) && service != Some(Service::Postgres);
            if unwanted || needless || env::var_os(variable).is_some() {
                continue;
            }
            match look(folder) {
                Ok(path) => self.environment.push((variable, path.into())),
                Err(error) if variable == CHROMIUM => {
                    let reason = format!("{error:#}; install one and name it with {variable}");
                    self.uses.push(format!("NO Chromium: {reason}"));
                    self.lacking.push(Lacking { label: "Chromium", name: "chromium", reason });
                }
                Err(error) => {
                    let label = service.map_or("Prometheus", Service::label);
                    self.uses.push(format!("no programs for a {label} of one's own: {error:#}"));
                }
            }
        }
    }

    /// Hands all of it to a command.
    pub(crate) fn give_to(&self, command: &mut Command) {
        command.envs(self.environment.iter().map(|(variable, value)| (variable, value)));
        match self.absent() {
            absent if absent.is_empty() => command.env_remove(WITHOUT),
            absent => command.env(WITHOUT, absent),
        };
    }

    /// Everything that could not be had, as its makers write it, and why.
    pub(crate) fn not_there(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let services = self.missing.iter().map(|(service, reason)| (service.label(), reason.as_str()));
        services.chain(self.lacking.iter().map(|program| (program.label, program.reason.as_str())))
    }

    /// The names of what tests do without.
    fn absent(&self) -> String {
        let missing = self.missing.iter().map(|(service, _)| service);
        let services = self.without.iter().chain(missing).map(|service| service.name());
        let names: Vec<_> = services.chain(self.lacking.iter().map(|program| program.name)).collect();
        names.join(",")
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // What stands before another goes first.
        while let Some(last) = self.running.pop() {
            drop(last);
        }
    }
}

/// `cargo xtask services`: settles them, says what the tests would get, and keeps them until it is interrupted.
pub(crate) fn keep(project: &Project, without: &[Service]) -> Result<()> {
    let services = Services::settle(project, Choice::AllBut(without))?;
    println!("services:\n  {}", services.uses.join("\n  "));
    println!("the tests get:");
    for (variable, value) in &services.environment {
        println!("  {variable}={}", value.to_string_lossy());
    }
    if !services.absent().is_empty() {
        println!("  {WITHOUT}={}", services.absent());
    }
    if let (true, Some((label, reason))) = (project.ci, services.not_there().next()) {
        return Err(anyhow!("there is no {label}: {reason}"));
    }
    println!("Ctrl-C stops what was started");
    loop {
        thread::park();
    }
}

/// Where servers are unpacked and run.
struct Folder {
    path: PathBuf,
    /// For this run alone.
    run: PathBuf,
    /// Held while servers are unpacked and started, so that two runs do not get into each other's way.
    _lock: File,
}

impl Folder {
    fn new(path: PathBuf) -> Result<Self> {
        let run = path.join("run").join(std::process::id().to_string());
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let lock = File::create(path.join("lock"))?;
        lock.lock().context("cannot lock target/services")?;
        Ok(Self { path, run, _lock: lock })
    }

    /// A new folder for a server, which its keeper removes.
    fn of_run(&self, name: &str) -> Result<PathBuf> {
        let folder = self.run.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    /// Where a server's log goes; it stays until the next run.
    fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }
}

/// Whether servers that refuse to run as root would.
fn is_root() -> bool {
    crate::steps::read(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}

/// Writes a script that can be run.
fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(())
}

/// A command as a line of a shell script, its variables before it.
fn shell_line(command: &Command) -> String {
    let quote = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"));
    let mut words = vec!["env".to_owned()];
    for (name, value) in command.get_envs() {
        words.push(format!("{}={}", name.to_string_lossy(), quote(value.unwrap_or_default())));
    }
    words.extend([command.get_program()].into_iter().chain(command.get_args()).map(quote));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_in_the_environment_is_used_or_fails() {
        for service in Service::value_variants() {
            assert_eq!(Source::order(*service, Named::Url), [Source::Environment]);
        }
    }

    #[test]
    fn an_image_in_the_environment_is_used_or_fails() {
        assert_eq!(Source::order(Service::Mysql, Named::Image), [Source::Compose]);
    }

    /// compose.yaml must let the variables choose: it would run its own version otherwise, and say nothing.
    #[test]
    fn the_variables_of_images_are_those_of_compose() {
        let compose = fs::read_to_string(Project::here().root.join("compose.yaml")).unwrap();
        for variable in Service::value_variants().iter().filter_map(|service| service.image_variable()) {
            assert!(compose.contains(&format!("image: ${{{variable}:-")), "{variable}");
        }
    }

    #[test]
    fn a_run_of_one_backend_has_one_service() {
        let has = |choice: Choice| Service::value_variants().iter().filter(|service| choice.has(**service)).count();
        assert_eq!(has(Choice::Only(Service::Mariadb)), 1);
        assert_eq!(has(Choice::AllBut(&[Service::Mariadb])), Service::value_variants().len() - 1);
    }

    #[test]
    fn the_first_source_that_has_it_is_taken() {
        let order = Source::order(Service::Mysql, Named::Nothing);
        assert_eq!(order, [Source::Running, Source::Compose, Source::Debian]);
        let mut tried = Vec::new();
        let found = Source::first(order, |source| {
            tried.push(source);
            if source == Source::Compose { Ok(source) } else { Err(anyhow!("no {source:?}")) }
        });
        assert_eq!(found.unwrap(), Source::Compose);
        assert_eq!(tried, [Source::Running, Source::Compose]);
    }

    #[test]
    fn when_none_has_it_all_reasons_are_told() {
        let none = Source::first(&[Source::Running, Source::Debian], |source| Err::<(), _>(anyhow!("no {source:?}")));
        assert_eq!(none.unwrap_err().to_string(), "no Running; no Debian");
    }

    #[test]
    fn a_command_becomes_a_line_that_a_shell_reads_back() {
        let mut command = Command::new("printf");
        command.args(["%s", "it's $HOME"]).env("A", "b c");
        let line = shell_line(&command);
        let said = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(said.stdout, b"it's $HOME");
    }
}
