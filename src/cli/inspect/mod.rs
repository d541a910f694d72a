//! `photonc inspect`: what a checkpoint or a bundle holds and what it compiles to. Owns the choice of view; never writes
//! a file.

mod forms;
mod summary;

use super::model_args::DialectArgs;
use super::{Failure, Reporter};
use crate::graph::Graph;
use crate::model::build;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::ModelConfig;
use crate::model::parameter_table::ParameterTable;
use crate::passes::choose_protocol::Protocol;
use crate::passes::compile;
use std::path::PathBuf;

/// Names of the step programs that `--graph` takes beside the compiled graphs.
const STEPS: [(&str, Option<Protocol>); 3] =
    [("step", None), ("step-recgen", Some(Protocol::Recgen)), ("step-hiergen", Some(Protocol::Hiergen))];

/// Show a checkpoint: its shape, its parameters, the graphs it compiles to and why
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of a checkpoint, or its weights file
    model: PathBuf,
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
    let checkpoint = args.dialect.open(&args.model, reporter)?;
    if args.params {
        return params(&checkpoint, reporter);
    }
    match &args.graph {
        Some(name) => print(&graph(&checkpoint.config, name)?, args.format, reporter),
        None => summary::checkpoint(&args.model, &checkpoint, reporter),
    }
}

fn params(checkpoint: &Checkpoint, reporter: &Reporter) -> Result<(), Failure> {
    let table = ParameterTable::new(&checkpoint.config);
    if reporter.json() { reporter.document(&table) } else { reporter.text(&table.to_string()) }
}

fn print(graph: &Graph, format: Format, reporter: &Reporter) -> Result<(), Failure> {
    match (format, reporter.json()) {
        (Format::Json, _) | (Format::Text, true) => reporter.document(&forms::json(graph)),
        (Format::Dot, true) => Err(Failure::usage(&"--json and --format dot ask for two forms at once")),
        (Format::Dot, false) => reporter.text(&forms::dot(graph)),
        (Format::Text, false) => reporter.text(&forms::text(graph)),
    }
}

fn graph(config: &ModelConfig, name: &str) -> Result<Graph, Failure> {
    match STEPS.iter().find(|(step, _)| *step == name) {
        Some((_, None)) => build::step_program(config).map_err(|error| Failure::bug(&error)),
        Some((_, Some(protocol))) => Ok(compile::specialise(config, *protocol)?),
        None => {
            let mut graphs = compile::compile(config, &protocols(config))?.graphs;
            let known: Vec<&str> =
                STEPS.iter().map(|(step, _)| *step).chain(graphs.keys().map(String::as_str)).collect();
            let unknown = format!("no graph is called `{name}`; known: {}", known.join(", "));
            graphs.swap_remove(name).ok_or_else(|| Failure::input("there is nothing to show", &unknown))
        }
    }
}

/// Every protocol that is defined for a model.
fn protocols(config: &ModelConfig) -> Vec<Protocol> {
    let mut protocols = vec![Protocol::Hiergen];
    if config.recgen_defined() {
        protocols.insert(0, Protocol::Recgen);
    }
    protocols
}
