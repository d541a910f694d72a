//! `photonc export`: a checkpoint to a bundle. Owns the options and what is told of the result.

use super::engine_args::{self, EngineArgs};
use super::inspect::plan_line;
use super::model_args::DialectArgs;
use super::pass_args::PassArgs;
use super::report::path_text;
use super::rows::count;
use super::target_arg::{Targets, targets};
use super::{Failure, Reporter};
use crate::bundle::{Bundle, Manifest};
use crate::export::engines::EngineReport;
use crate::export::{ExportOptions, ExportReport, LogitError, StackError, export_with};
use crate::ir::attr::Scheme;
use crate::ir::dtype::Dtype;
use crate::passes::choose_protocol::Protocol;
use crate::passes::quantize_weights::Choice;
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
    /// Whom to write ONNX models for, separated by commas: portable, tensorrt-rtx, tensorrt, cpu and cuda (none). With compute capabilities, as in `tensorrt-rtx:89,120`, engines are built of them too [default: portable, where the weights are stored as its models read them; else none]
    #[arg(long, value_name = "TARGETS", value_parser = targets)]
    target: Option<Targets>,
    /// Type of weights, activations and state; f32 stays where it matters
    #[arg(long, value_enum, default_value_t = Precision::F32, value_name = "TYPE")]
    dtype: Precision,
    /// Stacks to quantize: `level1.decoder=int8,lm_head=int4` (int8, int4 or fp8)
    #[arg(long, value_name = "STACK=SCHEME", value_delimiter = ',', value_parser = choice)]
    quant: Vec<Choice>,
    /// Protocols to compile for, separated by commas [default: every one that the model defines]
    #[arg(long, value_enum, value_delimiter = ',')]
    protocol: Option<Vec<Protocols>>,
    /// Longest sequence, prompt and new tokens together; bounds the caches [default: what the checkpoint states]
    #[arg(long, value_name = "N", value_parser = count)]
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
    #[command(flatten, next_help_heading = "Engines")]
    engines: EngineArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Precision {
    F32,
    F16,
    /// For TensorRT and CUDA: tract and ONNX Runtime do not compute in it
    Bf16,
}

impl Precision {
    fn dtype(self) -> Dtype {
        match self {
            Precision::F32 => Dtype::F32,
            Precision::F16 => Dtype::F16,
            Precision::Bf16 => Dtype::Bf16,
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Protocols {
    /// The top state advances from the reconstruction: runs ahead
    Recgen,
    /// The top state advances from the sampled tokens, re-encoded
    Hiergen,
    /// The same, of lower encoders that forget what is before a tile of units
    Windowed,
    /// From chunks of the sampled tokens; only the top is re-encoded
    Chunkgen,
    /// `recgen` and `hiergen`
    Both,
}

impl Protocols {
    fn list(self) -> Vec<Protocol> {
        match self {
            Protocols::Recgen => vec![Protocol::Recgen],
            Protocols::Hiergen => vec![Protocol::Hiergen],
            Protocols::Windowed => vec![Protocol::Windowed],
            Protocols::Chunkgen => vec![Protocol::Chunkgen],
            Protocols::Both => vec![Protocol::Recgen, Protocol::Hiergen],
        }
    }
}

/// The protocols asked for, each once.
fn listed(asked: &[Protocols]) -> Vec<Protocol> {
    let mut protocols: Vec<Protocol> = asked.iter().flat_map(|asked| asked.list()).collect();
    protocols.sort_unstable();
    protocols.dedup();
    protocols
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let asked = args.target.as_ref().map_or(&[][..], |target| &target.engines);
    asked.iter().try_for_each(|target| args.engines.check(target))?;
    let options = ExportOptions {
        dialect: args.dialect.choice(),
        unexpected: args.dialect.unexpected(),
        protocols: args.protocol.as_ref().map(|protocols| listed(protocols)),
        max_tokens: args.max_tokens,
        precision: args.dtype.dtype(),
        quantized: args.quant.clone(),
        targets: args.target.as_ref().map(|target| target.written.clone()),
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
    let mut engines = Vec::new();
    for target in asked {
        // Its weights were written a moment ago.
        let bundle = Bundle::open_unverified(&args.out)?;
        let help = "the bundle is there, without engines; `photonc build` builds them";
        let built = args.engines.build(&bundle, target, None, false, reporter);
        engines.push(built.map_err(|failure| failure.with_help(help))?);
    }
    tell(args, &report, &engines, reporter)
}

/// `level1.decoder=int8`.
fn choice(text: &str) -> Result<Choice, String> {
    let known = || Scheme::ALL.iter().map(|scheme| scheme.name()).collect::<Vec<_>>().join(", ");
    let (stack, name) =
        text.split_once('=').ok_or_else(|| format!("expected STACK=SCHEME with a scheme of {}", known()))?;
    let scheme = Scheme::ALL.iter().find(|scheme| scheme.name() == name);
    let scheme = scheme.ok_or_else(|| format!("there is no scheme `{name}`, expected one of {}", known()))?;
    Ok(Choice { stack: stack.to_owned().into(), scheme: *scheme })
}

fn tell(
    args: &Args,
    report: &ExportReport,
    engines: &[EngineReport],
    reporter: &Reporter,
) -> Result<(), Failure> {
    let manifest = &report.manifest;
    if reporter.json() {
        return reporter.document(&json!({
            "path": path_text(&args.out),
            "notes": report.notes,
            "weights_bytes": manifest.weight_bytes(),
            "nodes": report.nodes,
            "precision": manifest.precision,
            "targets": targets_json(args, manifest),
            "engines": engines.iter().map(engine_args::as_json).collect::<Vec<_>>(),
            "logits": report.logits.as_ref().map(logits_json),
            "quantized": report.quantized.iter().map(quantized_json).collect::<Vec<_>>(),
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
        manifest.weight_bytes(),
        manifest.model.max_tokens
    );
    for (protocol, plan) in &manifest.protocols {
        let _infallible = writeln!(text, "{protocol}: {}", plan_line(plan));
    }
    for part in &report.quantized {
        let (stack, scheme, relative) = (&part.stack, part.scheme.name(), part.relative);
        let _infallible =
            writeln!(text, "{stack}: {} weights as {scheme}, off by {:.2} %", part.weights, 100.0 * relative);
    }
    if let Some(logits) = &report.logits {
        let _infallible = writeln!(
            text,
            "logits against f32, random ids: off by at most {:.2} of {:.1}, KL {:.1e} nats, same greedy token at {:.1} % of {} places",
            logits.largest,
            logits.scale,
            logits.divergence,
            100.0 * logits.greedy,
            logits.places
        );
    }
    engines.iter().for_each(|engines| text.push_str(&engine_args::as_text(engines)));
    reporter.text(&text)
}

fn logits_json(logits: &LogitError) -> serde_json::Value {
    json!({
        "largest_error": logits.largest,
        "largest_logit": logits.scale,
        "kl_nats": logits.divergence,
        "greedy_agreement": logits.greedy,
        "places": logits.places,
    })
}

fn quantized_json(part: &StackError) -> serde_json::Value {
    json!({
        "stack": part.stack,
        "scheme": part.scheme.name(),
        "weights": part.weights,
        "relative_error": part.relative,
    })
}

/// Names of what was exported for.
fn targets_json(args: &Args, manifest: &Manifest) -> Vec<String> {
    match &args.target {
        Some(target) => target.written.iter().map(|target| target.name().to_owned()).collect(),
        None => manifest.onnx.keys().cloned().collect(),
    }
}
