//! Keys of windows that later places read: which attention writes each to the window's memory, and an order of work in which it
//! does so before they are read. Owns that order; what a kernel does is for `attention`.

use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::op::Op;
use std::collections::{HashMap, HashSet};

/// The attention that writes each new key, among those whose result is needed.
pub(super) fn storers(graph: &Graph, order: &[NodeId], live: &HashSet<NodeId>) -> HashMap<NodeId, NodeId> {
    let attentions = order.iter().filter(|id| live.contains(id));
    attentions.filter_map(|id| Some((*segments(graph, key_of(graph, *id)?).last()?, *id))).collect()
}

/// `order` with every attention behind those that write keys which it reads.
pub(super) fn behind_storers(
    graph: &Graph,
    order: &[NodeId],
    storers: &HashMap<NodeId, NodeId>,
) -> Vec<NodeId> {
    let mut walk = Walk { graph, storers, done: HashSet::new(), order: Vec::with_capacity(order.len()) };
    order.iter().for_each(|id| walk.visit(*id));
    walk.order
}

struct Walk<'g> {
    graph: &'g Graph,
    storers: &'g HashMap<NodeId, NodeId>,
    done: HashSet<NodeId>,
    order: Vec<NodeId>,
}

impl Walk<'_> {
    fn visit(&mut self, id: NodeId) {
        if !self.done.insert(id) {
            return;
        }
        if !self.graph.op(id).is_delay() {
            self.graph.operands(id).into_iter().for_each(|operand| self.visit(operand));
        }
        if let Some(key) = key_of(self.graph, id) {
            let mut keys = segments(self.graph, key);
            keys.pop();
            // What writes a key reads no later one, so that this comes to an end.
            let before = keys.iter().filter_map(|key| self.storers.get(key)).copied().collect::<Vec<_>>();
            before.into_iter().for_each(|attention| self.visit(attention));
        }
        self.order.push(id);
    }
}

fn key_of(graph: &Graph, id: NodeId) -> Option<NodeId> {
    match graph.op(id) {
        Op::Attention { .. } => graph.operands(id).get(1).copied(),
        _ => None,
    }
}

/// The values that keys or values are put together of, oldest first.
pub(super) fn segments(graph: &Graph, id: NodeId) -> Vec<NodeId> {
    match graph.op(id) {
        Op::Concat { axis: 2 } => {
            graph.operands(id).into_iter().flat_map(|part| segments(graph, part)).collect()
        }
        _ => vec![id],
    }
}
