//! Databases whose answers are lost on the way: what was written is found out, and nothing is written twice.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use feast_registry_core::config::SchemaMode;
use feast_registry_core::proto::core::{Entity, EntitySpecV2, FeatureView, FeatureViewSpec};
use feast_registry_core::{Backend, Error, Freshness, Registry, RegistryOptions};
use feast_registry_postgres::PostgresBackend;
use prost_types::Timestamp;

#[path = "databases/mod.rs"]
mod databases;

use databases::proxy::Proxy;

const PROJECT: &str = "rides";
const VIEW: &str = "driver_stats";

/// More round trips than any write takes.
const MOST_TURNS: usize = 12;

fn entity(name: &str) -> Entity {
    Entity { spec: Some(EntitySpecV2 { name: name.to_owned(), ..Default::default() }), meta: None }
}

fn view() -> FeatureView {
    let spec = FeatureViewSpec { name: VIEW.to_owned(), entities: vec!["driver".to_owned()], ..Default::default() };
    FeatureView { spec: Some(spec), meta: None }
}

fn second(number: usize) -> Option<Timestamp> {
    Some(Timestamp { seconds: 1_700_000_000 + number as i64, nanos: 0 })
}

async fn materialize(registry: &Registry, number: usize) -> feast_registry_core::Result<()> {
    registry.apply_materialization(PROJECT, VIEW, second(number), second(number + 1)).await
}

/// How often each interval is recorded.
async fn recorded(registry: &Registry) -> BTreeMap<i64, usize> {
    let view: FeatureView = registry.get_message(PROJECT, VIEW, Freshness::Stored).await.expect("the view");
    let mut counts = BTreeMap::new();
    for interval in view.meta.unwrap_or_default().materialization_intervals {
        *counts.entry(interval.start_time.unwrap_or_default().seconds - 1_700_000_000).or_default() += 1;
    }
    counts
}

async fn open(backend: Arc<dyn Backend>) -> Registry {
    let registry = Registry::open(backend, RegistryOptions::default()).await.expect("a registry");
    registry.apply(PROJECT, &view()).await.expect("a view");
    registry
}

/// One writer, and an answer lost at each stage of its writes.
async fn nothing_is_written_twice(registry: &Registry, proxy: &Proxy) {
    const WRITES: usize = 3 * MOST_TURNS;
    for number in 0..WRITES {
        proxy.cut_in(1 + number % MOST_TURNS);
        materialize(registry, number).await.expect("a write whose answer was lost on the way");
        // Deleting what was deleted would be an error.
        let name = format!("entity {number}");
        registry.apply(PROJECT, &entity(&name)).await.expect("an apply");
        registry
            .delete(feast_registry_core::Kind::Entity, PROJECT, &name)
            .await
            .expect("a deletion whose answer was lost");
    }
    proxy.heal();
    assert!(proxy.cuts() >= WRITES / 2, "answers were lost: {} of {WRITES}", proxy.cuts());
    let expected: BTreeMap<i64, usize> = (0..WRITES as i64).map(|number| (number, 1)).collect();
    assert_eq!(recorded(registry).await, expected, "each interval once");
}

