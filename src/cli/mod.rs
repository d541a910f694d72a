//! The command line. Owns arguments, printing, progress and exit codes; one file per subcommand. The only floor that
//! prints, reads the clock for a user, or names clap.
//!
//! Exit codes: 0 ok, 1 the input or a check failed, 2 usage, 3 a bug of photonc, 128 and the number of the signal that ended
//! the run.

mod backends;
mod bench;
mod build;
mod completions;
mod count_args;
mod diff;
mod doctor;
mod engine_args;
mod export;
mod failure;
mod generate;
mod input_file;
mod inspect;
mod language;
mod memory;
mod model_args;
mod open_args;
mod ort_args;
mod output;
mod package;
mod pass_args;
mod prompts;
mod reduce;
mod refit;
mod replicas;
mod report;
mod rows;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod stdout;
mod synth;
mod target_arg;
mod timing;
mod verify;
mod visible;

use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

use failure::Failure;
#[doc(hidden)]
pub use generate::read_prompts;
pub use memory::ReportingAllocator;
use report::Reporter;

/// Arguments of `photonc`.
#[derive(Debug, Parser)]
#[command(
    name = "photonc",
    version,
    about = "Compiler for PHOTON hierarchical language models",
    long_about = "Compiler for PHOTON hierarchical language models: a checkpoint in; verified graphs, an ONNX bundle and generated tokens out.\n\nExit codes: 0 ok, 1 the input or a check failed, 2 usage, 3 a bug of photonc, 130 or 143 ended by a signal.",
    propagate_version = false,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Global {
    /// Print one JSON document on stdout, errors as JSON on stderr
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// No notes and no progress on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    quiet: bool,
    /// More detail on stderr
    #[arg(short, long, global = true, help_heading = "Global options")]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Export(export::Args),
    Build(build::Args),
    Refit(refit::Args),
    Inspect(inspect::Args),
    Diff(diff::Args),
    Verify(verify::Args),
    Reduce(reduce::Args),
    Generate(generate::Args),
    Score(score::Args),
    #[cfg(feature = "serve")]
    Serve(serve::Args),
    Package(package::Args),
    Bench(bench::Args),
    Synth(synth::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
}

impl Command {
    /// Whether a signal ends the run at once: a server answers in its own way.
    fn hears_signals(&self) -> bool {
        #[cfg(feature = "serve")]
        if matches!(self, Command::Serve(_)) {
            return false;
        }
        true
    }
}

/// Runs `photonc` with these arguments, the program's name first. Prints results on stdout and errors on stderr.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Whether errors are JSON must be known even where the arguments do not parse.
    let json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error, json),
    };
    let reporter = Reporter::new(cli.global);
    failure::report_by(reporter);
    if let Err(failure) = memory::prepare() {
        return failure.report();
    }
    if cli.command.hears_signals() {
        signals::install();
    }
    let ended = failure::catching_bugs(|| run(&cli.command, &reporter));
    signals::give_way();
    match ended {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(command: &Command, reporter: &Reporter) -> Result<ExitCode, Failure> {
    match command {
        Command::Diff(args) => return diff::run(args, reporter),
        Command::Verify(args) => return verify::run(args, reporter),
        Command::Reduce(args) => reduce::run(args, reporter),
        Command::Export(args) => export::run(args, reporter),
        Command::Build(args) => build::run(args, reporter),
        Command::Refit(args) => refit::run(args, reporter),
        Command::Generate(args) => generate::run(args, reporter),
        Command::Score(args) => score::run(args, reporter),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args, reporter),
        Command::Package(args) => package::run(args, reporter),
        Command::Bench(args) => bench::run(args, reporter),
        Command::Inspect(args) => inspect::run(args, reporter),
        Command::Synth(args) => synth::run(args, reporter),
        Command::Doctor(args) => doctor::run(args, reporter),
        Command::Completions(args) => completions::run(args, &mut Cli::command(), reporter),
    }?;
    Ok(ExitCode::SUCCESS)
}
