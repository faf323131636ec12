//! The suite on an object in Azurite. One process of it serves all tests: it takes a second to start.

mod stores;

use std::process::ExitCode;
use std::sync::OnceLock;

use feast_registry_conformance::{Suite, run};

use crate::stores::Objects;
use crate::stores::azure::{self, Azurite};

fn main() -> ExitCode {
    let azurite = OnceLock::new();
    let objects = Objects(move || azurite.get_or_init(Azurite::start).object());
    run([Suite::new("azure", objects).as_one_test().left_out(azure::without())])
}
