//! The registry over a backend: what a user is promised.

pub(crate) mod cache;
pub(crate) mod contention;
pub(crate) mod objects;
pub(crate) mod projects;
pub(crate) mod undo;
pub(crate) mod unknown_fields;
