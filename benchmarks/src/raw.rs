//! What the registry asks of SQLite, asked of SQLite's driver directly: the same statements in the same transactions,
//! on one thread and with nothing in between. It is the floor under what the Rust API costs.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use feast_registry::proto::core::{FeatureView, FeatureViewMeta, FeatureViewState, MaterializationInterval};
use prost::Message;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::operation::hour;
use crate::sample::PROJECT;

const SELECT_VIEW: &str = "SELECT feature_view_proto, last_updated_timestamp FROM feature_views \
     WHERE feature_view_name = ?1 AND project_id = ?2";
const SELECT_PROJECT: &str =
    "SELECT project_proto, last_updated_timestamp FROM projects WHERE project_name = ?1 AND project_id = ?2";
const SELECT_FACT: &str = "SELECT project_id, metadata_key, metadata_value, last_updated_timestamp \
     FROM feast_metadata WHERE project_id = ?1 AND metadata_key = ?2";
const UPSERT_VIEW: &str = "INSERT INTO feature_views \
     (feature_view_name, project_id, last_updated_timestamp, feature_view_proto) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT (feature_view_name, project_id) DO UPDATE SET \
     last_updated_timestamp = excluded.last_updated_timestamp, feature_view_proto = excluded.feature_view_proto";

/// Tables that may hold a view of the same name.
const OTHER_VIEWS: [&str; 3] = ["stream_feature_views", "on_demand_feature_views", "label_views"];

/// Two connections, one that reads and one that writes, as the registry has them.
pub(crate) struct Raw {
    reader: Connection,
    writer: Connection,
}

impl Raw {
    pub(crate) fn open(file: &Path) -> Result<Self> {
        let open = || {
            let connection = Connection::open(file)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.set_prepared_statement_cache_capacity(128);
            anyhow::Ok(connection)
        };
        let (writer, reader) = (open()?, open()?);
        writer.pragma_update(None, "synchronous", "FULL")?;
        reader.pragma_update(None, "query_only", "ON")?;
        Ok(Self { reader, writer })
    }

    /// A view, as stored.
    pub(crate) fn get(&self, view: &str) -> Result<Vec<u8>> {
        let transaction = self.reader.unchecked_transaction()?;
        let (bytes, _) = select_view(&transaction, view)?.context("the view is not there")?;
        transaction.commit()?;
        Ok(bytes)
    }

    /// Adds an interval: reads what decides, and commits if the view is still as it was.
    pub(crate) fn apply_materialization(&mut self, view: &str, number: i64) -> Result<()> {
        let transaction = self.reader.unchecked_transaction()?;
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?));
        transaction.prepare_cached(SELECT_PROJECT)?.query_row(params![PROJECT, PROJECT], row).optional()?;
        for fact in ["project_uuid", "last_updated_timestamp"] {
            let row = |row: &rusqlite::Row<'_>| row.get::<_, String>(2);
            transaction.prepare_cached(SELECT_FACT)?.query_row(params![PROJECT, fact], row).optional()?;
        }
        let (stored, _) = select_view(&transaction, view)?.context("the view is not there")?;
        for table in OTHER_VIEWS {
            let select = SELECT_VIEW.replace("FROM feature_views", &format!("FROM {table}"));
            transaction.prepare_cached(&select)?.query_row(params![view, PROJECT], row).optional()?;
        }
        transaction.commit()?;

        // Protobuf merges messages that follow each other.
        let interval = MaterializationInterval { start_time: Some(hour(number)), end_time: Some(hour(number + 1)) };
        let meta = FeatureViewMeta {
            materialization_intervals: vec![interval],
            state: FeatureViewState::AvailableOnline as i32,
            ..Default::default()
        };
        let mut changed = stored.clone();
        FeatureView { meta: Some(meta), ..Default::default() }.encode(&mut changed)?;

        let transaction = self.writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let is_as_before = select_view(&transaction, view)?.is_some_and(|(bytes, _)| bytes == stored);
        ensure!(is_as_before, "another writer was faster");
        transaction.prepare_cached(UPSERT_VIEW)?.execute(params![view, PROJECT, hour(number).seconds, changed])?;
        transaction.commit()?;
        Ok(())
    }
}

fn select_view(connection: &Connection, view: &str) -> rusqlite::Result<Option<(Vec<u8>, i64)>> {
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    connection.prepare_cached(SELECT_VIEW)?.query_row(params![view, PROJECT], row).optional()
}
