//! Command-line entry point: hands the arguments to `cli` and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    photonc::cli::main(std::env::args_os())
}
