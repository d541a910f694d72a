//! Where attention's scale is free. Rotated queries and keys that meet only in attention of one scale take its square
//! root from the tables of cosines and sines that rotate them; nobody else sees them. Keys that leave the graph, or
//! come into it, stay as they are: caches hold the same values whatever the graph.

use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::attr::Real;
use photonc_graph::ir::op::Op;
use std::collections::HashMap;

/// Rotations and attentions that share a scale, each with it.
pub(super) fn scaled_by_tables(graph: &Graph) -> HashMap<NodeId, Real> {
    let mut ropes: HashMap<NodeId, Real> = HashMap::new();
    let mut attentions: HashMap<NodeId, Real> = HashMap::new();
    for id in graph.nodes() {
        if let Op::Attention { scale, .. } = graph.op(id) {
            attentions.insert(id, *scale);
            for rope in sources(graph, id).unwrap_or_default() {
                ropes.entry(rope).or_insert(*scale);
            }
        }
    }
    // Each round only takes entries away, so this ends.
    loop {
        let before = ropes.len() + attentions.len();
        let kept = ropes.clone();
        attentions.retain(|id, scale| {
            sources(graph, *id).is_some_and(|found| found.iter().all(|rope| kept.get(rope) == Some(scale)))
        });
        ropes.retain(|id, scale| meets_only(graph, *id, &attentions, *scale));
        if ropes.len() + attentions.len() == before {
            break;
        }
    }
    ropes.extend(attentions);
    ropes
}

/// The rotations that queries and keys of an attention are made of; `None` if they are made of anything else.
fn sources(graph: &Graph, attention: NodeId) -> Option<Vec<NodeId>> {
    let mut found = Vec::new();
    let mut open: Vec<NodeId> = graph.operands(attention).into_iter().take(2).collect();
    while let Some(id) = open.pop() {
        match graph.op(id) {
            Op::Rope { .. } => found.push(id),
            Op::Concat { .. } | Op::Slice { .. } => open.extend(graph.operands(id)),
            _ => return None,
        }
    }
    Some(found)
}

/// Whether a value is read, through moves of its elements, as query or key of these attentions alone.
fn meets_only(graph: &Graph, id: NodeId, attentions: &HashMap<NodeId, Real>, scale: Real) -> bool {
    if graph.outputs().iter().any(|output| output.node == id) {
        return false;
    }
    graph.users(id).into_iter().all(|(user, slot)| match graph.op(user) {
        Op::Attention { .. } => slot < 2 && attentions.get(&user) == Some(&scale),
        Op::Concat { .. } | Op::Slice { .. } => meets_only(graph, user, attentions, scale),
        _ => false,
    })
}
