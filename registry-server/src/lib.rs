//! Feast's gRPC registry server over any backend of the registry.
//!
//! Every user of Feast's SDK reaches it by one line of configuration, `registry: {registry_type: remote, path:
//! host:6570}`. Objects pass through it as they were serialized; pickled functions inside them are never run.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod answers;
mod audit;
mod authentication;
mod authority;
mod call;
mod callers;
#[cfg(feature = "cli")]
pub mod cli;
mod codec;
mod complaints;
mod connections;
mod guard;
mod health;
mod heavy;
mod history;
mod listing;
mod lists;
mod metrics;
mod monitoring;
mod origin;
mod paging;
mod panics;
mod parts;
mod peer;
mod process;
pub mod proto;
mod protocol;
mod record;
mod request;
mod rest;
mod serve;
mod service;
mod services;
mod socket;
mod status;
mod tenants;
mod tls;
#[cfg(feature = "otlp")]
mod trace_context;

pub use audit::AuditLog;
pub use authentication::{Authentication, AuthenticationBuilder, TOKEN_PREFIX, TokenEntry, new_token};
pub use callers::Security;
pub use metrics::Metrics;
pub use monitoring::Monitoring;
pub use rest::{DEFAULT_REST_PORT, Login, RestOptions, Ui};
pub use serve::{DEFAULT_PORT, Listener, Ports, ServeOptions, listen, serve};
pub use service::Service;
pub use socket::UnixSocket;
pub use tenants::TenantLimits;
pub use tls::{Tls, TlsFiles};

/// The examples of the README are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
