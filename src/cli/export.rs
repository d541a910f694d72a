//! `photonc export`: a checkpoint to a bundle. Owns the options and what is told of the result.

use super::inspect::plan_line;
use super::model_args::DialectArgs;
use super::pass_args::PassArgs;
use super::{Failure, Reporter};
use crate::bundle::Manifest;
use crate::export::{ExportOptions, ExportReport, export_with};
use crate::passes::choose_protocol::Protocol;
use serde_json::json;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Compile a checkpoint into a bundle: verified graphs, ONNX models, weights
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of a checkpoint, or its weights file
    model: PathBuf,
    /// Directory of the bundle
    #[arg(short, long, value_name = "BUNDLE")]
    out: PathBuf,
    /// Which ONNX models to write: `portable` is read by tract, ONNX Runtime and TensorRT
    #[arg(long, value_enum, default_value_t = Target::Portable)]
    target: Target,
    /// Protocols to compile for [default: every one that the model defines]
    #[arg(long, value_enum)]
    protocol: Option<Protocols>,
    /// Longest sequence, prompt and new tokens together; bounds the caches [default: what the checkpoint states]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Take NaN and infinite weights as they are
    #[arg(long)]
    allow_nonfinite: bool,
    /// Replace a bundle that stands there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    dialect: DialectArgs,
    #[command(flatten)]
    passes: PassArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Target {
    /// float32 ONNX in constructs that every runtime takes
    Portable,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Protocols {
    /// The top state advances from the reconstruction: runs ahead
    Recgen,
    /// The top state advances from the sampled tokens, re-encoded
    Hiergen,
    /// Both
    Both,
}

impl Protocols {
    fn list(self) -> Vec<Protocol> {
        match self {
            Protocols::Recgen => vec![Protocol::Recgen],
            Protocols::Hiergen => vec![Protocol::Hiergen],
            Protocols::Both => vec![Protocol::Recgen, Protocol::Hiergen],
        }
    }
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let Target::Portable = args.target;
    let options = ExportOptions {
        dialect: args.dialect.choice(),
        protocols: args.protocol.map(Protocols::list),
        max_tokens: args.max_tokens,
        allow_nonfinite: args.allow_nonfinite,
        force: args.force,
        ..ExportOptions::new(&args.model, &args.out)
    };
    let shown = reporter.progress("export");
    let report = args.passes.watching(reporter, |passes| {
        export_with(&options, passes, &|progress| {
            shown.stage(progress.stage);
            shown.set(progress.done_bytes, progress.total_bytes);
        })
    })?;
    drop(shown);
    tell(args, &report, reporter)
}

fn tell(args: &Args, report: &ExportReport, reporter: &Reporter) -> Result<(), Failure> {
    let manifest = &report.manifest;
    if reporter.json() {
        return reporter.document(&json!({
            "path": args.out,
            "notes": report.notes,
            "weights_bytes": weights_bytes(manifest),
            "nodes": report.nodes,
            "protocols": manifest.protocols,
        }));
    }
    for note in &report.notes {
        reporter.note(note);
    }
    let mut text = format!(
        "{}: {} graphs, {} bytes of weights, up to {} tokens\n",
        args.out.display(),
        manifest.graphs.len(),
        weights_bytes(manifest),
        manifest.model.max_tokens
    );
    for (protocol, plan) in &manifest.protocols {
        let _infallible = writeln!(text, "{protocol}: {}", plan_line(plan));
    }
    reporter.text(&text)
}

fn weights_bytes(manifest: &Manifest) -> u64 {
    manifest.weight_files.values().map(|file| file.bytes).sum()
}
