//! `feast-registry`, with registries in my store.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use feast_registry::Schemes;
use feast_registry_mystore::MyScheme;
use feast_registry_server::cli::Cli;

fn main() -> ExitCode {
    let schemes = Schemes::default().with(MyScheme);
    Cli::new("feast-registry-mystore", env!("CARGO_PKG_VERSION")).with_schemes(schemes).run()
}
