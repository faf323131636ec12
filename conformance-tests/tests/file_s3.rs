//! The suite on an object in S3.

mod stores;

use feast_registry_conformance::conformance_tests;

use crate::stores::{Objects, s3};

conformance_tests!(Objects(|| s3::shared().object("worker")));

/// What the tests of several processes start. It has nothing to do in an ordinary run.
#[test]
fn worker() {
    stores::work();
}
