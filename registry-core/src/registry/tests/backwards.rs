//! Materializations that end before they start.

use std::sync::{Arc, Mutex};

use prost_types::Timestamp;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::*;

/// Keeps warnings, with their fields.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().expect("not poisoned").push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{field}={value:?} ");
    }
}

#[tokio::test(start_paused = true)]
async fn a_materialization_that_ends_before_it_starts_is_stored_with_a_warning() {
    let registry =
        Registry::open(Arc::new(MemoryBackend::new()), RegistryOptions::default()).await.expect("a registry");
    registry.apply("p", view("stats", &["trips"])).await.expect("a view");
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
    registry.apply_materialization("p", "stats", at(1, 0), at(2, 0)).await.expect("an interval");
    registry.apply_materialization("p", "stats", at(2, 0), at(2, 0)).await.expect("an empty one");
    assert_eq!(*log.0.lock().expect("not poisoned"), [""; 0]);
    registry.apply_materialization("p", "stats", at(2, 5), at(2, 4)).await.expect("one that ends before it starts");
    let stored: FeatureView = registry.get_message("p", "stats", Freshness::Stored).await.expect("the view");
    assert_eq!(stored.meta.expect("a meta").materialization_intervals.len(), 3);
    let lines = log.0.lock().expect("not poisoned");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["project=\"p\"", "view=\"stats\"", "ends before it starts"] {
        assert!(lines[0].contains(part), "{lines:?}");
    }
}
