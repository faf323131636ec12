//! What the SQL backends share: the tables of Feast's SQL registry (`feast.infra.registry.sql`), and the statements over
//! them, as text. Feast's `SqlRegistry` opens what is made from these, and the other way round.
//!
//! Nothing here talks to a database itself. A backend says which [`Dialect`] its database speaks, runs the [`Statement`]s with
//! its own driver, and hands back what they return as [`Row`]s:
//!
//! - [`Read`] answers queries, mostly in one statement, which sees one state of the database of its own accord;
//! - [`writes`] is what a commit changes, [`conflict`] and [`checks`] are two ways to hold it against what it expects:
//!   after reading, or within the database;
//! - [`journal`] is what tells whether a commit took place whose answer was lost;
//! - [`create_table`] makes a [`Table`] as Feast's own does;
//! - [`pool`] keeps connections, and ends those whose answer nobody waits for;
//! - [`attempts`] are what a backend over a database server does around its statements.

pub mod attempts;
mod check;
mod dialect;
pub mod journal;
pub mod pool;
mod read;
mod state;
mod tables;
mod write;

pub use attempts::{Database, Failure, Found};
pub use check::{checks, conflict};
pub use dialect::{Dialect, Statement, Value};
pub use read::{Answers, Read, Row, keys_of, keys_to_lock, shares_projects};
pub use state::{JournalState, Pruning};
pub use tables::{
    Column, ColumnType, Index, JOURNAL, JOURNAL_HEAD, METADATA, NAME, ObjectTable, PROJECT, Table, UPDATED,
    USER_METADATA, VERSIONS, create_table, object_table, tables,
};
pub(crate) use write::decode_version;
pub use write::{absent, writes, writes_beside};

/// Warns that a registry was made where none was, if all of Feast's tables are among those that were just made: who meant
/// another database would otherwise wonder where everything is.
pub fn tell_if_new(location: &str, made: &[&str]) {
    if tables().iter().all(|table| made.contains(&table.name)) {
        tracing::warn!("made a new registry at {location}, since there was none; is that the place you meant?");
    }
}

/// The examples of the README are compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
