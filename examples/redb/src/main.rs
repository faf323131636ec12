//! `feast-registry`, with registries in redb files.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use feast_registry::Schemes;
use feast_registry_redb::RedbScheme;
use feast_registry_server::cli::Cli;

fn main() -> ExitCode {
    let schemes = Schemes::default().with(RedbScheme);
    Cli::new("feast-registry-redb", env!("CARGO_PKG_VERSION")).with_schemes(schemes).run()
}
