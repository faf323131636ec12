//! What Feast's REST API answers.

// Nothing calls these yet but their tests.
#![allow(dead_code)]

pub(crate) mod compute;
#[cfg(test)]
mod golden;
pub(crate) mod paging;
pub(crate) mod resource_metrics;
pub(crate) mod resources;
pub(crate) mod search;
pub(crate) mod visits;
