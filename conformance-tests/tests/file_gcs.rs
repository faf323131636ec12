//! The suite on an object in a stub of Google Cloud Storage.

mod stores;

use feast_registry_conformance::conformance_tests;

use crate::stores::{Objects, gcs};

conformance_tests!(Objects(|| gcs::object(gcs::shared(), "worker")));

/// What the tests of several processes start. It has nothing to do in an ordinary run.
#[test]
fn worker() {
    stores::work();
}
