//! Database servers: Feast's server and ours, each on a database of its own; and what an apply costs beside few and many
//! feature views.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use feast_registry::{ApplyOptions, Kind, Object, Registry, RegistryConfig};
use mysql_async::prelude::Queryable;

use crate::cells::{CALLERS, Cells};
use crate::operation::Operation;
use crate::report::{Report, median, number};
use crate::sample::{PROJECT, entity};
use crate::setup::Setup;

/// Cached reads come first, as in any server that is in use: what is held in memory need not be read before it is written.
const OPERATIONS: [Operation; 5] = [
    Operation::GetFeatureView { allow_cache: true },
    Operation::GetFeatureView { allow_cache: false },
    Operation::ApplyFeatureView,
    Operation::ApplyMaterialization,
    Operation::ApplyEntity,
];

/// Feature views that an entity is applied beside.
const SIZES: [usize; 2] = [10, 10_000];

/// Objects in one commit while a registry is filled.
const BATCH: usize = 500;

/// A database server.
struct Server<'a> {
    /// The URL of a database that may be connected to in order to make others.
    url: &'a str,
}

/// A database of our own, without tables yet.
struct Database<'a> {
    server: &'a Server<'a>,
    name: String,
}

pub(crate) async fn measure(setup: &Setup, urls: &[String], report: &mut Report) -> Result<()> {
    if urls.is_empty() {
        bail!("no database is named: give --database URL, as postgresql://user:password@host/database");
    }
    for url in urls {
        let server = Server { url };
        side_by_side(setup, &server, report).await.with_context(|| server.name().to_owned())?;
        growth(setup, &server, report).await.with_context(|| server.name().to_owned())?;
    }
    Ok(())
}

async fn side_by_side(setup: &Setup, server: &Server<'_>, report: &mut Report) -> Result<()> {
    let mut cells = Cells::new(["Feast", "ours"], &OPERATIONS, &CALLERS);
    for round in 0..setup.rounds {
        let databases = [server.create("feast").await?, server.create("ours").await?];
        for database in &databases {
            drop(database.filled(setup, setup.sample.views.len()).await?);
        }
        let servers = setup.start_both_at(&databases[0].feast_url(), &databases[1].url()).await?;
        eprintln!("{}", server.name());
        for index in 0..cells.operations().len() {
            cells.measure(index, round, &servers, setup, report).await;
        }
        for server in servers {
            server.stop().await?;
        }
        for database in databases {
            database.remove().await?;
        }
    }
    cells.report(&format!(" on {}", server.name()), report);
    Ok(())
}

/// The Rust API, one caller, on registries of both sizes in turns.
async fn growth(setup: &Setup, server: &Server<'_>, report: &mut Report) -> Result<()> {
    let mut registries = Vec::new();
    for views in SIZES {
        eprintln!("{}: filling a registry with {views} feature views", server.name());
        let database = server.create(&format!("views_{views}")).await?;
        let registry = database.filled(setup, views).await?;
        registries.push((views, database, registry, Vec::new()));
    }
    let until = Instant::now() + setup.cell * 2 * setup.rounds;
    while Instant::now() < until {
        for (_, _, registry, times) in &mut registries {
            let began = Instant::now();
            registry.apply(PROJECT, entity(setup.sample.serial())).await?;
            times.push(micros(began.elapsed()));
        }
    }
    let mut rows = Vec::new();
    for (views, database, registry, times) in registries {
        drop(registry);
        let calls = times.len();
        let time = median(times).map(number).unwrap_or_default();
        eprintln!("{}: an apply beside {views} feature views takes {time} µs", server.name());
        rows.push(vec![format!("{views} feature views"), time, calls.to_string()]);
        database.remove().await?;
    }
    report.heading(&format!("One entity applied through the Rust API on {} (1 caller)", server.name()));
    report.table(&["beside", "median, µs", "calls"], &rows);
    Ok(())
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

impl<'a> Server<'a> {
    fn is_postgres(&self) -> bool {
        self.url.starts_with("postgresql")
    }

    fn name(&self) -> &'static str {
        if self.is_postgres() { "PostgreSQL" } else { "MySQL/MariaDB" }
    }

    async fn create(&'a self, purpose: &str) -> Result<Database<'a>> {
        let name = format!("feast_registry_benchmark_{}_{purpose}", std::process::id());
        self.execute(&format!("CREATE DATABASE {name}")).await?;
        Ok(Database { server: self, name })
    }

    async fn execute(&self, statement: &str) -> Result<()> {
        if self.is_postgres() {
            let (client, connection) = tokio_postgres::connect(self.url, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            return Ok(client.batch_execute(statement).await?);
        }
        let mut connection = mysql_async::Conn::from_url(self.url).await?;
        connection.query_drop(statement).await?;
        Ok(connection.disconnect().await?)
    }
}

impl Database<'_> {
    /// The server's URL with this database in place of its own.
    fn url(&self) -> String {
        let (address, options) = self.server.url.split_once('?').unwrap_or((self.server.url, ""));
        let (address, _) = address.rsplit_once('/').unwrap_or((address, ""));
        let link = if options.is_empty() { "" } else { "?" };
        format!("{address}/{}{link}{options}", self.name)
    }

    /// The same, with the driver that Feast needs.
    fn feast_url(&self) -> String {
        let (_, rest) =
            self.url().split_once("://").map(|(scheme, rest)| (scheme.to_owned(), rest.to_owned())).unwrap_or_default();
        format!("{}://{rest}", if self.server.is_postgres() { "postgresql+psycopg" } else { "mysql+pymysql" })
    }

    /// A registry in this database, with so many of the sample's feature views, over and over by other names.
    async fn filled(&self, setup: &Setup, views: usize) -> Result<Registry> {
        let registry = feast_registry::open(&RegistryConfig::new(self.url().parse()?)).await?;
        let sample = &setup.sample.views;
        let all: Vec<Object> = (0..views)
            .map(|number| match sample.get(number) {
                Some(view) => view.named(view.name.clone()),
                None => sample[number % sample.len()].named(format!("benchmark_view_{number:05}")),
            })
            .map(|view| Object::new(Kind::FeatureView, view.as_bytes().clone()))
            .collect();
        for batch in all.chunks(BATCH) {
            registry.apply_all(PROJECT, batch.to_vec(), ApplyOptions::default()).await?;
        }
        Ok(registry)
    }

    async fn remove(self) -> Result<()> {
        let force = if self.server.is_postgres() { " WITH (FORCE)" } else { "" };
        self.server.execute(&format!("DROP DATABASE {}{force}", self.name)).await
    }
}
