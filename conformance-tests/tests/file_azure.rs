//! The suite on an object in Azurite. One process of it serves all tests: it takes a second to start.

mod stores;

use std::sync::Arc;

use crate::stores::Objects;
use crate::stores::azure::Azurite;

#[test]
fn the_suite() {
    let Some(azurite) = Azurite::start() else { return };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime");
    let report = runtime.block_on(feast_registry_conformance::all(Arc::new(Objects(move || azurite.object("worker")))));
    println!("{report}");
    assert_eq!(report.passed.len(), feast_registry_conformance::tests().len(), "all tests of the suite ran");
}

/// What the tests of several processes start. It has nothing to do in an ordinary run.
#[test]
fn worker() {
    stores::work();
}
