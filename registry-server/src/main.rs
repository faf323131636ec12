//! The binary `feast-registry`: Feast's registry server, and commands to look into a registry.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use feast_registry_server::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::new("feast-registry", env!("CARGO_PKG_VERSION")).with_build(env!("FEAST_REGISTRY_BUILD"));
    let name = std::env::args_os().next();
    // In images it stands before Feast's own command in PATH.
    match name.as_deref().and_then(|name| Path::new(name).file_name()) == Some(OsStr::new("feast")) {
        true => cli.run_as_feast(),
        false => cli.run(),
    }
}
