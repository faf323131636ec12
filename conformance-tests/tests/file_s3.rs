//! The suite on an object in S3.

mod stores;

use std::process::ExitCode;

use feast_registry_conformance::{Suite, run};

use crate::stores::{Objects, s3};

fn main() -> ExitCode {
    run([Suite::new("s3", Objects(|| s3::shared().object()))])
}
