//! Options on the passes, shared by the subcommands that compile. Owns what is told of each pass: times, and graphs as they
//! leave it.

use super::report::to_stderr;
use super::{Failure, Reporter};
use crate::graph::{Graph, text};
use crate::passes::compile::{PassOptions, pass_names};
use crate::passes::opt_level::OptLevel;
use crate::passes::pipeline::{Observer, Record};
use indexmap::IndexMap;
use serde_json::json;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// Which passes run, and what is told of them.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Passes")]
pub struct PassArgs {
    /// How much to optimise; results are the same at every level
    #[arg(short = 'O', long, value_enum, default_value_t = Level::Two, value_name = "LEVEL")]
    opt_level: Level,
    /// End the optional passes after the N-th rewrite, over all graphs: halving N finds the rewrite that breaks something
    #[arg(long, value_name = "N")]
    stop_after: Option<usize>,
    /// Widen the heads of window attention with zeros to a multiple of N, for kernels that want it; same results
    #[arg(long, value_name = "N")]
    pad_heads: Option<NonZeroUsize>,
    /// Tell on stderr how long each pass took, in how many runs, and what it rewrote
    #[arg(long)]
    time_passes: bool,
    /// Print on stderr each graph that PASS, or any pass (`all`), has just rewritten
    #[arg(long, value_name = "PASS|all")]
    print_after: Option<String>,
}

/// `-O`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// The equations as they were built
    #[value(name = "0")]
    Zero,
    /// Equal things once, dead things gone, constants folded
    #[value(name = "1")]
    One,
    /// Less work and fewer nodes
    #[default]
    #[value(name = "2")]
    Two,
    /// As 2, and what pays on some machines only: gate and up projections merged
    #[value(name = "3")]
    Three,
}

impl Level {
    pub fn opt_level(self) -> OptLevel {
        match self {
            Level::Zero => OptLevel::O0,
            Level::One => OptLevel::O1,
            Level::Two => OptLevel::O2,
            Level::Three => OptLevel::O3,
        }
    }
}

impl PassArgs {
    /// Whether anything but the default was asked for.
    pub fn given(&self) -> bool {
        self.opt_level != Level::default()
            || self.stop_after.is_some()
            || self.pad_heads.is_some()
            || self.time_passes
            || self.print_after.is_some()
    }

    /// Runs `work`, which compiles, and tells what was asked for.
    pub fn watching<T, E: Into<Failure>>(
        &self,
        reporter: &Reporter,
        work: impl FnOnce(PassOptions<'_>) -> Result<T, E>,
    ) -> Result<T, Failure> {
        if let Some(pass) = self.print_after.as_deref().filter(|pass| *pass != "all") {
            known(pass)?;
        }
        let mut watch = Watch { args: self, started: None, passes: IndexMap::new() };
        let level = self.opt_level.opt_level();
        let PassArgs { stop_after, pad_heads, .. } = *self;
        let options =
            PassOptions { stop_after, pad_heads, observer: Some(&mut watch), ..PassOptions::at(level) };
        let made = work(options).map_err(Into::into)?;
        if self.time_passes {
            to_stderr(&if reporter.json() { watch.as_json() } else { watch.as_text() });
        }
        Ok(made)
    }
}

/// Fails unless a pass is called so.
fn known(pass: &str) -> Result<(), Failure> {
    let names = pass_names();
    if names.contains(&pass) {
        return Ok(());
    }
    let help = format!("there are {}", names.join(", "));
    Err(Failure::usage(&format_args!("no pass is called `{pass}`")).help(&help))
}

/// Clock and printer of one compilation.
struct Watch<'a> {
    args: &'a PassArgs,
    started: Option<Instant>,
    passes: IndexMap<&'static str, Spent>,
}

/// What one pass took, over all graphs.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    runs: usize,
    rewrites: usize,
    time: Duration,
}

impl Observer for Watch<'_> {
    fn before(&mut self, _: &Graph, _: &'static str) {
        self.started = Some(Instant::now());
    }

    fn after(&mut self, graph: &Graph, record: &Record) {
        let time = self.started.take().map_or(Duration::ZERO, |started| started.elapsed());
        let spent = self.passes.entry(record.pass).or_default();
        spent.runs += 1;
        spent.rewrites += record.rewrites.count;
        spent.time += time;
        let asked = self.args.print_after.as_deref().is_some_and(|pass| pass == "all" || pass == record.pass);
        if asked && record.rewrites.count > 0 {
            let head = format!("// after {}, {} rewritten", record.pass, record.rewrites.count);
            to_stderr(&format!("{head}\n{}\n", text::print(graph)));
        }
    }
}

impl Watch<'_> {
    fn as_text(&self) -> String {
        let mut text = format!("{:<33}{:>6}{:>10}{:>12}\n", "pass", "runs", "rewrites", "seconds");
        let mut line = |name: &str, spent: &Spent| {
            let Spent { runs, rewrites, time } = spent;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<33}{runs:>6}{rewrites:>10}{:>12.6}", time.as_secs_f64());
        };
        let mut total = Spent::default();
        for (name, spent) in &self.passes {
            line(name, spent);
            total.runs += spent.runs;
            total.rewrites += spent.rewrites;
            total.time += spent.time;
        }
        line("all, with their verification", &total);
        text
    }

    fn as_json(&self) -> String {
        let passes = self.passes.iter().map(|(pass, spent)| {
            json!({
                "pass": pass,
                "runs": spent.runs,
                "rewrites": spent.rewrites,
                "seconds": spent.time.as_secs_f64(),
            })
        });
        format!("{}\n", json!({"passes": passes.collect::<Vec<_>>()}))
    }
}
