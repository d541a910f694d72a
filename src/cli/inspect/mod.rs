//! `photonc inspect`: what a checkpoint or a bundle holds and what it compiles to. Owns the choice of view; never writes
//! a file.

mod forms;
mod summary;

pub use summary::plan_line;

use super::model_args::DialectArgs;
use super::{Failure, Reporter};
use crate::bundle::{Bundle, Layout};
use crate::graph::{Graph, text};
use crate::model::build;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::ModelConfig;
use crate::model::dialect;
use crate::model::parameter_table::ParameterTable;
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile;
use std::path::PathBuf;

/// Names of the step programs that `--graph` takes beside the compiled graphs.
const STEPS: [(&str, Option<Protocol>); 3] =
    [("step", None), ("step-recgen", Some(Protocol::Recgen)), ("step-hiergen", Some(Protocol::Hiergen))];

/// Show a checkpoint or a bundle: shape, parameters, graphs and the proof of the split
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of a checkpoint or a bundle, or a weights file
    #[arg(value_name = "MODEL|BUNDLE")]
    path: PathBuf,
    /// Print the parameters by module
    #[arg(long, conflicts_with_all = ["graph", "format"])]
    params: bool,
    /// Print one graph: `step` (the step program with its delays), `step-recgen`, `step-hiergen`, or a compiled graph
    /// that the summary lists
    #[arg(long, value_name = "GRAPH")]
    graph: Option<String>,
    /// Form of the graph
    #[arg(long, value_enum, requires = "graph", default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    dialect: DialectArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The text form, which photonc reads back
    Text,
    /// Graphviz, clustered by scope
    Dot,
    /// Nodes and edges as JSON
    Json,
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let source = Source::open(args, reporter)?;
    if args.params {
        let table = ParameterTable::new(&source.config()?);
        return if reporter.json() { reporter.document(&table) } else { reporter.text(&table.to_string()) };
    }
    match &args.graph {
        Some(name) => print(&source.graph(name)?, args.format, reporter),
        None => match &source {
            Source::Checkpoint(checkpoint) => summary::checkpoint(&args.path, checkpoint, reporter),
            Source::Bundle(bundle) => summary::bundle(&args.path, bundle, reporter),
        },
    }
}

fn print(graph: &Graph, format: Format, reporter: &Reporter) -> Result<(), Failure> {
    match (format, reporter.json()) {
        (Format::Json, _) | (Format::Text, true) => reporter.document(&forms::json(graph)),
        (Format::Dot, true) => Err(Failure::usage(&"--json and --format dot ask for two forms at once")),
        (Format::Dot, false) => reporter.text(&forms::dot(graph)),
        (Format::Text, false) => reporter.text(&text::print(graph)),
    }
}

/// What is looked at.
enum Source {
    Checkpoint(Box<Checkpoint>),
    Bundle(Box<Bundle>),
}

impl Source {
    fn open(args: &Args, reporter: &Reporter) -> Result<Self, Failure> {
        if !args.path.join(Layout::MANIFEST).is_file() {
            return Ok(Source::Checkpoint(Box::new(args.dialect.open(&args.path, reporter)?)));
        }
        if args.dialect.given() {
            return Err(Failure::usage(
                &"a bundle has its dialect already; leave out --dialect and --weight-map",
            ));
        }
        Ok(Source::Bundle(Box::new(Bundle::open(&args.path)?)))
    }

    fn config(&self) -> Result<ModelConfig, Failure> {
        let bundle = match self {
            Source::Checkpoint(checkpoint) => return Ok(checkpoint.config.clone()),
            Source::Bundle(bundle) => bundle,
        };
        // A manifest has the canonical form, whatever dialect the checkpoint had.
        let dialects = dialect::built_in().map_err(|error| Failure::bug(&error))?;
        let canonical = dialects.first().ok_or_else(|| Failure::bug(&"no canonical dialect"))?;
        let parsed = canonical.read_config(Layout::MANIFEST, &bundle.manifest().model.config);
        let unusable = |error| Failure::input("the bundle cannot be used", &error);
        Ok(parsed.map_err(unusable)?.config)
    }

    fn graph(&self, name: &str) -> Result<Graph, Failure> {
        match self {
            Source::Checkpoint(checkpoint) => compiled(&checkpoint.config, name),
            Source::Bundle(bundle) => {
                let unusable = |error| Failure::input("the bundle cannot be used", &error);
                if !bundle.manifest().graphs.contains_key(name) {
                    return Err(unknown(name, bundle.manifest().graphs.keys().map(String::as_str)));
                }
                text::parse(&bundle.graph_text(name)?).map_err(unusable)
            }
        }
    }
}

fn compiled(config: &ModelConfig, name: &str) -> Result<Graph, Failure> {
    match STEPS.iter().find(|(step, _)| *step == name) {
        Some((_, None)) => build::step_program(config).map_err(|error| Failure::bug(&error)),
        Some((_, Some(protocol))) => Ok(compile::specialise(config, *protocol)?),
        None => {
            let mut graphs = compile::compile(config, &protocols(config))?.graphs;
            let steps = STEPS.iter().map(|(step, _)| *step);
            let unknown = unknown(name, steps.chain(graphs.keys().map(String::as_str)));
            graphs.swap_remove(name).ok_or(unknown)
        }
    }
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.collect();
    Failure::input("there is nothing to show", &format_args!("no graph is called `{name}`"))
        .help(&format!("there are {}", known.join(", ")))
}

/// Every protocol that is defined for a model.
fn protocols(config: &ModelConfig) -> Vec<Protocol> {
    let mut protocols = vec![Protocol::Hiergen];
    if config.recgen_defined() {
        protocols.insert(0, Protocol::Recgen);
    }
    protocols
}
