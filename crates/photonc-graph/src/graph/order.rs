//! Deterministic orders of a graph. Owns the one topological order everything uses: operands first, ties by
//! creation, the edge into a delay ignored (it belongs to the next step).

use super::{Graph, NodeId};
use petgraph::Direction;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

impl Graph {
    /// Every live node after its operands; a delay counts as having none. A node on a cycle without a delay is
    /// left out, which `verify` reports.
    #[must_use]
    pub fn order(&self) -> Vec<NodeId> {
        let nodes = self.nodes();
        let mut waiting: HashMap<NodeId, usize> = HashMap::with_capacity(nodes.len());
        let mut ready: BinaryHeap<Reverse<(u64, NodeId)>> = BinaryHeap::new();
        for id in &nodes {
            let count = if self.op(*id).is_delay() {
                0
            } else {
                self.nodes.edges_directed(id.0, Direction::Incoming).count()
            };
            waiting.insert(*id, count);
            if count == 0 {
                ready.push(Reverse((self.serial(*id), *id)));
            }
        }
        let mut order = Vec::with_capacity(nodes.len());
        while let Some(Reverse((_, id))) = ready.pop() {
            order.push(id);
            for (user, _) in self.users(id) {
                if self.op(user).is_delay() {
                    continue;
                }
                if let Some(count) = waiting.get_mut(&user) {
                    *count -= 1;
                    if *count == 0 {
                        ready.push(Reverse((self.serial(user), user)));
                    }
                }
            }
        }
        order
    }

    /// A shortest path of edges, delay edges included, from any of `from` to `to`, both ends included.
    #[must_use]
    pub fn shortest_path(&self, from: &[NodeId], to: NodeId) -> Option<Vec<NodeId>> {
        let mut came: HashMap<NodeId, Option<NodeId>> = from.iter().map(|id| (*id, None)).collect();
        let mut queue: VecDeque<NodeId> = from.iter().copied().collect();
        while let Some(id) = queue.pop_front() {
            if id == to {
                let mut path = vec![id];
                while let Some(Some(before)) = path.last().and_then(|last| came.get(last)) {
                    path.push(*before);
                }
                path.reverse();
                return Some(path);
            }
            for (user, _) in self.users(id) {
                came.entry(user).or_insert_with(|| {
                    queue.push_back(user);
                    Some(id)
                });
            }
        }
        None
    }

    /// Every live node in groups, users before their operands, delay edges included: a group is one node, or the nodes of
    /// a cycle, sorted by creation.
    #[must_use]
    pub fn users_first(&self) -> Vec<Vec<NodeId>> {
        // The components come in reverse topological order, and edges run from operand to user.
        let components = petgraph::algo::kosaraju_scc(&self.nodes).into_iter();
        let live = components.map(|component| {
            let mut ids: Vec<NodeId> =
                component.into_iter().map(NodeId).filter(|id| !self.node(*id).erased).collect();
            ids.sort_unstable_by_key(|id| self.serial(*id));
            ids
        });
        live.filter(|ids| !ids.is_empty()).collect()
    }

    /// Strongly connected components that contain a cycle, delay edges included; each sorted by creation, the
    /// components by their first node.
    #[must_use]
    pub fn recurrences(&self) -> Vec<Vec<NodeId>> {
        let mut found: Vec<Vec<NodeId>> = petgraph::algo::tarjan_scc(&self.nodes)
            .into_iter()
            .filter(|component| match component[..] {
                [one] => self.nodes.find_edge(one, one).is_some(),
                _ => true,
            })
            .map(|component| {
                let mut ids: Vec<NodeId> = component.into_iter().map(NodeId).collect();
                ids.sort_unstable_by_key(|id| self.serial(*id));
                ids
            })
            .collect();
        found.sort_unstable_by_key(|component| component.first().map(|id| self.serial(*id)));
        found
    }
}
