//! `feast-registry completions`.

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use super::{Cli, output};

/// Print a script that completes this command line in a shell.
///
/// Where the script belongs depends on the shell; for bash, say,
///
///   feast-registry completions bash > ~/.local/share/bash-completion/completions/feast-registry
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, about = "Print a script that completes this command line in a shell")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, cli: &Cli) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut cli.command(), &*cli.name, &mut script);
        output::print(&script)
    }
}
