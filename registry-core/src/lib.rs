//! A registry for the Feast feature store: its objects, its rules, and the contract that storage backends fulfil.
//!
//! - [`Registry`] is what applications use: typed verbs with Feast's rules, over any backend.
//! - [`Backend`] is what storages implement; [`MemoryBackend`] is the smallest one. The crate `feast-registry-conformance` proves
//!   an implementation.
//! - [`Object`] and [`Encoded`] are Feast's objects as serialized protobuf messages ([`proto`]), which pass through
//!   unread.
//!
//! Nothing here does I/O or depends on a storage. No code that metadata contains (pickled functions) is ever run.
//!
//! ```
//! use std::sync::Arc;
//! use feast_registry_core::{Freshness, MemoryBackend, Registry, RegistryOptions};
//! use feast_registry_core::proto::core::{Entity, EntitySpecV2};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> feast_registry_core::Result<()> {
//! let registry = Registry::open(Arc::new(MemoryBackend::new()), RegistryOptions::default()).await?;
//! let driver = Entity {
//!     spec: Some(EntitySpecV2 { name: "driver".into(), join_key: "driver_id".into(), ..Default::default() }),
//!     meta: None,
//! };
//! registry.apply("rides", &driver).await?;
//! let stored: Entity = registry.get_message("rides", "driver", Freshness::Stored).await?;
//! assert_eq!(stored.spec.unwrap().join_key, "driver_id");
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod access;
mod backend;
mod cache;
mod compute;
pub mod config;
mod deadline;
mod difference;
mod draft;
mod encoded;
mod environment;
mod error;
mod features;
pub mod images;
mod journal;
mod kind;
mod lineage;
mod locks;
mod memory;
pub mod metrics;
mod observed;
pub mod proto;
mod registry;
mod rules;
mod scheme;
mod soundness;
mod waits;
pub mod wire;
pub mod words;

/// For implementing [`Backend`], whose methods are asynchronous.
pub use async_trait::async_trait;
pub use backend::{Backend, Commit, Expected, INFRA_NAME, Key, Limits, Outcome, Page, Query, Record, Write};
/// The type of stored values.
pub use bytes::Bytes;
pub use deadline::{Caller, Deadline};
pub use difference::{Difference, FieldChange};
pub use encoded::{Encoded, Object, PROTECTED_PROJECT_TAG};
pub use environment::{Environment, System};
pub use error::{Error, ErrorKind, Result};
pub use features::{Feature, value_type_name};
pub use journal::{
    Change, CommitId, IDENTITY_KEPT_FOR, Image, JOURNAL_POLL, JournalEntry, JournalFilter, JournalQuery, JournalRange,
    OUTSIDE, Retention, Revision, Target,
};
pub use kind::{FeastObject, Kind, Layout};
pub use lineage::{Lineage, ObjectType, Reference, Relation};
#[doc(hidden)]
pub use memory::Contents;
pub use memory::MemoryBackend;
pub use observed::STORAGE_SPANS;
/// The type of moments, as [`Commit::at`](Commit): seconds and nanoseconds since 1970 (UTC).
pub use prost_types::Timestamp;
pub use registry::{
    AsOf, CallOptions, Condition, Contrast, Edit, Edited, FeatureViewVersion, Freshness, Holding, JournalSpan,
    ListFilter, LogQuery, PlannedChange, Registry, RegistryOptions, StorageRemoval, StoredDifference, Undo, UndoPlan,
    Watch, WatchEvent,
};
pub use rules::{ApplyOptions, Refusal, UndoOptions};
pub use scheme::{MemoryScheme, Scheme};
pub use waits::Waits;

/// The examples of the README are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
