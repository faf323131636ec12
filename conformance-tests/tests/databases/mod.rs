//! Which servers the tests have, and what their tests share.

#![allow(dead_code, reason = "each test program uses its part")]

use std::env;

use conformance_tests::Exception;
use registry_core::config::{PoolConfig, RegistryUrl};

/// Where a worker finds the storage.
pub(crate) const STORAGE: &str = "CONFORMANCE_STORAGE";

/// Services that this run does without, by name and with commas between. It is said, and never so in CI.
const WITHOUT: &str = "FEAST_REGISTRY_TEST_WITHOUT";

/// The URL of a service: `POSTGRES`, `MARIADB`, … `cargo xtask test` sets these variables.
pub(crate) fn service(name: &str) -> RegistryUrl {
    let variable = format!("FEAST_REGISTRY_TEST_{name}_URL");
    let url = env::var(&variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `cargo xtask test`, or name a server whose user may create databases")
    });
    url.parse().unwrap_or_else(|error| panic!("{variable}: {error}"))
}

/// Excepts the whole suite if this run does without a service.
pub(crate) fn exceptions(name: &str) -> Vec<Exception> {
    let without = env::var(WITHOUT).unwrap_or_default();
    if !without.split(',').any(|left_out| left_out.trim().eq_ignore_ascii_case(name)) {
        return Vec::new();
    }
    let reason = format!("this run does without {name} ({WITHOUT})");
    let mut themes: Vec<&str> = conformance_tests::tests()
        .iter()
        .filter_map(|test| test.name.split_once("::"))
        .map(|(theme, _)| theme)
        .collect();
    themes.dedup();
    themes.into_iter().map(|theme| Exception::new(theme, reason.clone())).collect()
}

/// Few connections: the servers of a test machine have a hundred, and tests have many processes.
pub(crate) fn pool() -> PoolConfig {
    PoolConfig { size: 3, max_overflow: 0, ..PoolConfig::default() }
}

/// A name that no other storage has.
pub(crate) fn fresh_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("conformance_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Runs statements on the PostgreSQL server itself.
pub(crate) async fn postgres(statements: &str) {
    let url = service("POSTGRES");
    let mut config = tokio_postgres::Config::new();
    config.host(url.host().unwrap_or("localhost")).user(url.username().unwrap_or("postgres"));
    config.port(url.port().unwrap_or(5432)).dbname(url.database().unwrap_or("postgres"));
    config.password(url.password().unwrap_or_default());
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("a connection to PostgreSQL");
    tokio::spawn(connection);
    client.batch_execute(statements).await.expect(statements);
}
