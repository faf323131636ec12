//! Databases on the servers of MariaDB and MySQL.

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder};

/// A database of a test's own.
pub(crate) struct Database {
    service: &'static str,
    /// The URL of the database.
    pub(crate) url: String,
    /// Its name.
    pub(crate) name: String,
}

impl Database {
    /// Makes one, as people do who give no thought to collations.
    pub(crate) async fn create(service: &'static str) -> Self {
        let name = super::fresh_name();
        let variable = format!("FEAST_REGISTRY_TEST_{service}_URL");
        super::service(service);
        let text = std::env::var(variable).expect("the URL was there just now");
        let (before, query) = text.split_once('?').map_or((text.as_str(), None), |(url, query)| (url, Some(query)));
        let (scheme, rest) = before.split_once("://").expect("a URL with a scheme");
        let address = rest.split_once('/').map_or(rest, |(address, _)| address);
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let database = Self { service, url: format!("{scheme}://{address}/{name}{query}"), name };
        let name = &database.name;
        let mut conn = database.server().await;
        conn.query_drop(format!("DROP DATABASE IF EXISTS {name}")).await.expect("no database of that name");
        conn.query_drop(format!("CREATE DATABASE {name}")).await.expect("a database");
        database
    }

    /// Removes it.
    pub(crate) async fn remove(&self) {
        self.server().await.query_drop(format!("DROP DATABASE {}", self.name)).await.expect("the database is removed");
    }

    /// Removes all tables of the registry.
    pub(crate) async fn remove_tables(&self) {
        let tables: Vec<&str> = feast_registry_sql::tables().iter().map(|table| table.name).collect();
        self.execute(&[&format!("DROP TABLE {}", tables.join(", "))]).await;
    }

    /// A connection to the server.
    pub(crate) async fn server(&self) -> Conn {
        let url = super::service(self.service);
        let opts = OptsBuilder::default()
            .ip_or_hostname(url.host().unwrap_or("localhost"))
            .tcp_port(url.port().unwrap_or(3306))
            .user(url.username())
            .pass(url.password())
            .prefer_socket(false);
        Conn::new(opts).await.expect("a connection to the server")
    }

    /// A connection to the database.
    pub(crate) async fn connect(&self) -> Conn {
        let mut conn = self.server().await;
        conn.query_drop(format!("USE {}", self.name)).await.expect("the database");
        conn.query_drop("SET NAMES utf8mb4").await.expect("the character set");
        conn
    }

    /// Runs statements in the database.
    pub(crate) async fn execute(&self, statements: &[&str]) {
        let mut conn = self.connect().await;
        for statement in statements {
            conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    /// The rows of a query in the database.
    pub(crate) async fn query<T: FromRow + Send + 'static>(&self, query: &str) -> Vec<T> {
        self.connect().await.query(query).await.unwrap_or_else(|error| panic!("{query}: {error}"))
    }
}

/// Runs a test on a database of its own, if this run has the service.
pub(crate) async fn on(service: &'static str, test: impl AsyncFnOnce(&Database)) {
    if super::without(service).is_none() {
        let database = Database::create(service).await;
        test(&database).await;
        database.remove().await;
    }
}

/// A test on each server that this run has.
#[allow(unused_macros, reason = "each test program uses its part")]
macro_rules! on_each_server {
    ($($test:ident),* $(,)?) => {
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::databases::mysql::on("MARIADB", async |database| super::$test(database).await).await;
            })*
        }
        mod mysql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::databases::mysql::on("MYSQL", async |database| super::$test(database).await).await;
            })*
        }
    };
}
#[allow(unused_imports, reason = "each test program uses its part")]
pub(crate) use on_each_server;
