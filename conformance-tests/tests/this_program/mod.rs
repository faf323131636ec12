//! Tests that run other tests of their program in processes of their own.

use std::process::Command;

/// The command that runs one test of this program, whose whole name this is, and lets its output through.
pub(crate) fn this_program(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of the program that is running"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command
}
