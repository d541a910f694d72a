//! Cuts one step out of a step program: delays become inputs, next states become outputs. Owns the names `X` and
//! `next.X`; an append to a cache becomes the new slice, which the runtime writes in place.

use photonc_graph::graph::{BuildError, Graph, NodeId};
use photonc_graph::ir::attr::Role;
use photonc_graph::ir::op::Op;
use std::collections::{HashMap, HashSet};

/// Nodes needed for `roots` within one step: the walk stops at delays and at `boundary`, which are included.
#[must_use]
pub fn within_step(
    graph: &Graph,
    roots: impl IntoIterator<Item = NodeId>,
    boundary: &[NodeId],
) -> HashSet<NodeId> {
    let mut seen = HashSet::new();
    let mut stack: Vec<NodeId> = roots.into_iter().collect();
    while let Some(id) = stack.pop() {
        if seen.insert(id) && !graph.op(id).is_delay() && !boundary.contains(&id) {
            stack.extend(graph.operands(id));
        }
    }
    seen
}

/// The next states of `delays` as outputs `next.X`; of a cache, the new slice.
#[must_use]
pub fn next_states(graph: &Graph, delays: &[NodeId]) -> Vec<(String, NodeId)> {
    let mut outputs = Vec::new();
    for delay in delays {
        let Op::Delay { name, .. } = graph.op(*delay) else { continue };
        for next in graph.operands(*delay) {
            let value = match (graph.op(next), &graph.operands(next)[..]) {
                (Op::CacheAppend, [cache, new, _]) if cache == delay => *new,
                _ => next,
            };
            outputs.push((format!("next.{name}"), value));
        }
    }
    outputs
}

/// A graph without delays that computes `roots` from inputs, state and the `boundary` values, which become inputs
/// of the given names.
///
/// # Errors
/// Never for a verified graph whose boundary values have distinct names.
pub fn straighten(
    graph: &Graph,
    name: &str,
    roots: &[(String, NodeId)],
    boundary: &[(NodeId, &str)],
) -> Result<Graph, BuildError> {
    let stops: Vec<NodeId> = boundary.iter().map(|(id, _)| *id).collect();
    let needed = within_step(graph, roots.iter().map(|(_, id)| *id), &stops);
    let mut straight = Graph::new(name);
    let mut map: HashMap<NodeId, NodeId> = HashMap::new();
    for id in graph.order().into_iter().filter(|id| needed.contains(id)) {
        let given = boundary.iter().find(|(stop, _)| *stop == id).map(|(_, name)| *name);
        let input = match (graph.op(id), given) {
            (_, Some(name)) => Some(name.into()),
            (Op::Delay { name, .. } | Op::Input { name, .. }, None) => Some(name.clone()),
            _ => None,
        };
        match input {
            Some(name) => {
                let op = Op::Input { name, ty: graph.ty(id).clone(), role: Role::Argument };
                let copy = straight.add(op, &[], graph.scope(id))?;
                map.insert(id, copy);
            }
            None => {
                straight.copy_node(graph, id, &mut map)?;
            }
        }
    }
    for (output, id) in roots {
        straight.set_output(output, map[id]);
    }
    Ok(straight)
}
