//! Feast's rules, as pure functions: from what is stored, what was asked and the time, to what is written or an error.
//!
//! Here is no I/O, no clock and no randomness, so each rule can be tested alone and holds for every backend. Each file
//! names the module of Feast that its rules come from; where a rule differs from Feast's, it says so and why.

mod apply;
mod definition;
mod delete;
mod depth;
mod feature_service;
mod materialization;
mod meta;
mod names;
mod pin;
mod project;
mod replace;
mod stored;
mod structure;
#[cfg(test)]
pub(crate) mod tests;
mod undo;
mod unknown;
mod user_metadata;
mod versions;

pub(crate) use apply::{apply, fetch_for_apply};
#[cfg(test)]
pub(crate) use definition::is_same_definition;
pub(crate) use definition::{is_beside, is_unordered};
pub(crate) use delete::{check_there, delete, delete_project, fetch_for_delete};
pub(crate) use materialization::{
    apply_materialization, fetch_for_materialization, interval, is_backwards, remove_materialization,
};
pub(crate) use meta::Meta;
pub(crate) use names::check_names;
pub(crate) use project::{adopt, fetch_for_adoption};
pub(crate) use replace::stored_name;
pub(crate) use structure::check_structure;
pub(crate) use undo::{Goals, Undone, fetch_for_undo, is_as_seen, undo};
pub use undo::{Refusal, UndoOptions};
pub(crate) use unknown::with_unknown_of;
pub(crate) use user_metadata::{apply_user_metadata, fetch_for_user_metadata, key as user_metadata_key};
pub use versions::ApplyOptions;
pub(crate) use versions::decode_record;
