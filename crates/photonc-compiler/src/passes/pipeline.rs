//! Runs passes. Owns verification after every pass, the honesty check (a pass that reports no rewrites must not have
//! changed the graph, and reports as many as it asked for) and the bounds on fixpoints and rewrites; on a break it names the pass and what ran before.

use super::{Pass, PassError};
use photonc_graph::graph::{Graph, VerifyError};
use std::fmt::Write as _;

/// Rounds after which a pipeline that still finds work is taken for one that never settles.
const MAX_ROUNDS: usize = 32;

/// A pipeline that broke, and where.
#[derive(Debug, thiserror::Error)]
#[error("pass `{pass}` on graph `{graph}` (after {}): {fault}", history(.before))]
pub struct PipelineError {
    /// The pass that broke.
    pub pass: &'static str,
    /// Name of the graph.
    pub graph: String,
    /// Passes that ran before it, in order.
    pub before: Vec<&'static str>,
    /// What happened.
    pub fault: Fault,
    /// Text of the graph before the pass.
    pub text_before: String,
    /// Text of the graph after the pass, as far as it came.
    pub text_after: String,
}

fn history(before: &[&'static str]) -> String {
    if before.is_empty() { "nothing".to_owned() } else { before.join(", ") }
}

/// What a pass did wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The graph does not have the form the pass needs.
    #[error("{at}: {reason}")]
    Form {
        /// Scope of the node.
        at: String,
        /// What is missing.
        reason: &'static str,
    },
    /// The pass failed.
    #[error(transparent)]
    Failed(#[from] PassError),
    /// The pass left an invalid graph.
    #[error("left an invalid graph: {0}")]
    Invalid(#[from] VerifyError),
    /// The pass reported no rewrites but changed the graph.
    #[error("reported no rewrites but changed the graph")]
    Dishonest,
    /// The pass made rewrites that it did not ask for, or asked for some that it did not report.
    #[error("asked for {asked} rewrites but reported {reported}")]
    Uncounted {
        /// Calls of `may_rewrite` that were granted.
        asked: usize,
        /// Rewrites it says it made.
        reported: usize,
    },
    /// The pipeline still found work after many rounds.
    #[error("still rewriting after {MAX_ROUNDS} rounds")]
    Unsettled,
}

/// Rewrites made by one pass in one run of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Name of the pass.
    pub pass: &'static str,
    /// What it did.
    pub rewrites: super::Rewrites,
}

/// Told of every pass before and after it runs: clocks and printers of the command line.
pub trait Observer {
    /// `pass` is about to run on `graph`.
    fn before(&mut self, graph: &Graph, pass: &'static str);
    /// `pass` ran on `graph` and left it valid.
    fn after(&mut self, graph: &Graph, record: &Record);
}

/// Runs passes on one graph after the other. Owns what all of them share: who is told, and how many rewrites are left.
#[derive(Default)]
pub struct Runner<'o> {
    observer: Option<&'o mut dyn Observer>,
    /// Rewrites that optional passes may still make.
    rewrites_left: Option<usize>,
}

impl<'o> Runner<'o> {
    /// Tells `observer`, and ends optional passes after the rewrite `stop_after`, counted over all graphs.
    #[must_use]
    pub fn new(observer: Option<&'o mut dyn Observer>, stop_after: Option<usize>) -> Self {
        Runner { observer, rewrites_left: stop_after }
    }

    /// Runs `passes` once, in order and to their end, whatever was rewritten before: later stages need what they make.
    ///
    /// # Errors
    /// Names the pass that broke, with the graphs before and after.
    pub fn run(
        &mut self,
        graph: &mut Graph,
        passes: &[Box<dyn Pass>],
    ) -> Result<Vec<Record>, Box<PipelineError>> {
        let mut records: Vec<Record> = Vec::new();
        for pass in passes {
            self.step(graph, pass.as_ref(), None, &mut records)?;
        }
        Ok(records)
    }

    /// Runs `passes` in rounds until none finds work or no rewrites are left.
    ///
    /// # Errors
    /// As [`Runner::run`]; also when the rounds do not settle.
    pub fn run_to_fixpoint(
        &mut self,
        graph: &mut Graph,
        passes: &[Box<dyn Pass>],
    ) -> Result<Vec<Record>, Box<PipelineError>> {
        let mut records = Vec::new();
        for _ in 0..MAX_ROUNDS {
            let done = records.len();
            for pass in passes {
                if self.rewrites_left == Some(0) {
                    return Ok(records);
                }
                self.step(graph, pass.as_ref(), self.rewrites_left, &mut records)?;
                if let (Some(left), Some(record)) = (&mut self.rewrites_left, records.last()) {
                    *left = left.saturating_sub(record.rewrites.count);
                }
            }
            if records[done..].iter().all(|record| record.rewrites.count == 0) {
                return Ok(records);
            }
        }
        Err(Box::new(PipelineError {
            pass: passes.last().map_or("", |pass| pass.name()),
            graph: graph.name().to_owned(),
            before: records.iter().map(|record| record.pass).collect(),
            fault: Fault::Unsettled,
            text_before: String::new(),
            text_after: fingerprint(graph),
        }))
    }

    fn step(
        &mut self,
        graph: &mut Graph,
        pass: &dyn Pass,
        limit: Option<usize>,
        records: &mut Vec<Record>,
    ) -> Result<(), Box<PipelineError>> {
        if let Some(observer) = &mut self.observer {
            observer.before(graph, pass.name());
        }
        let before = graph.clone();
        graph.allow_rewrites(limit);
        let outcome = apply(graph, pass, &before);
        graph.allow_rewrites(None);
        let rewrites = outcome.map_err(|fault| {
            Box::new(PipelineError {
                pass: pass.name(),
                graph: graph.name().to_owned(),
                before: records.iter().map(|record| record.pass).collect(),
                fault,
                text_before: fingerprint(&before),
                text_after: fingerprint(graph),
            })
        })?;
        let record = Record { pass: pass.name(), rewrites };
        if let Some(observer) = &mut self.observer {
            observer.after(graph, &record);
        }
        records.push(record);
        Ok(())
    }
}

/// Runs `passes` once, in order.
///
/// # Errors
/// Names the pass that broke, with the graphs before and after.
pub fn run(graph: &mut Graph, passes: &[Box<dyn Pass>]) -> Result<Vec<Record>, Box<PipelineError>> {
    Runner::default().run(graph, passes)
}

/// Runs `passes` in rounds until none finds work.
///
/// # Errors
/// As [`run`]; also when the rounds do not settle.
pub fn run_to_fixpoint(
    graph: &mut Graph,
    passes: &[Box<dyn Pass>],
) -> Result<Vec<Record>, Box<PipelineError>> {
    Runner::default().run_to_fixpoint(graph, passes)
}

fn apply(graph: &mut Graph, pass: &dyn Pass, before: &Graph) -> Result<super::Rewrites, Fault> {
    if let Some((node, reason)) = pass.requires().broken_by(graph) {
        return Err(Fault::Form { at: graph.scope(node).to_string(), reason });
    }
    let rewrites = pass.run(graph)?;
    graph.sweep();
    graph.verify()?;
    let (asked, reported) = (graph.rewrites_started(), rewrites.count);
    if asked != reported {
        return Err(Fault::Uncounted { asked, reported });
    }
    if rewrites.count == 0 && fingerprint(graph) != fingerprint(before) {
        return Err(Fault::Dishonest);
    }
    Ok(rewrites)
}

/// A text that differs whenever anything a pass could change differs.
fn fingerprint(graph: &Graph) -> String {
    let mut text = String::new();
    for id in graph.nodes() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{id:?} {:?} {:?} {:?} {}",
            graph.op(id),
            graph.operands(id),
            graph.label(id),
            graph.scope(id)
        );
    }
    let _ = write!(text, "{:?}", graph.outputs());
    text
}

#[cfg(test)]
mod tests;
