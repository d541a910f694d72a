//! Outputs of what happens inside a graph: every value that leaves its scope. Never names a value twice: where it is an
//! output already, that output stands for it.

use photonc_graph::graph::{Graph, NodeId, Scope};
use photonc_graph::ir::op::Op;
use std::collections::HashMap;

/// The graph as `name`, with every float that another scope reads among its outputs, as `tap.`, the scope and a number: a
/// scope of an unrolled graph is left once for each position. Weights, constants and what is made of them alone are left
/// out.
#[must_use]
pub fn with_taps(graph: &Graph, name: &str) -> Graph {
    with_taps_of(graph, name, |_| true)
}

/// The same, of the values that `seen` says can be seen.
#[must_use]
pub fn with_taps_of(graph: &Graph, name: &str, seen: impl Fn(NodeId) -> bool) -> Graph {
    let mut tapped = graph.clone();
    tapped.set_name(name);
    let fixed = graph.fixed();
    let leaves = |id: &NodeId| {
        let scope = graph.scope(*id);
        graph.ty(*id).dtype.is_float()
            && !fixed.contains(id)
            && !matches!(graph.op(*id), Op::Input { .. })
            && !graph.outputs().iter().any(|output| output.node == *id)
            && graph.users(*id).iter().any(|(user, _)| graph.scope(*user) != scope)
    };
    let mut counts: HashMap<&Scope, usize> = HashMap::new();
    for id in graph.order().into_iter().filter(leaves).filter(|id| seen(*id)) {
        let scope = graph.scope(id);
        let count = counts.entry(scope).or_insert(0);
        tapped.set_output(&format!("tap.{scope}.{count}"), id);
        *count += 1;
    }
    tapped
}
