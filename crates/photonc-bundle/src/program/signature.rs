//! What graphs read and yield. Owns the names of graphs and values that compiler and runtime share.

use indexmap::IndexMap;
use photonc_graph::graph::Graph;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::Type;

/// Prefill, shared by the protocols.
pub const ENCODE: &str = "encode";
/// The teacher-forced forward.
pub const SCORE: &str = "score";
/// One position of a level-1 window, for samplers outside the graphs.
pub const WINDOW: &str = "expand_step";
/// Marks an output as the next value of the input of that name.
pub const NEXT: &str = "next.";

/// Names and types of a graph's inputs and outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// Inputs in the graph's order.
    pub inputs: IndexMap<String, Type>,
    /// Outputs in the graph's order.
    pub outputs: IndexMap<String, Type>,
}

/// The signature of a graph in memory.
#[must_use]
pub fn signature(graph: &Graph) -> Signature {
    let inputs = graph.inputs().into_iter().filter_map(|id| match graph.op(id) {
        Op::Input { name, ty, .. } => Some((name.to_string(), ty.clone())),
        _ => None,
    });
    let outputs =
        graph.outputs().iter().map(|output| (output.name.to_string(), graph.ty(output.node).clone()));
    Signature { inputs: inputs.collect(), outputs: outputs.collect() }
}
