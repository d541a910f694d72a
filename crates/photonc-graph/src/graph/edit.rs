//! Changing a graph: the only mutation passes have. Owns redirection of uses, erasure and sweeping; refuses edits
//! that would change a value's type.

use super::{BuildError, Graph, NodeId};
use crate::ir::infer::{self, InferError};
use crate::ir::op::Op;
use petgraph::Direction;
use petgraph::visit::EdgeRef;
use std::collections::HashSet;
use std::sync::Arc;

impl Graph {
    /// Makes every user and output of `old` read `new`, and hands `old`'s label on. `old` stays until erased.
    ///
    /// # Errors
    /// The types differ.
    pub fn replace_uses(&mut self, old: NodeId, new: NodeId) -> Result<(), BuildError> {
        if self.ty(old) != self.ty(new) {
            return Err(BuildError {
                scope: self.scope(old).to_string(),
                op: self.op(old).kind().def().name,
                source: InferError(format!("{} cannot stand for {}", self.ty(new), self.ty(old))),
            });
        }
        let edges: Vec<_> = self
            .nodes
            .edges_directed(old.0, Direction::Outgoing)
            .map(|e| (e.id(), e.target(), *e.weight()))
            .collect();
        for (edge, user, slot) in edges {
            self.nodes.remove_edge(edge);
            self.nodes.add_edge(new.0, user, slot);
        }
        for output in &mut self.outputs {
            if output.node == old {
                output.node = new;
            }
        }
        if self.node(new).label.is_none() {
            let label = self.node_mut(old).label.take();
            self.node_mut(new).label = label;
        }
        Ok(())
    }

    /// Marks a node dead and drops its operand edges. Its index is freed by the next [`Graph::sweep`].
    pub fn erase(&mut self, id: NodeId) {
        let edges: Vec<_> = self.nodes.edges_directed(id.0, Direction::Incoming).map(|e| e.id()).collect();
        for edge in edges {
            self.nodes.remove_edge(edge);
        }
        self.node_mut(id).erased = true;
    }

    /// Frees erased nodes. Node ids of live nodes stay valid.
    pub fn sweep(&mut self) {
        self.nodes.retain_nodes(|graph, index| !graph[index].erased);
    }

    /// Renames the graph.
    pub fn set_name(&mut self, name: &str) {
        self.name = name.into();
    }

    /// Drops outputs whose name does not satisfy `keep`.
    pub fn retain_outputs(&mut self, keep: impl Fn(&str) -> bool) {
        self.outputs.retain(|output| keep(&output.name));
    }

    /// Renames an output.
    pub fn rename_output(&mut self, from: &str, to: &str) {
        for output in &mut self.outputs {
            if &*output.name == from {
                output.name = Arc::from(to);
            }
        }
    }

    /// Nodes from which `roots` are reached backwards, delay edges included; the roots are among them.
    #[must_use]
    pub fn ancestors(&self, roots: impl IntoIterator<Item = NodeId>) -> HashSet<NodeId> {
        let mut seen: HashSet<NodeId> = HashSet::new();
        let mut stack: Vec<NodeId> = roots.into_iter().collect();
        while let Some(id) = stack.pop() {
            if seen.insert(id) {
                stack
                    .extend(self.nodes.edges_directed(id.0, Direction::Incoming).map(|e| NodeId(e.source())));
            }
        }
        seen
    }

    /// Nodes reached forwards from `roots`, through delays; the roots are among them.
    #[must_use]
    pub fn descendants(&self, roots: impl IntoIterator<Item = NodeId>) -> HashSet<NodeId> {
        let mut seen: HashSet<NodeId> = HashSet::new();
        let mut stack: Vec<NodeId> = roots.into_iter().collect();
        while let Some(id) = stack.pop() {
            if seen.insert(id) {
                stack
                    .extend(self.nodes.edges_directed(id.0, Direction::Outgoing).map(|e| NodeId(e.target())));
            }
        }
        seen
    }

    /// Changes one node's operation on the same operands, keeping its type.
    ///
    /// # Errors
    /// The operands do not fit, or the result would have another type.
    pub fn replace_op(&mut self, id: NodeId, op: Op) -> Result<(), BuildError> {
        let types: Vec<_> = self.operands(id).iter().map(|operand| self.ty(*operand).clone()).collect();
        let error =
            |source| BuildError { scope: self.scope(id).to_string(), op: op.kind().def().name, source };
        let ty = infer::infer(&op, &types).map_err(error)?;
        if &ty != self.ty(id) {
            return Err(error(InferError(format!("{ty} cannot stand for {}", self.ty(id)))));
        }
        self.node_mut(id).op = op;
        Ok(())
    }
}
