//! The binary `feast-registry`: Feast's registry server, and commands to look into a registry.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => cli::fail(&error),
    }
}
