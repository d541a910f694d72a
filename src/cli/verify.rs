//! `photonc verify`: a bundle against the reference. Exit code 0 where every value is as near as its arithmetic allows, 1
//! where one is not.

mod against;
mod drift;
mod plot;

use super::backends::{BackendArgs, BackendName};
use super::{Failure, Reporter};
use crate::api::documents::of_comparison;
use crate::bundle::Bundle;
use crate::graph::interp::WeightCache;
use crate::graph::{Graph, NodeId, Verified};
use crate::ir::op::Op;
use crate::onnx::tapped::{computed_values, with_outputs};
use crate::onnx::{self, BundleModelError, location};
use crate::runtime::backend::Backend;
use crate::runtime::portable::{OnnxGraph, TARGET};
use crate::runtime::reference::{BundleWeights, Reference};
use crate::runtime::verify::{CompareError, Compared, Comparison, compare_as, with_taps, with_taps_of};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Check a bundle: hashes of the weights, and every graph on a backend against the reference
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every graph runs on random inputs of small sizes (batch 2, 3 meta-contexts, 4 slots). What a value may be off by follows from its type and the lengths of the sums behind it: docs/numerics.md.\n\nWith --drift: RecGen against HierGen on a text, what the checkpoint itself makes of it (docs/text.md).\n\nWith --against: a checkpoint beside the values of the code that it was trained with, the first module that differs, and which choice would explain it (docs/dialects.md).\n\nExit codes: 0 everything holds, 1 a value diverges, a limit of the drift does not hold, or the bundle cannot be used"
)]
pub struct Args {
    /// Directory of the bundle; with --against that of the checkpoint
    bundle: PathBuf,
    /// What is compared with the reference
    #[command(flatten)]
    backend: BackendArgs,
    /// Compare one graph alone
    #[arg(long, value_name = "NAME")]
    graph: Option<String>,
    /// Compare every value that leaves its scope too, and name the first scope that diverges
    #[arg(long)]
    per_layer: bool,
    /// Seed of the inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    drift: drift::DriftArgs,
    #[command(flatten)]
    against: against::AgainstArgs,
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<ExitCode, Failure> {
    if let Some(file) = &args.against.against {
        return against::run(args, file, reporter);
    }
    if args.against.is_misplaced() {
        return Err(Failure::usage(
            &"--dialect, --weight-map and --ignore-unexpected need --against: a bundle has no layout of its own",
        ));
    }
    if args.drift.drift {
        return drift::run(args, reporter);
    }
    args.backend.check()?;
    let bundle = args.backend.bundle.open(&args.bundle)?;
    if !args.backend.bundle.no_verify {
        reporter.detail("hashes of the weights agree");
    }
    let names: Vec<String> = match &args.graph {
        Some(name) => {
            bundle.graph(name)?;
            vec![name.clone()]
        }
        None => bundle.manifest().graphs.keys().cloned().collect(),
    };
    if names.is_empty() {
        let cause = format!("{}: has no graphs, so there is nothing to compare", args.bundle.display());
        return Err(Failure::input("the bundle cannot be used", &cause));
    }
    let weights = WeightCache::new(BundleWeights(Arc::new(bundle.clone())));
    let mut comparisons = Vec::new();
    for name in names {
        let mut graph = bundle.parsed(&name)?.clone();
        // Whatever runs the graphs here, the models are what others are given.
        if bundle.manifest().onnx.get(TARGET.name()).is_some_and(|models| models.contains_key(&name)) {
            onnx::of_bundle(&bundle, TARGET, &name)?;
        }
        let mut model = None;
        if args.per_layer {
            (graph, model) = tapped(args, &bundle, &graph)?;
        }
        let verified = graph.verify().map_err(|error| unusable(&error))?;
        // One graph at a time: a backend keeps the weights of what it has loaded.
        let mut backend = backend(args, &bundle, verified, model, args.per_layer, reporter)?;
        let precision = args.backend.precision();
        let comparison = compare_as(verified, &weights, backend.as_mut(), args.seed, precision)?;
        comparisons.push(Comparison { graph: name, ..comparison });
    }
    tell(args, &comparisons, reporter)?;
    let diverges = comparisons.iter().any(|comparison| comparison.first_divergent().is_some());
    Ok(if diverges { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// The backend; `insert` adds the graph, which the bundle does not have in this form, as `model` where a backend runs ONNX.
fn backend(
    args: &Args,
    bundle: &Bundle,
    graph: Verified<'_>,
    model: Option<OnnxGraph>,
    insert: bool,
    reporter: &Reporter,
) -> Result<Box<dyn Backend>, Failure> {
    let refused = |error| Failure::from(CompareError::Candidate(error));
    match args.backend.name {
        BackendName::Reference => {
            let mut reference = Reference::of_bundle(bundle.clone());
            if insert {
                reference.insert(graph).map_err(refused)?;
            }
            Ok(Box::new(reference))
        }
        BackendName::Tract => args.backend.tract(bundle, model),
        BackendName::Ort => args.backend.ort(bundle, model),
        BackendName::Cuda | BackendName::Cpu => args.backend.with_graph(bundle, graph.graph()),
        BackendName::Tensorrt => args.backend.tensorrt(bundle, reporter),
    }
}

fn input_names(graph: &Graph) -> Vec<String> {
    let inputs = graph.inputs().into_iter().filter_map(|id| match graph.op(id) {
        Op::Input { name, .. } => Some(name.to_string()),
        _ => None,
    });
    inputs.collect()
}

/// The graph with what leaves its scopes among its outputs; for backends that run ONNX, in the bundle's own model.
fn tapped(args: &Args, bundle: &Bundle, graph: &Graph) -> Result<(Graph, Option<OnnxGraph>), Failure> {
    let name = format!("{}.taps", graph.name());
    match args.backend.name {
        BackendName::Reference | BackendName::Cuda | BackendName::Cpu => {
            return Ok((with_taps(graph, &name), None));
        }
        BackendName::Tensorrt => {
            let cause = "an engine yields the outputs it was built with";
            return Err(
                Failure::usage(&cause).help("leave out --per-layer, or verify the models with --backend ort")
            );
        }
        BackendName::Tract | BackendName::Ort => {}
    }
    let bytes = onnx::of_bundle(bundle, TARGET, graph.name())?;
    let model = onnx::from_bytes(&bytes).map_err(|error| Failure::bug(&error))?;
    let locate = |name: &str| location(bundle, name);
    let verified = graph.verify().map_err(|error| unusable(&error))?;
    let computed = computed_values(verified, &locate, &model).map_err(|error| Failure::bug(&error))?;
    let tapped = with_taps_of(graph, &name, |id| computed.contains_key(&id));
    let taps = &tapped.outputs()[graph.outputs().len()..];
    let values: Vec<(NodeId, &str)> =
        taps.iter().filter_map(|tap| Some((tap.node, computed.get(&tap.node)?.as_str()))).collect();
    let model = OnnxGraph {
        name,
        inputs: input_names(graph),
        outputs: tapped.outputs().iter().map(|output| output.name.to_string()).collect(),
        model: onnx::to_bytes(&with_outputs(model, graph, &values)),
    };
    Ok((tapped, Some(model)))
}

impl From<BundleModelError> for Failure {
    fn from(error: BundleModelError) -> Self {
        match error {
            BundleModelError::Bundle(error) => error.into(),
            BundleModelError::Verify(_) => unusable(&error),
            BundleModelError::Export(_) | BundleModelError::Narrow { .. } => {
                Failure::input("the backend cannot run this", &error)
            }
        }
    }
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Self {
        match &error {
            CompareError::Candidate(_) => Failure::input("the backend cannot run this", &error),
            CompareError::Reference(_) | CompareError::Output { .. } => {
                Failure::input("the graphs cannot be compared", &error)
            }
        }
    }
}

fn tell(args: &Args, comparisons: &[Comparison], reporter: &Reporter) -> Result<(), Failure> {
    if reporter.json() {
        let graphs: Vec<Value> = comparisons.iter().map(of_comparison).collect();
        return reporter.document(&json!({"backend": args.backend.name.name(), "graphs": graphs}));
    }
    let mut text =
        format!("{:<16}{:>8}{:>22}  verdict\n", args.backend.name.name(), "values", "error of tolerance");
    for comparison in comparisons {
        let ratios = comparison.values.iter().filter(|value| value.decided && value.tolerance > 0.0);
        let worst = ratios.map(|value| value.error / value.tolerance).fold(0.0, f64::max);
        let undecided = comparison.values.iter().filter(|value| !value.decided).count();
        let verdict = match (comparison.first_divergent(), undecided) {
            (Some(value), _) => sentence(value),
            (None, 0) => "holds".to_owned(),
            (None, some) => format!("holds, but {some} values hang on rounding; try another --seed"),
        };
        let (graph, values) = (&comparison.graph, comparison.values.len());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{graph:<16}{values:>8}{:>20.1} %  {verdict}", 100.0 * worst);
    }
    reporter.text(&text)?;
    let diverges = comparisons.iter().any(|comparison| comparison.first_divergent().is_some());
    if diverges && !args.per_layer {
        reporter.note("--per-layer names the first scope that diverges");
    }
    Ok(())
}

fn sentence(value: &Compared) -> String {
    format!(
        "diverges first in {} (output {}): off by {:.2e}, tolerance {:.2e}, largest value {:.2e}",
        value.scope, value.output, value.error, value.tolerance, value.largest
    )
}

fn unusable(cause: &dyn std::fmt::Display) -> Failure {
    Failure::input("the bundle cannot be used", cause)
}
