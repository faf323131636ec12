//! The binary `feast-registry`: Feast's registry server, and commands to look into a registry.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use feast_registry_server::cli::Cli;

fn main() -> ExitCode {
    Cli::new("feast-registry", env!("CARGO_PKG_VERSION")).run()
}
