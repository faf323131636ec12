//! What a registry knows and Feast's `Registry` message has no field for.
//!
//! It goes into the file as a field that Feast does not know. Python's protobuf keeps such a field when it reads and
//! writes the message, so what Feast changes leaves it alone. One occurrence of the field is one [`Extra`].
//!
//! Feast may change or remove what an extra is about. So an extra about something that stands elsewhere in the file says
//! which bytes it is about (`of`), and counts for nothing once those have changed.

use bytes::Bytes;

/// The number of the field of `feast.core.Registry`. Feast counts its own up from 1 and is at 19.
pub(crate) const FIELD: u32 = 51_967;

/// How many of the last writes of the file are listed by their `version_id`, for processes of earlier versions.
pub(crate) const LINEAGE: usize = 16;

/// What an extra is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Table {
    /// Of a newer version of this library: kept as it is.
    Unknown = 0,
    /// When something was last written, where it does not say so itself.
    Updated = 1,
    /// The infrastructure of a project; the message has room for one, the last that was written.
    Infra = 2,
    /// The `infra` that this library wrote: one with another hash is Feast's.
    InfraMark = 3,
    /// Bytes that a user attached to a view.
    UserMetadata = 4,
    /// A fact about a project that is not its UUID.
    Fact = 5,
    /// The `version_id`s of the last writes of this library, newest last, with blanks between them. Earlier versions, which
    /// do not know [`Self::Journal`], tell by it whether a write of theirs was done.
    Lineage = 6,
    /// The registry was removed.
    Removed = 7,
    /// Who wrote last, and identities of commits ([`crate::journal`]).
    Journal = 8,
    /// An entry of the journal.
    Entry = 9,
}

/// One of them.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Extra {
    #[prost(enumeration = "Table", tag = "1")]
    pub(crate) table: i32,
    /// The kind of object that it is about, as its field of `feast.core.Registry`; for a version the field of the history,
    /// for a UUID that of the project metadata.
    #[prost(uint32, tag = "2")]
    pub(crate) field: u32,
    #[prost(string, tag = "3")]
    pub(crate) project: String,
    /// The name of an object, a view or a fact.
    #[prost(string, tag = "4")]
    pub(crate) name: String,
    /// The number of a version.
    #[prost(int32, tag = "5")]
    pub(crate) number: i32,
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) value: Bytes,
    /// Seconds since 1970 (UTC).
    #[prost(int64, tag = "7")]
    pub(crate) updated: i64,
    /// The [`hash`] of the bytes that it is about.
    #[prost(fixed64, tag = "8")]
    pub(crate) of: u64,
}

impl Extra {
    /// One of a table, that is about nothing yet.
    pub(crate) fn of_table(table: Table) -> Self {
        Self { table: table.into(), ..Self::default() }
    }
}

/// FNV-1a, 64 bits: it stands in files, so it must be the same in every version of this library and on every machine.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
