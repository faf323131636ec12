//! The REST API over HTTP/1.1 and HTTP/2: entity tags, conditions, whole objects, batches, dry runs, and what connections, limits,
//! authentication, metrics and the audit log have to do with it.

mod client;
mod connections;
mod limits;
mod reads;
mod security;
mod server;
mod whole;
mod writes;
