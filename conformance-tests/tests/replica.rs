//! A registry whose reads go to a replica that lags behind.

use std::sync::Arc;
use std::time::Duration;

use feast_registry_core::proto::core::{FeatureView, FeatureViewSpec};
use feast_registry_core::{
    Backend, Commit, Deadline, ErrorKind, Freshness, Kind, ListFilter, MemoryBackend, Query, Registry, RegistryOptions,
    Write,
};
use prost_types::Timestamp;

const VIEW: &str = "driver_stats";

fn view() -> FeatureView {
    let spec = FeatureViewSpec { name: VIEW.to_owned(), entities: vec!["driver".to_owned()], ..Default::default() };
    FeatureView { spec: Some(spec), meta: None }
}

fn intervals(view: &FeatureView) -> usize {
    view.meta.as_ref().map_or(0, |meta| meta.materialization_intervals.len())
}

/// Brings the replica up to date, which here happens only when it is asked for.
async fn replicate(primary: &MemoryBackend, replica: &MemoryBackend) {
    let deadline = Deadline::after(Duration::from_secs(10));
    let queries: Vec<Query> = Kind::ALL.iter().map(|kind| Query::objects(*kind, None)).collect();
    let records = primary.read(&queries, &deadline).await.expect("a read").into_iter().flatten();
    let writes = records.map(Write::Put).collect();
    replica.commit(Commit::new(Vec::new(), writes), &deadline).await.expect("a commit");
}

#[tokio::test]
async fn reads_go_to_the_replica_and_decisions_to_the_primary() {
    let (primary, replica) = (Arc::new(MemoryBackend::new()), Arc::new(MemoryBackend::new()));
    let registry = Registry::open_with_replica(
        Arc::clone(&primary) as Arc<dyn Backend>,
        Some(Arc::clone(&replica) as Arc<dyn Backend>),
        RegistryOptions::default(),
    )
    .await
    .expect("a registry");

    registry.apply("rides", &view()).await.expect("an apply");
    let missing = registry.get(Kind::FeatureView, "rides", VIEW, Freshness::Stored).await.expect_err("it lags");
    assert_eq!(missing.kind(), ErrorKind::NotFound(Kind::FeatureView));
    let listed = registry.list(Kind::FeatureView, Some("rides"), &ListFilter::default(), Freshness::Stored).await;
    assert!(listed.expect("a list").is_empty(), "a list comes from the replica");

    // The replica has never heard of the view; what decides is in the primary.
    for hour in 0..3 {
        let moment = |hour: i64| Some(Timestamp { seconds: hour * 3600, nanos: 0 });
        registry.apply_materialization("rides", VIEW, moment(hour), moment(hour + 1)).await.expect("an interval");
    }
    replicate(&primary, &replica).await;
    let stored: FeatureView = registry.get_message("rides", VIEW, Freshness::Stored).await.expect("the view");
    assert_eq!(intervals(&stored), 3, "each interval was added to what the primary had");
    registry.refresh().await.expect("a refresh");
    let cached: FeatureView = registry.get_message("rides", VIEW, Freshness::Cached).await.expect("the view");
    assert_eq!(intervals(&cached), 3);
}
