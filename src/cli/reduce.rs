//! `photonc reduce`: the smallest graph with which a command fails. Owns the command, the candidate's file and what is told;
//! the search is the library's.

use super::output::{Kind, Output};
use super::report::path_text;
use super::{Failure, Reporter, input_file};
use crate::bundle::{Bundle, is_bundle};
use crate::graph::{Graph, text};
use crate::passes::opt_level::{OptLevel, TABLE};
use crate::passes::pipeline::Runner;
use crate::passes::reduce::{Culprit, Reduction, Stages, bisect, reduce};
use crate::staging::Begun;
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is written, in errors.
const REDUCED: &str = "the graph";

/// Shrink a graph with which a command fails, to the least that still fails
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: photonc reduce bundle --graph expand --passes O2 -- ./check.sh {}\n\nWith --passes the command is run on what the passes make of the graph: first the rewrite is found after which it fails, then the graph before that rewrite is shrunk."
)]
pub struct Args {
    /// A graph's text, or a bundle with --graph
    #[arg(value_name = "GRAPH|BUNDLE")]
    path: PathBuf,
    /// Which graph of the bundle
    #[arg(long, value_name = "NAME")]
    graph: Option<String>,
    /// Passes whose rewrite is to blame: a level (`O2`), or names with commas between them
    #[arg(long, value_name = "PASSES")]
    passes: Option<String>,
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = "reduced.pho")]
    out: PathBuf,
    /// Replace a file that stands there
    #[arg(long)]
    force: bool,
    /// Command that fails: exits with a status other than 0. `{}` stands for the file of the graph
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command on graphs and counts the runs.
struct Predicate<'a> {
    args: &'a Args,
    folder: tempfile::TempDir,
    shown: bool,
    runs: usize,
}

impl Predicate<'_> {
    fn fails(&mut self, graph: &Graph) -> Result<bool, Failure> {
        let file = self.folder.path().join("graph.pho");
        std::fs::write(&file, text::print(graph)).map_err(|error| unwritable(&file, &error))?;
        let words = self.args.command.iter().map(|word| {
            let word = word.to_string_lossy();
            word.replace("{}", &file.to_string_lossy())
        });
        let words: Vec<String> = words.collect();
        let Some((program, rest)) = words.split_first() else {
            return Err(Failure::usage(&"no command was given"));
        };
        let sink = || if self.shown { Stdio::inherit() } else { Stdio::null() };
        let mut command = Command::new(program);
        command.args(rest).stdin(Stdio::null()).stdout(Stdio::null()).stderr(sink());
        self.runs += 1;
        let status = command.status().map_err(|error| {
            Failure::input("the command cannot be run", &format_args!("{program}: {error}"))
        })?;
        Ok(!status.success())
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::input("the graph cannot be written", &format_args!("{}: {error}", path.display()))
}

pub fn run(args: &Args, reporter: &Reporter) -> Result<(), Failure> {
    if !args.command.iter().any(|word| word.to_string_lossy().contains("{}")) {
        return Err(Failure::usage(&"the command names no graph; put {} where its file belongs"));
    }
    if args.out.is_file() && !args.force {
        let found = format!("{} exists", args.out.display());
        return Err(Failure::input("nothing was reduced", &found)
            .help("pass --force to replace it, or name another file with --out"));
    }
    let stages = args.passes.as_deref().map(stages).transpose()?;
    let graph = open(args)?;
    // Whether the file may go was asked above.
    let out = Output::claim(&args.out, Kind::Anything, REDUCED)?;
    let folder = tempfile::tempdir().map_err(|error| unwritable(Path::new("a temporary folder"), &error))?;
    let _begun = Begun::folder(folder.path().to_owned(), Vec::new());
    let mut predicate = Predicate { args, folder, shown: reporter.verbose(), runs: 0 };
    let culprit = match &stages {
        Some(stages) => Some(blame(&graph, stages, &mut predicate)?),
        None if predicate.fails(&graph)? => None,
        None => return Err(succeeds("on the graph as it is")),
    };
    let reduction = match &culprit {
        Some(culprit) => shrink_before(culprit, &mut predicate)?,
        None => reduce(&graph, &mut |graph| predicate.fails(graph))?,
    };
    write(args, out, &reduction, culprit.as_ref())?;
    tell(args, &graph, &reduction, culprit.as_ref(), predicate.runs, reporter)
}

fn succeeds(place: &str) -> Failure {
    Failure::input(
        "there is nothing to reduce",
        &format_args!("the command succeeds {place}, expected a failure"),
    )
}

