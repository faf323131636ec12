//! The suite on an object in a stub of Google Cloud Storage.

mod stores;

use std::process::ExitCode;

use feast_registry_conformance::{Suite, run};

use crate::stores::{Objects, gcs};

fn main() -> ExitCode {
    run([Suite::new("gcs", Objects(|| gcs::object(gcs::shared())))])
}
