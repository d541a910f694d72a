//! What a pass did and what it left alone: each place it looked at and declined, with the reason.

use crate::passes::compile::{Compilation, Plan};
use crate::passes::distribute::Recurrence;
use crate::passes::pipeline::Record;
use serde::Serialize;
use std::fmt;

/// One pass over every graph it ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Name of the pass.
    pub pass: String,
    /// Graphs in the order they were compiled.
    pub graphs: Vec<OnGraph>,
}

/// One pass on one graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnGraph {
    /// Name of the graph.
    pub graph: String,
    /// Times the pass ran; a fixpoint runs it until nothing is left to rewrite.
    pub runs: usize,
    /// Places rewritten, in all runs.
    pub rewrites: usize,
    /// Places declined in the last run, each with the reason.
    pub declined: Vec<DeclinedPlace>,
}

/// A place left as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeclinedPlace {
    /// Scope and operation.
    pub at: String,
    /// Why.
    pub reason: String,
    /// The way through the graph that is the reason, if one is: scopes and operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
}

/// The split of a step program in two: no rewrite of a graph, so not in the table of passes, but it declines like one.
const DISTRIBUTE: &str = "distribute";

/// Names of the passes that ran, in order of their first run, and `distribute`.
#[must_use]
pub fn passes(compilation: &Compilation) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for record in compilation.records.values().flatten() {
        if !names.contains(&record.pass) {
            names.push(record.pass);
        }
    }
    names.push(DISTRIBUTE);
    names
}

/// What `pass` did to each graph it ran on; `None` if it ran on none.
#[must_use]
pub fn explain(compilation: &Compilation, pass: &str) -> Option<Explanation> {
    let on_graph = |(graph, records): (&String, &Vec<Record>)| {
        let runs: Vec<&Record> = records.iter().filter(|record| record.pass == pass).collect();
        let last = runs.last()?;
        let places = last.rewrites.declined.iter();
        Some(OnGraph {
            graph: graph.clone(),
            runs: runs.len(),
            rewrites: runs.iter().map(|record| record.rewrites.count).sum(),
            declined: places
                .map(|place| DeclinedPlace {
                    at: place.at.clone(),
                    reason: place.reason.clone(),
                    path: Vec::new(),
                })
                .collect(),
        })
    };
    let graphs: Vec<OnGraph> = match pass {
        DISTRIBUTE => distribution(compilation),
        _ => compilation.records.iter().filter_map(on_graph).collect(),
    };
    (!graphs.is_empty()).then(|| Explanation { pass: pass.to_owned(), graphs })
}

fn distribution(compilation: &Compilation) -> Vec<OnGraph> {
    let plans = compilation.plans.iter();
    let on_graph = plans.map(|(protocol, plan)| {
        let declined = match plan {
            Plan::Distributed { certificate, .. } if !certificate.loops.is_empty() => {
                let line =
                    |one: &Recurrence| format!("{} nodes through {}", one.nodes, one.delays.join(", "));
                Some(DeclinedPlace {
                    at: "the expansion".to_owned(),
                    reason: "samples reach its own recurrences: it runs one meta-context after the other"
                        .to_owned(),
                    path: certificate.loops.iter().map(line).collect(),
                })
            }
            Plan::Distributed { .. } => None,
            Plan::Undistributed { declined, .. } => {
                let path = declined.path.iter().map(|node| format!("{} ({})", node.scope, node.op)).collect();
                let at = format!("state `{}`", declined.state);
                Some(DeclinedPlace { at, reason: declined.reason.clone(), path })
            }
        };
        let rewrites = usize::from(matches!(plan, Plan::Distributed { .. }));
        let graph = format!("step-{protocol}");
        OnGraph { graph, runs: 1, rewrites, declined: declined.into_iter().collect() }
    });
    on_graph.collect()
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.pass)?;
        for graph in &self.graphs {
            let declined = match graph.declined.len() {
                0 => "nothing declined".to_owned(),
                count => format!("{count} declined"),
            };
            let runs = if graph.runs == 1 { "run" } else { "runs" };
            writeln!(
                f,
                "  {}: {} rewritten in {} {runs}, {declined}",
                graph.graph, graph.rewrites, graph.runs
            )?;
            for place in &graph.declined {
                writeln!(f, "    {}\n      {}", place.at, place.reason)?;
                for node in &place.path {
                    writeln!(f, "        {node}")?;
                }
            }
        }
        Ok(())
    }
}
