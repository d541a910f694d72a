//! What a pass did and what it left alone: each place it looked at and declined, with the reason.

use crate::passes::pipeline::Record;
use indexmap::IndexMap;
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
}

/// Names of the passes that ran, in order of their first run.
#[must_use]
pub fn passes(records: &IndexMap<String, Vec<Record>>) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for record in records.values().flatten() {
        if !names.contains(&record.pass) {
            names.push(record.pass);
        }
    }
    names
}

/// What `pass` did to each graph it ran on; `None` if it ran on none.
#[must_use]
pub fn explain(records: &IndexMap<String, Vec<Record>>, pass: &str) -> Option<Explanation> {
    let on_graph = |(graph, records): (&String, &Vec<Record>)| {
        let runs: Vec<&Record> = records.iter().filter(|record| record.pass == pass).collect();
        let last = runs.last()?;
        let places = last.rewrites.declined.iter();
        Some(OnGraph {
            graph: graph.clone(),
            runs: runs.len(),
            rewrites: runs.iter().map(|record| record.rewrites.count).sum(),
            declined: places
                .map(|place| DeclinedPlace { at: place.at.clone(), reason: place.reason.clone() })
                .collect(),
        })
    };
    let graphs: Vec<OnGraph> = records.iter().filter_map(on_graph).collect();
    (!graphs.is_empty()).then(|| Explanation { pass: pass.to_owned(), graphs })
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
            }
        }
        Ok(())
    }
}
