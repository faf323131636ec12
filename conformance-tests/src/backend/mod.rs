//! The contract of a backend, tested on it directly.

pub(crate) mod blocking;
pub(crate) mod cancellation;
pub(crate) mod deadlines;
pub(crate) mod exactly_once;
pub(crate) mod expectations;
pub(crate) mod journal;
pub(crate) mod journal_reads;
pub(crate) mod lifetime;
pub(crate) mod limits;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod pages;
pub(crate) mod races;
pub(crate) mod reads;
pub(crate) mod storage;
pub(crate) mod values;
pub(crate) mod waiting;
pub(crate) mod writes;
