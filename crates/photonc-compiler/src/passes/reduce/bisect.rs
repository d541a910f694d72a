//! Finds the rewrite after which something fails: halves the number of rewrites that a pipeline may make.

use crate::passes::Pass;
use crate::passes::pipeline::{PipelineError, Record, Runner};
use photonc_graph::graph::Graph;

/// Stages of a pipeline, each run in rounds until it settles.
pub type Stages = Vec<Vec<Box<dyn Pass>>>;

/// The rewrite that makes the difference.
#[derive(Clone, Debug)]
pub struct Culprit {
    /// Its number, from 1.
    pub rewrite: usize,
    /// The pass that makes it.
    pub pass: &'static str,
    /// The graph before it, which does not fail.
    pub before: Graph,
    /// The graph after it, which fails; `None` where the pass broke.
    pub after: Option<Graph>,
}

/// The first rewrite found by halving whose graph fails while the one before does not; a pass that breaks fails. `None`
/// where the whole pipeline leaves a graph that does not fail.
///
/// # Errors
/// What `fails` returns.
pub fn bisect<E>(
    graph: &Graph,
    stages: &Stages,
    fails: &mut dyn FnMut(&Graph) -> Result<bool, E>,
) -> Result<Option<Culprit>, E> {
    let mut failing = |limit: Option<usize>| -> Result<Option<Run>, E> {
        let run = run(graph, stages, limit);
        let fails = match &run.graph {
            Some(graph) => fails(graph)?,
            None => true,
        };
        Ok(fails.then_some(run))
    };
    let Some(mut worst) = failing(None)? else { return Ok(None) };
    // A run that broke does not tell how many rewrites it made; doubling finds a bound.
    let mut high = match &worst.graph {
        Some(_) => worst.rewrites,
        None => {
            let mut bound = 1;
            loop {
                match failing(Some(bound))? {
                    Some(run) => {
                        worst = run;
                        break bound;
                    }
                    None => bound *= 2,
                }
            }
        }
    };
    let mut low = 0;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match failing(Some(middle))? {
            Some(run) => (worst, high) = (run, middle),
            None => low = middle,
        }
    }
    let before = run(graph, stages, Some(low)).graph.unwrap_or_else(|| graph.clone());
    Ok(Some(Culprit { rewrite: high, pass: worst.pass, before, after: worst.graph }))
}

struct Run {
    /// `None` where a pass broke.
    graph: Option<Graph>,
    rewrites: usize,
    /// The last pass that rewrote something, or that broke.
    pass: &'static str,
}

fn run(graph: &Graph, stages: &Stages, limit: Option<usize>) -> Run {
    let mut graph = graph.clone();
    let mut runner = Runner::new(None, limit);
    let mut records: Vec<Record> = Vec::new();
    for passes in stages {
        match runner.run_to_fixpoint(&mut graph, passes) {
            Ok(more) => records.extend(more),
            Err(error) => {
                let PipelineError { pass, .. } = *error;
                return Run { graph: None, rewrites: 0, pass };
            }
        }
    }
    let pass = records.iter().rev().find(|record| record.rewrites.count > 0).map_or("", |record| record.pass);
    Run { graph: Some(graph), rewrites: records.iter().map(|record| record.rewrites.count).sum(), pass }
}
