//! Which servers the tests have, and what their tests share.

#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod mysql;
pub(crate) mod proxy;

use std::env;
use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::process::Command;

use feast_registry_core::config::{PoolConfig, RegistryUrl};

use proxy::Proxy;

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

/// Why this run does without a service, if it does.
pub(crate) fn without(name: &str) -> Option<String> {
    let without = env::var(WITHOUT).unwrap_or_default();
    let is_left_out = without.split(',').any(|left_out| left_out.trim().eq_ignore_ascii_case(name));
    is_left_out.then(|| format!("this run does without {name} ({WITHOUT})"))
}

/// A proxy before the server of a URL, and the URL through it. What else the URL says stays as it is.
pub(crate) async fn through_proxy(url: &str) -> (Proxy, String) {
    let parsed: RegistryUrl = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    let (host, default) = (parsed.host().unwrap_or("127.0.0.1"), if url.starts_with("mysql") { 3306 } else { 5432 });
    let mut addresses = (host, parsed.port().unwrap_or(default)).to_socket_addrs().expect("the address of the server");
    let proxy = Proxy::start(addresses.next().expect("an address")).await;
    let (scheme, rest) = url.split_once("://").expect("a URL with a scheme");
    let (authority, path) = rest.split_once('/').expect("a URL with a database");
    let user = authority.rsplit_once('@').map(|(user, _)| format!("{user}@")).unwrap_or_default();
    let url = format!("{scheme}://{user}127.0.0.1:{}/{path}", proxy.port);
    (proxy, url)
}

/// Few connections: the servers of a test machine have a hundred, and tests have many processes.
pub(crate) fn pool() -> PoolConfig {
    PoolConfig::new(3, 0)
}

/// A name that no other storage has.
pub(crate) fn fresh_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("conformance_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Runs statements on the PostgreSQL server itself.
pub(crate) async fn postgres(statements: &str) {
    let url = env::var("FEAST_REGISTRY_TEST_POSTGRES_URL").expect("the URL was there just now");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("PostgreSQL");
    tokio::spawn(connection);
    client.batch_execute(statements).await.expect(statements);
}

/// The folder of PostgreSQL's programs, for servers of a test's own.
pub(crate) fn postgres_programs() -> PathBuf {
    if let Some(folder) = env::var_os("FEAST_REGISTRY_TEST_POSTGRES_BIN") {
        return folder.into();
    }
    // Debian keeps them out of PATH.
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.retain(|folder| folder.join("initdb").exists());
    versions.sort();
    versions.pop().unwrap_or_else(|| {
        let folder = Command::new("pg_config").arg("--bindir").output().expect("FEAST_REGISTRY_TEST_POSTGRES_BIN");
        String::from_utf8(folder.stdout).expect("a path").trim().into()
    })
}

/// The number of the user that the programs are to run as, if not as the one who runs the tests: PostgreSQL's refuse to
/// run as root, but for those that `cargo xtask test` names.
pub(crate) fn runs_as() -> Option<u32> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().expect("the command `id`");
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().expect("the number of a user")
    };
    (env::var_os("FEAST_REGISTRY_TEST_POSTGRES_BIN").is_none() && id(&["-u"]) == 0).then(|| id(&["-u", "postgres"]))
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("the port").port()
}
