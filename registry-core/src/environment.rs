//! What a registry takes from outside besides its storage: the time, and randomness.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

/// Where a registry has the time and its randomness from: the machine, or a test that wants the same run again.
pub trait Environment: fmt::Debug + Send + Sync + 'static {
    /// Now (UTC), in whole microseconds, which is as fine as Feast's Python keeps time.
    fn now(&self) -> Timestamp;

    /// A random number, evenly distributed. Identities are made of it, so no two processes may share a sequence.
    fn random(&self) -> u128;
}

/// The clock of the machine, and randomness of its own for each process.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Environment for System {
    /// A clock before 1970 counts as 1970.
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp { seconds: since.as_secs() as i64, nanos: (since.subsec_micros() * 1000) as i32 }
    }

    fn random(&self) -> u128 {
        uuid::Uuid::new_v4().as_u128()
    }
}

/// A new UUID (version 4), 36 characters.
pub(crate) fn new_uuid(environment: &dyn Environment) -> String {
    uuid::Builder::from_random_bytes(environment.random().to_be_bytes()).into_uuid().to_string()
}

/// A random number from 0 up to but not including 1.
pub(crate) fn fraction(environment: &dyn Environment) -> f64 {
    (environment.random() >> 75) as f64 / (1_u64 << 53) as f64
}
