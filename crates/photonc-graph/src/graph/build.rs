//! Adding to a graph. Owns type inference at creation: a node that does not type never exists.

use super::{Graph, Node, NodeId, Output, Scope};
use crate::ir::infer::{self, InferError};
use crate::ir::op::Op;
use crate::ir::shape::Type;
use std::sync::Arc;

/// An operation that could not be added, with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{scope}: `{op}`: {source}")]
pub struct BuildError {
    /// Where in the model.
    pub scope: String,
    /// Name of the operation.
    pub op: &'static str,
    /// The broken rule.
    pub source: InferError,
}

impl Graph {
    /// Adds an operation on operands already in the graph.
    ///
    /// # Errors
    /// The operands do not fit the operation.
    pub fn add(&mut self, op: Op, operands: &[NodeId], scope: &Scope) -> Result<NodeId, BuildError> {
        let types: Vec<Type> = operands.iter().map(|id| self.ty(*id).clone()).collect();
        let ty = infer::infer(&op, &types).map_err(|source| BuildError {
            scope: scope.to_string(),
            op: op.kind().def().name,
            source,
        })?;
        let id = self.insert(op, ty, scope);
        for (slot, operand) in operands.iter().enumerate() {
            self.nodes.add_edge(operand.0, id.0, slot);
        }
        Ok(id)
    }

    /// Adds a delay whose next state is set later by [`Graph::set_next`].
    pub fn add_delay(&mut self, name: &str, ty: Type, scope: &Scope) -> NodeId {
        self.insert(Op::Delay { name: name.into(), ty: ty.clone() }, ty, scope)
    }

    /// Sets the next state of a delay.
    ///
    /// # Errors
    /// The types differ.
    pub fn set_next(&mut self, delay: NodeId, next: NodeId) -> Result<(), BuildError> {
        let op = self.op(delay);
        infer::infer(op, &[self.ty(next).clone()]).map_err(|source| BuildError {
            scope: self.scope(delay).to_string(),
            op: op.kind().def().name,
            source,
        })?;
        let edges: Vec<_> = self
            .nodes
            .edges_directed(delay.0, petgraph::Direction::Incoming)
            .map(|e| petgraph::visit::EdgeRef::id(&e))
            .collect();
        for edge in edges {
            self.nodes.remove_edge(edge);
        }
        self.nodes.add_edge(next.0, delay.0, 0);
        Ok(())
    }

    /// Declares a named result, after the ones declared before; a name declared again moves to the new node.
    pub fn set_output(&mut self, name: &str, node: NodeId) {
        match self.outputs.iter_mut().find(|output| &*output.name == name) {
            Some(output) => output.node = node,
            None => self.outputs.push(Output { name: name.into(), node }),
        }
    }

    /// Names a value for other graphs and the runtime.
    pub fn set_label(&mut self, id: NodeId, label: &str) {
        self.node_mut(id).label = Some(Arc::from(label));
    }

    fn insert(&mut self, op: Op, ty: Type, scope: &Scope) -> NodeId {
        let serial = self.next_serial;
        self.next_serial += 1;
        NodeId(self.nodes.add_node(Node { op, ty, scope: scope.clone(), label: None, serial, erased: false }))
    }
}
