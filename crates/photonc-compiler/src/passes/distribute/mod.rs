//! Loop distribution of the step program (Allen and Kennedy): its strongly connected components in topological order, each
//! a loop of its own. Proves from the data flow that the recurrence of a state reads no sample, and splits the program into a
//! coarse graph of the recurrences that read none, which can run ahead, and an expansion: without a recurrence it runs many
//! steps as rows; with some, which samples reach, it stays step by step, and what precedes them goes wide.
//! Knows no level, no protocol and no name but that of the state it is asked about; declines with the path that
//! breaks the proof.

mod certificate;
mod looped;
mod row_wise;
mod widen;

use crate::passes::straighten;
use photonc_graph::graph::{BuildError, Graph, NodeId};
use photonc_graph::ir::dim::Symbol;
use photonc_graph::ir::op::Op;
use std::collections::HashSet;

pub use photonc_bundle::program::{Certificate, CutValue, Declined, PathNode, Recurrence};

/// The two graphs of a distributed step program and the proof that they are it.
#[derive(Clone, Debug)]
pub struct Distributed {
    /// The recurrence with its ancestors: one step, state in and out, the cut values as outputs.
    pub coarse: Graph,
    /// The rest over a whole run-ahead: cut values of `meta` steps in, every output of the step program out. Where it has
    /// recurrences of its own, the rest of one step.
    pub expand: Graph,
    /// What precedes those recurrences, over a whole run-ahead: cut values of `meta` steps in, what the rest of a step reads
    /// out.
    pub lead: Option<Graph>,
    /// What was proved.
    pub certificate: Certificate,
}

/// Why a step program was not distributed.
#[derive(Debug, thiserror::Error)]
pub enum NotDistributed {
    /// The data flow forbids it.
    #[error("{0}")]
    Declined(Declined),
    /// A graph that does not type came out: a bug.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// What the data flow of a step program says about its recurrences.
#[derive(Clone, Debug)]
pub struct Dependence {
    /// Strongly connected components with a cycle, delay edges included.
    pub recurrences: Vec<Vec<NodeId>>,
    /// Every node a `sample` reaches, through delays.
    pub tainted: HashSet<NodeId>,
    /// Nodes that depend on no input and no state: weights, constants and what is made of them alone.
    pub fixed: HashSet<NodeId>,
}

impl Dependence {
    /// Analyses a step program.
    #[must_use]
    pub fn of(graph: &Graph) -> Self {
        let tainted = graph.descendants(graph.select(|op| matches!(op, Op::Sample { .. })));
        Dependence { recurrences: graph.recurrences(), tainted, fixed: graph.fixed() }
    }
}

/// Distributes a step program around the recurrence that carries the delay called `state`.
///
/// # Errors
/// [`NotDistributed::Declined`] names the shortest path from a `sample` to the state, or what else stands in the way.
pub fn distribute(graph: &Graph, state: &str) -> Result<Distributed, NotDistributed> {
    let dependence = Dependence::of(graph);
    let anchor = prove(graph, &dependence, state).map_err(NotDistributed::Declined)?;
    if let Some(id) = graph.nodes().into_iter().find(|id| graph.ty(*id).shape.contains(Symbol::Meta)) {
        let reason =
            format!("{} of {} has a meta axis already", graph.op(id).kind().def().name, graph.ty(id));
        return Err(NotDistributed::Declined(Declined::without_path(graph.scope(id).as_str(), reason)));
    }
    let (looped, free): (Vec<_>, Vec<_>) =
        dependence.recurrences.iter().partition(|component| is_tainted(&dependence, component));
    let coarse = graph.ancestors(free.into_iter().flatten().copied());
    if !coarse.contains(&anchor) {
        let reason = format!("`{state}` is not part of any recurrence, so there is nothing to run ahead");
        return Err(NotDistributed::Declined(Declined::without_path(state, reason)));
    }
    let split = Split::new(graph, &dependence, coarse);
    let coarse_graph = split.coarse_graph()?;
    let (lead, expand) = match looped.is_empty() {
        true => (None, widen::widen(&split)?),
        false => looped::looped(&split, looped.into_iter().flatten().copied())?,
    };
    let certificate = certificate::certificate(&split, &dependence, state);
    Ok(Distributed { coarse: coarse_graph, expand, lead, certificate })
}

/// Whether a sample reaches a recurrence: it reaches all of it then.
fn is_tainted(dependence: &Dependence, component: &[NodeId]) -> bool {
    component.iter().any(|id| dependence.tainted.contains(id))
}

/// The delay called `state`, if no sample reaches it.
fn prove(graph: &Graph, dependence: &Dependence, state: &str) -> Result<NodeId, Declined> {
    let named = |id: &NodeId| matches!(graph.op(*id), Op::Delay { name, .. } if &**name == state);
    let Some(anchor) = graph.delays().into_iter().find(named) else {
        return Err(Declined::without_path(state, format!("no state is called `{state}`")));
    };
    if !dependence.tainted.contains(&anchor) {
        return Ok(anchor);
    }
    let samples = graph.select(|op| matches!(op, Op::Sample { .. }));
    let path = graph.shortest_path(&samples, anchor).unwrap_or_default();
    Err(certificate::declined(graph, state, anchor, path))
}

/// A step program divided in two, before either part is built.
pub(crate) struct Split<'g> {
    pub graph: &'g Graph,
    pub coarse: HashSet<NodeId>,
    /// Nodes of the expansion, in order of the step program.
    pub rest: Vec<NodeId>,
    /// Values that cross from coarse to expansion, with their names.
    pub cut: Vec<(NodeId, String)>,
    /// What the expansion hands on, with its names.
    pub roots: Vec<(NodeId, String)>,
    pub fixed: HashSet<NodeId>,
}

impl<'g> Split<'g> {
    fn new(graph: &'g Graph, dependence: &Dependence, coarse: HashSet<NodeId>) -> Self {
        let order = graph.order();
        let free = |id: &NodeId| dependence.fixed.contains(id) || matches!(graph.op(*id), Op::Input { .. });
        let rest: Vec<NodeId> = order.iter().copied().filter(|id| !coarse.contains(id)).collect();
        let outputs: HashSet<NodeId> = graph.outputs().iter().map(|output| output.node).collect();
        let crosses = |id: &NodeId| {
            coarse.contains(id)
                && !free(id)
                && (outputs.contains(id) || graph.users(*id).iter().any(|(user, _)| !coarse.contains(user)))
        };
        let cut = order
            .iter()
            .copied()
            .filter(crosses)
            .enumerate()
            .map(|(index, id)| (id, graph.label(id).map_or_else(|| format!("cut.{index}"), str::to_owned)))
            .collect();
        let roots = graph.outputs().iter().map(|output| (output.node, output.name.to_string())).collect();
        Split { graph, coarse, rest, cut, roots, fixed: dependence.fixed.clone() }
    }

    /// One step of the recurrences: state in and out, cut values out.
    fn coarse_graph(&self) -> Result<Graph, BuildError> {
        let delays: Vec<NodeId> =
            self.graph.delays().into_iter().filter(|delay| self.coarse.contains(delay)).collect();
        let mut roots: Vec<(String, NodeId)> =
            self.cut.iter().map(|(id, name)| (name.clone(), *id)).collect();
        roots.extend(straighten::next_states(self.graph, &delays));
        straighten::straighten(self.graph, "coarse", &roots, &[])
    }
}
