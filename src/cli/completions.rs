//! `photonc completions`: completion scripts for shells.

use super::{Failure, Reporter};
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: &Args, command: &mut clap::Command, reporter: &Reporter) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "photonc", &mut script);
    let script = String::from_utf8_lossy(&script);
    if reporter.json() {
        return reporter.document(&serde_json::json!({"shell": args.shell.to_string(), "script": script}));
    }
    reporter.text(&script)
}
