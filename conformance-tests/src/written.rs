//! What workers have written, as it is found in the storage.

use std::collections::BTreeSet;

use feast_registry_core::proto::core::FeatureView;
use feast_registry_core::proto::core::MaterializationInterval;
use feast_registry_core::{Freshness, Key, Kind, ListFilter, Registry};
use prost::Message as _;

use crate::handle::{Handle, or_fail};
use crate::registry::contention::stored_view;
use crate::sample::{filler, interval};
use crate::shown::shown;
use crate::worker::{Load, PROJECT, VIEW, name_of};

/// The entities and the intervals that are there.
pub(crate) struct Written {
    pub(crate) entities: BTreeSet<(String, Vec<u8>)>,
    intervals: Vec<MaterializationInterval>,
}

impl Written {
    /// As a registry sees it.
    pub(crate) async fn seen_by(registry: &Registry) -> Self {
        let list = registry.list(Kind::Entity, Some(PROJECT), &ListFilter::default(), Freshness::Stored).await;
        let objects = or_fail("a list of the entities", list);
        let entities = objects.iter().map(|object| (or_fail("a name", object.name()), filler(&object.bytes))).collect();
        let view = stored_view(registry, PROJECT, VIEW).await;
        Self { entities, intervals: view.meta.unwrap_or_default().materialization_intervals }
    }

    /// As a handle sees it, which keeps nothing once it is closed.
    pub(crate) async fn seen_by_handle(handle: &Handle) -> Self {
        let name = |key: &Key| match key {
            Key::Object { name, .. } => name.clone(),
            other => panic!("a list of the entities has {}", shown(other)),
        };
        let records = handle.objects(Kind::Entity, Some(PROJECT)).await;
        let entities = records.iter().map(|record| (name(&record.key), filler(&record.value))).collect();
        let view = handle.get(&Key::object(Kind::FeatureView, PROJECT, VIEW)).await;
        let view = view.unwrap_or_else(|| panic!("the view `{VIEW}` was acknowledged, and is not there"));
        let view = FeatureView::decode(view).unwrap_or_else(|error| panic!("the view `{VIEW}` is damaged: {error}"));
        Self { entities, intervals: view.meta.unwrap_or_default().materialization_intervals }
    }

    /// Checks that every number of a mixed load that was acknowledged is there, and at most so many besides: those that
    /// killed writers had begun.
    #[track_caller]
    pub(crate) fn assert_is(&self, property: &str, acknowledged: &BTreeSet<usize>, begun: usize) {
        let is_there = |number: usize| match Load::Mixed.of(number) {
            Load::Intervals => self.intervals.iter().filter(|stored| **stored == interval(number)).count() == 1,
            _ => self.entities.contains(&(name_of(number), name_of(number).into_bytes())),
        };
        let lost: Vec<usize> = acknowledged.iter().copied().filter(|number| !is_there(*number)).collect();
        assert!(
            lost.is_empty(),
            "{property}: {} writes were acknowledged, and of these {} are not there: {}",
            acknowledged.len(),
            lost.len(),
            shown(&lost)
        );
        let (found, most) = (self.entities.len() + self.intervals.len(), acknowledged.len() + begun);
        assert!(found <= most, "{property}: {found} writes are there, and only {most} can have been begun");
    }
}
