//! Servers that are there already.

use std::env;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::url::Url;
use super::{Found, Service, mysql_wire, postgres_wire};

/// The URL that the environment names.
pub(super) fn named(service: Service) -> Result<Url> {
    let variable = service.variable();
    let text = env::var(variable).with_context(|| format!("{variable} is not text"))?;
    Url::parse(&text, service.usual_port()).with_context(|| format!("{variable} is no URL"))
}

/// What the environment names is used as it is; only a server that is not there is told early.
pub(super) fn in_environment(service: Service) -> Result<Found> {
    let variable = service.variable();
    let url = named(service)?;
    let address = url.address();
    mysql_wire::connect(&address).with_context(|| format!("{variable} is set"))?;
    let version = match service {
        Service::Postgres | Service::Pgbouncer if url.password.is_empty() => {
            postgres_wire::Connection::open(&address, &url.user, &url.database).map(|connection| connection.version)
        }
        Service::Postgres | Service::Pgbouncer => Err(anyhow!("a password is needed to ask for it")),
        Service::Mariadb | Service::Mysql => {
            mysql_wire::Connection::open(&address).map(|connection| connection.greeting.version)
        }
    };
    // The version is a courtesy; tests may well get in where we do not.
    let version = version.unwrap_or_default();
    Ok(Found { version, how: format!("as {variable} says"), url: None, address, running: None })
}

/// A server on its usual port.
pub(super) fn running(service: Service) -> Result<Found> {
    from(service, service.usual_port(), service.oldest(), "already running")
}

/// A server on a port of this machine, that lets somebody who may make databases in without a password.
pub(super) fn on_port(service: Service, port: u16, how: &str) -> Result<Found> {
    from(service, port, 0, how)
}

/// The same, if its major version is not too old.
fn from(service: Service, port: u16, oldest: u32, how: &str) -> Result<Found> {
    let address = format!("127.0.0.1:{port}");
    let (version, url) = match service {
        Service::Postgres => postgres(&address, port)?,
        Service::Mariadb | Service::Mysql => mysql(service, &address, port, oldest)?,
        Service::Pgbouncer => bail!("PgBouncer is never taken as it is found"),
    };
    Ok(Found { version, how: how.to_owned(), url: Some(url), address, running: None })
}

fn postgres(address: &str, port: u16) -> Result<(String, Url)> {
    let mut users = vec!["postgres".to_owned()];
    users.extend(env::var("USER").ok());
    let mut failure = None;
    for user in users {
        match postgres_of(address, &user) {
            Ok(version) => return Ok((version, Url::local("postgresql", &user, port, "postgres"))),
            // The first user's is the one that tells most.
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| anyhow!("no user to try")))
}

fn postgres_of(address: &str, user: &str) -> Result<String> {
    let mut connection = postgres_wire::Connection::open(address, user, "postgres")?;
    let may = connection.query("SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user")?;
    ensure!(may.as_deref() == Some("t"), "PostgreSQL at {address} does not let {user} make databases");
    Ok(connection.version)
}

fn mysql(service: Service, address: &str, port: u16, oldest: u32) -> Result<(String, Url)> {
    let mut connection = mysql_wire::Connection::open(address)?;
    let greeting = &connection.greeting;
    let version = greeting.version.clone();
    let is = if greeting.mariadb { "MariaDB" } else { "MySQL" };
    let wanted = (service == Service::Mariadb) == greeting.mariadb && greeting.major() >= oldest;
    ensure!(wanted, "at {address} is {is} {version}");
    connection
        .log_in("root")
        .and_then(|()| connection.execute("CREATE DATABASE IF NOT EXISTS test"))
        .with_context(|| format!("{is} at {address} does not let root in with an empty password to make databases"))?;
    Ok((version, Url::local("mysql", "root", port, "test")))
}
