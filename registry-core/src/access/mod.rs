//! Who may do what: Feast's permissions, as they are enforced.

mod identity;

pub use identity::Identity;
