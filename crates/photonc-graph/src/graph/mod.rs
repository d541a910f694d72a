//! The intermediate representation: a petgraph DAG of typed operations whose only cycles run through delays.
//! Owns nodes, operand order, outputs and labels; refuses what `edit` does not offer: there is one way to change a graph.

mod allowance;
pub mod build;
pub mod cost;
pub mod edit;
pub mod extract;
pub mod interp;
pub mod order;
pub mod text;
pub mod verify;

use crate::ir::op::Op;
use crate::ir::shape::Type;
use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use petgraph::visit::EdgeRef;
use std::fmt;
use std::sync::Arc;

pub use build::BuildError;
pub use verify::{Verified, VerifyError};

/// A node of one graph; meaningless in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) NodeIndex);

/// Where in the model a node comes from: `level2.decoder.layer3.attn`. Kept through every rewrite.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Arc<str>);

impl Scope {
    /// A scope from its dotted path of letters, digits and underscores.
    #[must_use]
    pub fn new(path: &str) -> Self {
        Scope(path.into())
    }

    /// The scope `name` inside this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Scope::new(name) } else { Scope(format!("{}.{name}", self.0).into()) }
    }

    /// The dotted path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug)]
struct Node {
    op: Op,
    ty: Type,
    scope: Scope,
    /// Name of a value that other graphs or the runtime refer to.
    label: Option<Arc<str>>,
    /// Creation number: the tie-break of every traversal.
    serial: u64,
    /// Erased nodes wait for a sweep, because petgraph hands freed indices out again.
    erased: bool,
}

/// A named result of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Name, unique among the outputs.
    pub name: Arc<str>,
    /// The value.
    pub node: NodeId,
}

/// A graph of typed operations. Every node yields one value.
#[derive(Clone, Debug)]
pub struct Graph {
    name: Arc<str>,
    /// An edge runs from operand to user and carries the operand's slot.
    nodes: StableDiGraph<Node, usize>,
    outputs: Vec<Output>,
    next_serial: u64,
    allowance: allowance::Allowance,
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Graph {
            name: name.into(),
            nodes: StableDiGraph::new(),
            outputs: Vec::new(),
            next_serial: 0,
            allowance: allowance::Allowance::default(),
        }
    }

    /// Name of the graph: `coarse`, `expand`, ...
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Live nodes by creation.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> =
            self.nodes.node_indices().map(NodeId).filter(|id| !self.node(*id).erased).collect();
        ids.sort_unstable_by_key(|id| self.node(*id).serial);
        ids
    }

    /// Number of live nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.node_weights().filter(|node| !node.erased).count()
    }

    /// Whether there are no nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The operation of a node.
    #[must_use]
    pub fn op(&self, id: NodeId) -> &Op {
        &self.node(id).op
    }

    /// Element type and shape of a node's value.
    #[must_use]
    pub fn ty(&self, id: NodeId) -> &Type {
        &self.node(id).ty
    }

    /// Where in the model a node comes from.
    #[must_use]
    pub fn scope(&self, id: NodeId) -> &Scope {
        &self.node(id).scope
    }

    /// Name of a value that other graphs or the runtime refer to.
    #[must_use]
    pub fn label(&self, id: NodeId) -> Option<&str> {
        self.node(id).label.as_deref()
    }

    /// Operands in slot order. A delay's operand is its next state.
    #[must_use]
    pub fn operands(&self, id: NodeId) -> Vec<NodeId> {
        let mut edges: Vec<(usize, NodeId)> = self
            .nodes
            .edges_directed(id.0, Direction::Incoming)
            .map(|edge| (*edge.weight(), NodeId(edge.source())))
            .collect();
        edges.sort_unstable_by_key(|(slot, _)| *slot);
        edges.into_iter().map(|(_, operand)| operand).collect()
    }

    /// Users of a value with the slot they read it in, by the user's creation.
    #[must_use]
    pub fn users(&self, id: NodeId) -> Vec<(NodeId, usize)> {
        let mut users: Vec<(NodeId, usize)> = self
            .nodes
            .edges_directed(id.0, Direction::Outgoing)
            .map(|edge| (NodeId(edge.target()), *edge.weight()))
            .filter(|(user, _)| !self.node(*user).erased)
            .collect();
        users.sort_unstable_by_key(|(user, slot)| (self.node(*user).serial, *slot));
        users
    }

    /// Named results, in the order they were declared.
    #[must_use]
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The output of that name.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<NodeId> {
        self.outputs.iter().find(|output| &*output.name == name).map(|output| output.node)
    }

    /// Input nodes by creation.
    #[must_use]
    pub fn inputs(&self) -> Vec<NodeId> {
        self.select(|op| matches!(op, Op::Input { .. }))
    }

    /// Delay nodes by creation.
    #[must_use]
    pub fn delays(&self) -> Vec<NodeId> {
        self.select(Op::is_delay)
    }

    /// Nodes whose operation satisfies `test`, by creation.
    #[must_use]
    pub fn select(&self, test: impl Fn(&Op) -> bool) -> Vec<NodeId> {
        self.nodes().into_iter().filter(|id| test(self.op(*id))).collect()
    }

    /// Creation number of a node: the tie-break of every traversal.
    #[must_use]
    pub fn serial(&self, id: NodeId) -> u64 {
        self.node(id).serial
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }
}
