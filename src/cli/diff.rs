//! `photonc diff`: what differs between two checkpoints or bundles. Exit code 0 where nothing does, 1 where something does.

use super::count_args::CountArgs;
use super::inspect::Source;
use super::model_args::DialectArgs;
use super::open_args::OpenArgs;
use super::pass_args::PassArgs;
use super::{Failure, Reporter};
use crate::inspect::diff::Difference;
use std::path::PathBuf;
use std::process::ExitCode;

/// Compare two checkpoints or bundles: graphs, weights, proofs, signatures and cost
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 nothing differs, 1 something differs or an input cannot be read")]
pub struct Args {
    /// Directory of a checkpoint or a bundle
    #[arg(value_name = "A")]
    left: PathBuf,
    /// What to compare it with
    #[arg(value_name = "B")]
    right: PathBuf,
    /// Compare weights by name and type alone, without reading them
    #[arg(long)]
    no_weights: bool,
    #[command(flatten)]
    opened: OpenArgs,
    #[command(flatten)]
    dialect: DialectArgs,
    #[command(flatten)]
    count: CountArgs,
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<ExitCode, Failure> {
    let subject = |path: &PathBuf| {
        let source = Source::open(path, args.opened, &args.dialect, &PassArgs::default(), reporter)?;
        source.subject(path, !args.no_weights)
    };
    let (left, right) = (subject(&args.left)?, subject(&args.right)?);
    let difference = Difference::between(&left, &right, &args.count.setting(&left)?, args.count.gpu()?);
    if reporter.json() {
        reporter.document(&difference)?;
    } else {
        reporter.text(&difference.to_string())?;
    }
    Ok(if difference.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
