//! `photonc inspect`: what a checkpoint or a bundle holds and what it compiles to. Owns the choice of view; never writes
//! a file.

mod forms;
mod source;
mod summary;
mod wiring;

use source::Model;
pub use source::Source;
pub use summary::plan_line;

use super::count_args::CountArgs;
use super::model_args::DialectArgs;
use super::open_args::OpenArgs;
use super::pass_args::PassArgs;
use super::{Failure, Reporter};
use crate::inspect::explain;
use crate::model::parameter_table::ParameterTable;
use crate::passes::compile::Compilation;
use std::path::PathBuf;

/// Show a checkpoint or a bundle: shape, parameters, graphs and the proof of the split
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of a checkpoint or a bundle, or a weights file
    #[arg(value_name = "MODEL|BUNDLE")]
    path: PathBuf,
    /// Print the parameters by module
    #[arg(long, conflicts_with_all = ["graph", "format", "cost", "explain"])]
    params: bool,
    /// Print every choice and size of the model, and what said so: a key of the configuration, or the dialect
    #[arg(long, conflicts_with_all = ["params", "graph", "fold", "format", "cost", "explain"])]
    wiring: bool,
    /// Print one graph: `step` (the step program with its delays), `step-recgen`, `step-hiergen`, or a compiled graph
    /// that the summary lists
    #[arg(long, value_name = "GRAPH")]
    graph: Option<String>,
    /// Print what a graph computes and moves, summed by scope, folded below this many parts of the scope path; of every
    /// graph without --graph. Folds --format dot in the same way
    #[arg(long, value_name = "DEPTH")]
    fold: Option<usize>,
    /// Form of the graph; `html` reports on all of them
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Predict the time of every graph, or of one, and the tokens a second of generation from the ceilings of a GPU
    #[arg(long, conflicts_with_all = ["fold", "format", "explain"])]
    cost: bool,
    /// Tell what a pass rewrote, and each place it looked at and declined, with the reason
    #[arg(long, value_name = "PASS", conflicts_with_all = ["graph", "fold", "format"])]
    explain: Option<String>,
    #[command(flatten)]
    opened: OpenArgs,
    #[command(flatten)]
    dialect: DialectArgs,
    #[command(flatten)]
    passes: PassArgs,
    #[command(flatten)]
    count: CountArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The text form, which photonc reads back
    Text,
    /// Graphviz, clustered and folded by scope
    Dot,
    /// Nodes, edges, scopes and what they cost as JSON
    Json,
    /// One page for a browser, all graphs, folded by scope
    Html,
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    let source = Source::open(&args.path, args.opened, &args.dialect, &args.passes, reporter)?;
    if args.passes.given() && args.explain.is_none() && matches!(source.model, Model::Bundle(_)) {
        return Err(Failure::usage(
            &"a bundle is compiled already; name a checkpoint, or leave out the options on passes",
        ));
    }
    if args.params {
        let table = ParameterTable::new(&source.config()?);
        return if reporter.json() { reporter.document(&table) } else { reporter.text(&table.to_string()) };
    }
    if args.wiring {
        return wiring::print(&source, reporter);
    }
    if let Some(pass) = &args.explain {
        return explained(source.compilation()?, pass, reporter);
    }
    if args.cost {
        return forms::cost(&source, args, reporter);
    }
    match (&args.graph, args.format) {
        (Some(_), Format::Html) => {
            Err(Failure::usage(&"--format html reports on every graph; leave out --graph"))
        }
        (None, Format::Dot | Format::Json) => {
            Err(Failure::usage(&"--format dot and json print one graph; name it with --graph"))
        }
        (Some(name), format) => forms::graph(&source, name, format, args, reporter),
        (None, Format::Html) => forms::report(&source, args, reporter),
        (None, Format::Text) if args.fold.is_some() => forms::folds(&source, args, reporter),
        (None, Format::Text) => match &source.model {
            Model::Checkpoint(checkpoint) => {
                summary::checkpoint(&args.path, checkpoint, source.compilation()?, reporter)
            }
            Model::Bundle(bundle) => summary::bundle(&args.path, bundle, reporter),
        },
    }
}

fn explained(compilation: &Compilation, pass: &str, reporter: &Reporter) -> Result<(), Failure> {
    let unknown = || {
        Failure::input("there is nothing to explain", &format_args!("no pass is called `{pass}`"))
            .help(&format!("there are {}", explain::passes(compilation).join(", ")))
    };
    let explanation = explain::explain(compilation, pass).ok_or_else(unknown)?;
    if reporter.json() { reporter.document(&explanation) } else { reporter.text(&explanation.to_string()) }
}
