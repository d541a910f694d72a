//! Shrinks a graph that makes something fail. Owns the order of the moves and what counts as smaller; refuses candidates
//! that do not verify. The result is minimal: no single move leaves a smaller valid graph that still fails.

mod bisect;
mod moves;
mod rebuild;
mod sizes;

use photonc_graph::graph::{Graph, text};
use photonc_graph::ir::dim::{Dim, Symbol};
use photonc_graph::ir::op::Op;
use std::collections::HashSet;

pub use bisect::{Culprit, Stages, bisect};
pub use moves::Move;

/// A reduced graph, and how it came about.
#[derive(Clone, Debug)]
pub struct Reduction {
    /// The smallest graph found that still fails.
    pub graph: Graph,
    /// Graphs that were tried, each once.
    pub tried: usize,
    /// Moves that were kept.
    pub kept: Vec<Move>,
}

/// Shrinks `graph`, which fails, by every move until none leaves a smaller graph that fails.
///
/// `fails` should always say the same of the same graph: each is asked about once.
///
/// # Errors
/// What `fails` returns.
pub fn reduce<E>(graph: &Graph, fails: &mut dyn FnMut(&Graph) -> Result<bool, E>) -> Result<Reduction, E> {
    let mut reduction = Reduction { graph: graph.clone(), tried: 0, kept: Vec::new() };
    let mut refused: HashSet<String> = HashSet::new();
    'search: loop {
        for step in Move::all(&reduction.graph) {
            let Some(candidate) = smaller(&reduction.graph, &step) else { continue };
            let printed = text::print(&candidate);
            if refused.contains(&printed) {
                continue;
            }
            reduction.tried += 1;
            if fails(&candidate)? {
                reduction.graph = candidate;
                reduction.kept.push(step);
                continue 'search;
            }
            refused.insert(printed);
        }
        return Ok(reduction);
    }
}

/// Every smaller valid graph that one move leads to.
pub fn candidates(graph: &Graph) -> impl Iterator<Item = Graph> {
    Move::all(graph).into_iter().filter_map(|step| smaller(graph, &step))
}

fn smaller(graph: &Graph, step: &Move) -> Option<Graph> {
    let candidate = step.apply(graph)?;
    (size(&candidate) < size(graph) && candidate.verify().is_ok()).then_some(candidate)
}

/// What a move must make smaller; the first part that differs decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Size {
    /// Operations count most, inputs least: a value that is given needs no explanation.
    nodes: usize,
    outputs: usize,
    /// Sum of all axes of all values; a symbol counts as more than any number worth keeping.
    axes: usize,
    /// Elements of constants that are not zero.
    constants: usize,
    labels: usize,
}

/// What each symbol of an axis counts.
const SYMBOL: usize = 1 << 20;

fn axis(dim: &Dim) -> usize {
    let symbols = || Symbol::ALL.into_iter().filter(|symbol| dim.contains(*symbol)).count();
    dim.as_const().unwrap_or_else(|| SYMBOL * symbols())
}

fn size(graph: &Graph) -> Size {
    let mut size = Size { nodes: 0, outputs: graph.outputs().len(), axes: 0, constants: 0, labels: 0 };
    for id in graph.nodes() {
        size.nodes += match graph.op(id) {
            Op::Input { .. } => 1,
            Op::Weight { .. } | Op::QuantizedWeight { .. } | Op::Const { .. } | Op::Delay { .. } => 2,
            _ => 3,
        };
        size.axes += graph.ty(id).shape.0.iter().map(axis).sum::<usize>();
        size.labels += usize::from(graph.label(id).is_some());
        if let Op::Const { value } = graph.op(id) {
            size.constants += value.nonzero();
        }
    }
    size
}

#[cfg(test)]
mod tests;
