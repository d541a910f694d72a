//! Command-line entry point: hands the arguments to `cli` and returns its exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: photonc::cli::ReportingAllocator = photonc::cli::ReportingAllocator;

fn main() -> ExitCode {
    photonc::cli::main(std::env::args_os())
}