/// Writers of one view, and lost answers: what is acknowledged is there once, and what fails with an error that may be tried
/// again is not there.
async fn writers_do_not_hide_each_others_fate(registry: &Registry, others: Vec<Registry>, proxy: &Proxy) {
    const EACH: usize = 25;
    let before = proxy.cuts();
    let mut tasks = Vec::new();
    for (index, writer) in others.into_iter().enumerate() {
        tasks.push(tokio::spawn(async move {
            let mut failed = BTreeMap::new();
            for number in (index + 1) * 1000..(index + 1) * 1000 + EACH {
                if let Err(error) = materialize(&writer, number).await {
                    assert!(error.is_retryable() || error.is_outcome_unknown(), "{error}");
                    failed.insert(number as i64, error);
                }
            }
            failed
        }));
    }
    while tasks.iter().any(|task| !task.is_finished()) {
        // Not in step with what a writer does: one that is cut at the same place each time gets nowhere.
        proxy.cut_in(fastrand::usize(1..=12));
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let writers = tasks.len();
    let mut failed = BTreeMap::new();
    for task in tasks {
        failed.extend(task.await.expect("a writer"));
    }
    proxy.heal();
    assert!(proxy.cuts() > before, "answers were lost");
    let is_unknown = |error: &&Error| error.is_outcome_unknown();
    let unknown = failed.values().filter(is_unknown).count();
    assert!(unknown <= writers * EACH / 10, "fates of {unknown} commits are unknown: {failed:?}");
    let recorded = recorded(registry).await;
    for writer in 1..=writers as i64 {
        for number in writer * 1000..writer * 1000 + EACH as i64 {
            let count = recorded.get(&number).copied().unwrap_or_default();
            let expected = match failed.get(&number) {
                None => 1..=1,
                Some(error) if error.is_outcome_unknown() => 0..=1,
                Some(_) => 0..=0,
            };
            assert!(expected.contains(&count), "interval {number} is there {count} times: {:?}", failed.get(&number));
        }
    }
}

/// A read of one object is one round trip, and an apply two: one to read, one to write.
async fn round_trips(registry: &Registry, proxy: &Proxy, most_of_an_apply: usize) {
    // A connection is warm when it has seen each shape of an apply, also that which writes the second of the project.
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < Duration::from_millis(2200) {
        registry.apply(PROJECT, &entity(&format!("warm {number}"))).await.expect("an apply");
        number += 1;
    }
    let _: Entity = registry.get_message(PROJECT, "warm 0", Freshness::Stored).await.expect("the entity");
    const TIMES: usize = 20;
    let mut took = Vec::new();
    for number in 0..TIMES {
        let before = proxy.turns();
        registry.apply(PROJECT, &entity(&format!("driver {number}"))).await.expect("an apply");
        let apply = proxy.turns() - before;
        let before = proxy.turns();
        let _: Entity = registry.get_message(PROJECT, "warm 0", Freshness::Stored).await.expect("the entity");
        took.push((apply, proxy.turns() - before));
    }
    // In between the journal may be pruned, and others are told of commits, which nobody waits for. What needs one round trip
    // more needs it each time.
    let as_few = |is: &dyn Fn(&(usize, usize)) -> bool| took.iter().filter(|took| is(took)).count() >= TIMES / 4;
    let is_few = as_few(&|(apply, _)| *apply <= most_of_an_apply) && as_few(&|(_, read)| *read == 1);
    assert!(is_few, "round trips of applies, and of reads of one object: {took:?}");
}

async fn proxy_of(service: &str) -> Proxy {
    let url = databases::service(service);
    let port = url.port().unwrap_or(if service == "POSTGRES" { 5432 } else { 3306 });
    let mut addresses = (url.host().unwrap_or("127.0.0.1"), port).to_socket_addrs().expect("the address of the server");
    Proxy::start(addresses.next().expect("an address")).await
}

mod postgres {
    use super::*;

    async fn setup() -> (Proxy, String) {
        let proxy = proxy_of("POSTGRES").await;
        let url = databases::service("POSTGRES");
        let schema = databases::fresh_name();
        let user = url.username().unwrap_or("postgres");
        let password = url.password().map(|password| format!(":{password}")).unwrap_or_default();
        let database = url.database().unwrap_or("postgres");
        let text = format!("postgresql://{user}{password}@127.0.0.1:{}/{database}?sslmode=disable", proxy.port);
        databases::postgres(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")).await;
        (proxy, format!("{text}&options=-csearch_path%3D{schema}"))
    }

    fn backend(url: &str, serializable: bool) -> Arc<dyn Backend> {
        let mut pool = databases::pool();
        pool.serializable = serializable;
        Arc::new(PostgresBackend::new(&url.parse().expect("a URL"), &pool, SchemaMode::Auto).expect("a backend"))
    }

    async fn run(serializable: bool) {
        let (proxy, url) = setup().await;
        let registry = open(backend(&url, serializable)).await;
        if !serializable {
            round_trips(&registry, &proxy, 2).await;
        }
        nothing_is_written_twice(&registry, &proxy).await;
        let mut others = Vec::new();
        for _ in 0..4 {
            others.push(open(backend(&url, serializable)).await);
        }
        writers_do_not_hide_each_others_fate(&registry, others, &proxy).await;
        let (_, schema) = url.rsplit_once("%3D").expect("the schema");
        databases::postgres(&format!("DROP SCHEMA {schema} CASCADE")).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn with_locks() {
        if databases::without("POSTGRES").is_none() {
            run(false).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn with_serializable() {
        if databases::without("POSTGRES").is_none() {
            run(true).await;
        }
    }
}

mod mysql {
    use feast_registry_mysql::MySqlBackend;

    use super::*;

    fn backend(url: &str) -> Arc<dyn Backend> {
        Arc::new(
            MySqlBackend::new(&url.parse().expect("a URL"), &databases::pool(), SchemaMode::Auto).expect("a backend"),
        )
    }

    async fn run(service: &'static str) {
        if databases::without(service).is_some() {
            return;
        }
        let proxy = proxy_of(service).await;
        let database = databases::mysql::Database::create(service).await;
        let url = databases::service(service);
        let user = url.username().unwrap_or("root");
        let password = url.password().map(|password| format!(":{password}")).unwrap_or_default();
        // The proxy would take a handshake of TLS for round trips.
        let url = format!("mysql://{user}{password}@127.0.0.1:{}/{}?ssl_disabled=true", proxy.port, database.name);
        let registry = open(backend(&url)).await;
        // A commit is two: one locks and looks, one writes.
        round_trips(&registry, &proxy, 3).await;
        nothing_is_written_twice(&registry, &proxy).await;
        let mut others = Vec::new();
        for _ in 0..4 {
            others.push(open(backend(&url)).await);
        }
        writers_do_not_hide_each_others_fate(&registry, others, &proxy).await;
        database.remove().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn mariadb() {
        run("MARIADB").await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn mysql() {
        run("MYSQL").await;
    }
}
