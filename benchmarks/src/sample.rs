//! The objects that calls are about.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context, Result};
use feast_registry::Encoded;
use feast_registry::proto::core::{Entity, EntitySpecV2, FeatureSpecV2, FeatureView, FeatureViewSpec};
use prost::Message;
use rusqlite::{Connection, OpenFlags};

/// The project that Feast's side puts everything in.
pub(crate) const PROJECT: &str = "rides";

/// A feature view as Feast stored it.
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) bytes: Encoded<FeatureView>,
    pub(crate) message: FeatureView,
}

impl View {
    /// The view with one feature more.
    pub(crate) fn with_feature(&self, name: String) -> Encoded<FeatureView> {
        let mut view = self.message.clone();
        let feature = FeatureSpecV2 { name, value_type: 4, ..Default::default() };
        view.spec.get_or_insert_default().features.push(feature);
        Encoded::new(&view)
    }

    /// The view by another name.
    pub(crate) fn named(&self, name: String) -> Encoded<FeatureView> {
        let spec = self.message.spec.clone().unwrap_or_default();
        // What the server notes of a view is not part of one that is applied for the first time.
        Encoded::new(&FeatureView { spec: Some(FeatureViewSpec { name, ..spec }), meta: None })
    }
}

/// What a registry held when Feast had filled it.
pub(crate) struct Sample {
    pub(crate) views: Vec<View>,
    serial: AtomicI64,
}

impl Sample {
    /// Reads the feature views of a registry.
    pub(crate) fn read(registry: &Path) -> Result<Self> {
        let connection = Connection::open_with_flags(registry, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut select =
            connection.prepare("SELECT feature_view_name, feature_view_proto FROM feature_views ORDER BY rowid")?;
        let rows = select.query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        let view = |(name, bytes): (String, Vec<u8>)| {
            let message = FeatureView::decode(&*bytes).context("Feast stored what is no feature view")?;
            Ok(View { name, bytes: Encoded::from_bytes(bytes.into()), message })
        };
        let views = rows.map(|row| view(row?)).collect::<Result<_>>()?;
        Ok(Self { views, serial: AtomicI64::new(0) })
    }

    /// The mean size of a feature view, in bytes.
    pub(crate) fn view_size(&self) -> usize {
        self.views.iter().map(|view| view.bytes.as_bytes().len()).sum::<usize>() / self.views.len().max(1)
    }

    /// A number that was not given before.
    pub(crate) fn serial(&self) -> i64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }
}

/// An entity of this number.
pub(crate) fn entity(number: i64) -> Encoded<Entity> {
    let spec = EntitySpecV2 {
        name: format!("benchmark_entity_{number:08}"),
        join_key: format!("benchmark_entity_{number:08}_id"),
        value_type: 4,
        description: "Something that features are about".to_owned(),
        owner: "team-1@example.com".to_owned(),
        ..Default::default()
    };
    Encoded::new(&Entity { spec: Some(spec), meta: None })
}
