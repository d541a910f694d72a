//! `photonc build`: engines of a bundle's graphs, beside its ONNX models. Owns the options and what is told of the result.

use super::engine_args::{self, EngineArgs};
use super::open_args::OpenArgs;
use super::{Failure, Reporter};
use crate::engine::EngineTarget;
use std::path::PathBuf;

/// Build TensorRT engines of a bundle's graphs, for GPUs that need not be here
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples: photonc build bundle --engine tensorrt-rtx:89,120\n          photonc build bundle --engine tensorrt-rtx:89 --graph coarse --profile batch=1,capacity=128\n\nEngines that an earlier build has left and that still fit the bundle, the library and the sizes are kept."
)]
pub struct Args {
    /// Directory of the bundle
    bundle: PathBuf,
    /// What to build for: `tensorrt-rtx:` and compute capabilities (75, 80, 86, 89, 120, 121), or `tensorrt:current`
    #[arg(long, value_name = "ENGINE", value_parser = |text: &str| EngineTarget::parse(text))]
    engine: EngineTarget,
    /// Build this graph alone; may be given several times
    #[arg(long, value_name = "NAME")]
    graph: Vec<String>,
    /// Build again what an earlier build has left
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    opened: OpenArgs,
    #[command(flatten)]
    how: EngineArgs,
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let bundle = args.opened.open(&args.bundle)?;
    for name in &args.graph {
        bundle.graph(name)?;
    }
    let graphs = (!args.graph.is_empty()).then(|| args.graph.clone());
    let report = args.how.build(&bundle, &args.engine, graphs, args.force, reporter)?;
    if reporter.json() {
        return reporter.document(&engine_args::as_json(&report));
    }
    reporter.text(&engine_args::as_text(&report))
}
