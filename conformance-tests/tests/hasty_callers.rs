//! Callers who give up before the database can answer: they cost it no connections, and patient callers little time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use feast_registry_core::config::SchemaMode;
use feast_registry_core::{Backend, Deadline, ErrorKind, Key, Kind, Query};
use feast_registry_mysql::MySqlBackend;
use feast_registry_postgres::PostgresBackend;

#[path = "databases/mod.rs"]
mod databases;

use databases::proxy::Proxy;

/// An answer takes this much longer than the server needs, and a hasty caller waits for half of it.
const DELAY: Duration = Duration::from_millis(20);
const HASTY: usize = 16;
/// How many reads the patient caller has answered meanwhile.
const PATIENT_READS: usize = 20;

fn queries() -> [Query; 1] {
    [Query::Keys(vec![Key::object(Kind::Entity, "rides", "driver")])]
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// `backend` is through the proxy, and its pool is not larger than that of [`databases::pool`].
async fn run(backend: Arc<dyn Backend>, proxy: &Proxy) {
    backend.prepare(&soon()).await.expect("tables");
    let before = proxy.connections();
    proxy.delay_answers(DELAY);
    let (is_over, gave_up) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let hasty = |number: usize| {
        let (backend, is_over, gave_up) = (Arc::clone(&backend), Arc::clone(&is_over), Arc::clone(&gave_up));
        async move {
            while !is_over.load(Ordering::SeqCst) {
                // One half has deadlines, the other half just leaves.
                if number.is_multiple_of(2) {
                    let error = backend.read(&queries(), &Deadline::after(DELAY / 2)).await.expect_err("no time");
                    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
                } else {
                    let left = tokio::time::timeout(DELAY / 2, backend.read(&queries(), &soon())).await;
                    assert!(left.is_err(), "{left:?}");
                }
                gave_up.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let hasty: Vec<_> = (0..HASTY).map(|number| tokio::spawn(hasty(number))).collect();
    for _ in 0..PATIENT_READS {
        backend.read(&queries(), &soon()).await.expect("an answer for who waits");
    }
    is_over.store(true, Ordering::SeqCst);
    for caller in hasty {
        caller.await.expect("a caller who gives up");
    }
    proxy.delay_answers(Duration::ZERO);
    let (gave_up, made) = (gave_up.load(Ordering::SeqCst), proxy.connections() - before);
    assert!(gave_up > 2 * HASTY, "only {gave_up} calls were given up");
    assert!(made <= databases::pool().size as usize, "{made} connections were made for {gave_up} calls");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres() {
    if databases::without("POSTGRES").is_some() {
        return;
    }
    let schema = databases::fresh_name();
    databases::postgres(&format!("CREATE SCHEMA {schema}")).await;
    let url = std::env::var("FEAST_REGISTRY_TEST_POSTGRES_URL").expect("cargo xtask test sets it");
    let (proxy, url) = databases::through_proxy(&url).await;
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{separator}options=-csearch_path%3D{schema}");
    let url = url.parse().expect("a URL");
    let backend = PostgresBackend::new(&url, &databases::pool(), SchemaMode::Auto).expect("a backend");
    run(Arc::new(backend), &proxy).await;
    databases::postgres(&format!("DROP SCHEMA {schema} CASCADE")).await;
}

async fn on_mysql(service: &'static str) {
    if databases::without(service).is_some() {
        return;
    }
    let database = databases::mysql::Database::create(service).await;
    let (proxy, url) = databases::through_proxy(&database.url).await;
    // Where the server has no TLS, each connection would be two: one to find that out.
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{separator}ssl_disabled=true");
    let url = url.parse().expect("a URL");
    let backend = MySqlBackend::new(&url, &databases::pool(), SchemaMode::Auto).expect("a backend");
    run(Arc::new(backend), &proxy).await;
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mariadb() {
    on_mysql("MARIADB").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mysql() {
    on_mysql("MYSQL").await;
}
