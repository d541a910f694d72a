//! `photonc refit`: new weights for a bundle of the same model. Owns the options, and that engines are built again.

use super::engine_args::{self, EngineArgs};
use super::model_args::DialectArgs;
use super::report::path_text;
use super::{Failure, Reporter};
use crate::bundle::Bundle;
use crate::engine::{Capabilities, EngineSet, EngineTarget, sets};
use crate::export::engines::EngineReport;
use crate::export::{RefitError, RefitOptions, refit};
use serde_json::json;
use std::path::PathBuf;

/// Replace the weights of a bundle by those of a checkpoint of the same model
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Graphs are not compiled again: every choice made at export stays. The bundle is the old one or the new one at every instant.\n\nEngines hold weights of their own, and TensorRT exchanges them only on a GPU that runs them, so they are built again from the new ONNX models, for the same GPUs and sizes."
)]
pub struct Args {
    /// Directory of the bundle
    bundle: PathBuf,
    /// Directory of the checkpoint with the new weights, or its weights file
    #[arg(long, value_name = "MODEL")]
    weights: PathBuf,
    /// Take NaN and infinite weights as they are
    #[arg(long)]
    allow_nonfinite: bool,
    /// Leave engines out instead of building them again
    #[arg(long)]
    no_engines: bool,
    #[command(flatten)]
    dialect: DialectArgs,
    #[command(flatten)]
    how: EngineArgs,
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    // Before the weights change.
    for set in sets(&Bundle::open_unverified(&args.bundle)?).readable {
        args.how.check(&target_of(&set))?;
    }
    let options = RefitOptions {
        bundle: args.bundle.clone(),
        weights: args.weights.clone(),
        dialect: args.dialect.choice(),
        unexpected: args.dialect.unexpected(),
        allow_nonfinite: args.allow_nonfinite,
    };
    let shown = reporter.progress("refit");
    let report = refit(&options, &|progress| {
        shown.stage(progress.stage);
        shown.set(progress.done_bytes, progress.total_bytes);
    })?;
    drop(shown);
    report.notes.iter().for_each(|note| reporter.note(note));
    let mut built = Vec::new();
    for set in &report.engines {
        match args.no_engines {
            true => reporter.note(&format!("{}: left out, it held the old weights", set.folder.display())),
            false => built.push(again(args, set, reporter)?),
        }
    }
    let manifest = &report.manifest;
    let models: usize = manifest.onnx.values().map(std::collections::BTreeMap::len).sum();
    if reporter.json() {
        return reporter.document(&json!({
            "path": path_text(&args.bundle),
            "weights": manifest.weights.len() + manifest.quantized.len(),
            "models": models,
            "models_kept": report.models_kept,
            "engines": built.iter().map(engine_args::as_json).collect::<Vec<_>>(),
        }));
    }
    let mut text = format!(
        "{}: {} weights replaced; {} of {models} ONNX models are the same as before\n",
        args.bundle.display(),
        manifest.weights.len() + manifest.quantized.len(),
        report.models_kept
    );
    built.iter().for_each(|report| text.push_str(&engine_args::as_text(report)));
    reporter.text(&text)
}

/// What a set was built for.
fn target_of(set: &EngineSet) -> EngineTarget {
    EngineTarget { vendor: set.record.vendor, capabilities: Capabilities::Listed(set.record.sms.clone()) }
}

/// Builds the engines of a set anew.
fn again(args: &Args, set: &EngineSet, reporter: &Reporter) -> Result<EngineReport, Failure> {
    // Its weights were written a moment ago.
    let bundle = Bundle::open_unverified(&args.bundle)?;
    let help = "the weights are new; the engines, which held the old ones, are gone: build them with `photonc build`";
    args.how.rebuild(&bundle, &target_of(set), set, reporter).map_err(|failure| failure.with_help(help))
}

impl From<RefitError> for Failure {
    fn from(error: RefitError) -> Self {
        match error {
            RefitError::Checkpoint(error) => error.into(),
            RefitError::Bundle(error) => error.into(),
            RefitError::Export(error) => (*error).into(),
            error @ RefitError::OtherModel(_) => Failure::input("the weights do not fit the bundle", &error)
                .help("export the checkpoint as a bundle of its own with `photonc export`"),
            error @ RefitError::Unknown(_) => Failure::input("the bundle cannot be used", &error),
        }
    }
}