/// The graph that was named, verified.
fn open(args: &Args) -> Result<Graph, Failure> {
    let unusable = |cause: &dyn std::fmt::Display| Failure::input("the graph cannot be used", cause);
    let text = match &args.graph {
        Some(name) => Bundle::open_unverified(&args.path)?.graph_text(name)?,
        None if is_bundle(&args.path) => {
            let bundle = Bundle::open_unverified(&args.path)?;
            let names: Vec<String> = bundle.manifest().graphs.keys().cloned().collect();
            let help = format!("there are {}", names.join(", "));
            return Err(Failure::usage(&"a bundle has many graphs; name one with --graph").help(&help));
        }
        None => input_file::text(&args.path)
            .map_err(|error| unusable(&format_args!("{}: {error}", args.path.display())))?,
    };
    let graph = text::parse(&text).map_err(|errors| unusable(&errors))?;
    graph.verify().map_err(|error| unusable(&error))?;
    Ok(graph)
}

/// The passes of a level, or those named, each a stage of its own.
fn stages(text: &str) -> Result<Stages, Failure> {
    if let Some(level) = OptLevel::ALL.into_iter().find(|level| level.to_string() == text) {
        return Ok(level.stages());
    }
    let named = |name: &str| {
        let found = TABLE.iter().map(|row| (row.pass)()).find(|pass| pass.name() == name.trim());
        found.map(|pass| vec![pass]).ok_or_else(|| {
            let names: Vec<&str> = TABLE.iter().map(|row| (row.pass)().name()).collect();
            let help = format!("there are O0, O1, O2, O3 and {}", names.join(", "));
            Failure::usage(&format_args!("no pass is called `{}`", name.trim())).help(&help)
        })
    };
    text.split(',').map(named).collect()
}

fn blame(graph: &Graph, stages: &Stages, predicate: &mut Predicate<'_>) -> Result<Culprit, Failure> {
    if predicate.fails(graph)? {
        let cause = "the command fails on the graph before any pass";
        return Err(Failure::input("no pass is to blame", &cause)
            .help("leave out --passes to shrink the graph itself"));
    }
    let culprit = bisect(graph, stages, &mut |graph| predicate.fails(graph))?;
    culprit.ok_or_else(|| succeeds("on what the passes make of the graph"))
}

/// Shrinks the graph before the rewrite: the command succeeds on it, and fails (or the pass breaks) after the first
/// rewrite that the pass finds.
fn shrink_before(culprit: &Culprit, predicate: &mut Predicate<'_>) -> Result<Reduction, Failure> {
    let Ok(stages) = stages(culprit.pass) else {
        return Ok(Reduction { graph: culprit.before.clone(), tried: 0, kept: Vec::new() });
    };
    reduce(&culprit.before, &mut |graph| {
        let fails = match rewritten(graph, &stages) {
            Some(after) if text::print(&after) == text::print(graph) => false,
            Some(after) => predicate.fails(&after)?,
            None => true,
        };
        Ok::<bool, Failure>(fails && !predicate.fails(graph)?)
    })
}

/// The graph after one rewrite; `None` where the pass broke.
fn rewritten(graph: &Graph, stages: &Stages) -> Option<Graph> {
    let mut after = graph.clone();
    let mut runner = Runner::new(None, Some(1));
    for passes in stages {
        runner.run_to_fixpoint(&mut after, passes).ok()?;
    }
    Some(after)
}

fn write(args: &Args, out: Output, reduction: &Reduction, culprit: Option<&Culprit>) -> Result<(), Failure> {
    let words: Vec<_> = args.command.iter().map(|word| word.to_string_lossy()).collect();
    let when = match culprit {
        Some(culprit) => format!("after the first rewrite of {}", culprit.pass),
        None => "on this graph".to_owned(),
    };
    let command = words.join(" ").replace('\n', " ");
    let text = format!("// Fails {when}: {command}\n{}", text::print(&reduction.graph));
    out.write(text.as_bytes(), REDUCED)
}

fn tell(
    args: &Args,
    graph: &Graph,
    reduction: &Reduction,
    culprit: Option<&Culprit>,
    runs: usize,
    reporter: &Reporter,
) -> Result<(), Failure> {
    let mut operations: BTreeMap<&str, usize> = BTreeMap::new();
    for id in reduction.graph.nodes() {
        *operations.entry(reduction.graph.op(id).kind().def().name).or_default() += 1;
    }
    if reporter.json() {
        return reporter.document(&json!({
            "path": path_text(&args.out),
            "nodes_before": graph.len(),
            "nodes": reduction.graph.len(),
            "operations": operations,
            "command_runs": runs,
            "pass": culprit.map(|culprit| json!({"name": culprit.pass, "rewrite": culprit.rewrite})),
        }));
    }
    let mut text = String::new();
    if let Some(Culprit { rewrite, pass, after, .. }) = culprit {
        let broke = if after.is_none() { ", which breaks" } else { "" };
        text.push_str(&format!("rewrite {rewrite} is to blame, made by {pass}{broke}\n"));
    }
    let remains: Vec<String> = operations.iter().map(|(name, count)| format!("{count} {name}")).collect();
    text.push_str(&format!(
        "{}: {} of {} nodes remain after {runs} runs: {}\n",
        args.out.display(),
        reduction.graph.len(),
        graph.len(),
        remains.join(", ")
    ));
    reporter.text(&text)
}
