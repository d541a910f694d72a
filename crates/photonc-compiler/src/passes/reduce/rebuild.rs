//! A changed copy of a graph. Owns the order of copying and fresh names; what does not type any more is no graph.

use super::sizes::Resize;
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::attr::Role;
use photonc_graph::ir::op::Op;
use std::collections::{HashMap, HashSet};

/// What stands for a node.
pub enum Replacement {
    /// A fresh input of its type.
    Input,
    /// Another value of its type.
    Value(NodeId),
    /// Another operation on the same operands.
    Op(Op),
}

/// Changes to make on the way.
pub struct Edit<'g> {
    graph: &'g Graph,
    pub outputs: Vec<(String, NodeId)>,
    pub replace: HashMap<NodeId, Replacement>,
    pub resize: Option<Resize>,
    pub unlabel: Option<NodeId>,
}

impl<'g> Edit<'g> {
    pub fn new(graph: &'g Graph) -> Self {
        let outputs = graph.outputs().iter().map(|output| (output.name.to_string(), output.node)).collect();
        Edit { graph, outputs, replace: HashMap::new(), resize: None, unlabel: None }
    }

    /// The changed graph, with nothing that no output needs; `None` where it does not type.
    pub fn build(&self) -> Option<Graph> {
        let needed = self.needed();
        let mut copy = Graph::new(self.graph.name());
        let mut map: HashMap<NodeId, NodeId> = HashMap::new();
        for id in self.graph.order().into_iter().filter(|id| needed.contains(id)) {
            let new = self.node(&mut copy, id, &map)?;
            if let Some(label) = self.graph.label(id).filter(|_| self.unlabel != Some(id)) {
                copy.set_label(new, label);
            }
            map.insert(id, new);
        }
        for delay in self.graph.delays() {
            if let Some(new) = map.get(&delay).filter(|_| !self.replace.contains_key(&delay)) {
                let next = *self.graph.operands(delay).first()?;
                copy.set_next(*new, *map.get(&self.resolve(next))?).ok()?;
            }
        }
        for (name, id) in &self.outputs {
            copy.set_output(name, *map.get(&self.resolve(*id))?);
        }
        Some(copy)
    }

    /// What stands for `id` in the end. An operand is an earlier node, so this ends.
    fn resolve(&self, mut id: NodeId) -> NodeId {
        while let Some(Replacement::Value(value)) = self.replace.get(&id) {
            id = *value;
        }
        id
    }

    fn needed(&self) -> HashSet<NodeId> {
        let mut needed = HashSet::new();
        let mut stack: Vec<NodeId> = self.outputs.iter().map(|(_, id)| self.resolve(*id)).collect();
        while let Some(id) = stack.pop() {
            if needed.insert(id) && !matches!(self.replace.get(&id), Some(Replacement::Input)) {
                stack.extend(self.graph.operands(id).into_iter().map(|operand| self.resolve(operand)));
            }
        }
        needed
    }

    fn node(&self, copy: &mut Graph, id: NodeId, map: &HashMap<NodeId, NodeId>) -> Option<NodeId> {
        let (graph, scope) = (self.graph, self.graph.scope(id));
        let resized = |op: &Op| match &self.resize {
            Some(resize) => resize.op(op),
            None => Some(op.clone()),
        };
        let op = match self.replace.get(&id) {
            Some(Replacement::Input) => {
                let name = match graph.op(id) {
                    Op::Input { .. } => return copy.add(graph.op(id).clone(), &[], scope).ok(),
                    _ => self.fresh(id),
                };
                let op = Op::Input { name: name.into(), ty: graph.ty(id).clone(), role: Role::Argument };
                return copy.add(op, &[], scope).ok();
            }
            Some(Replacement::Op(op)) => resized(op)?,
            Some(Replacement::Value(_)) | None => resized(graph.op(id))?,
        };
        if let Op::Delay { name, ty } = op {
            return Some(copy.add_delay(&name, ty, scope));
        }
        let operands: Option<Vec<NodeId>> =
            graph.operands(id).iter().map(|operand| map.get(&self.resolve(*operand)).copied()).collect();
        let operands = operands?;
        let op = match (&self.resize, operands.first()) {
            (Some(_), Some(first)) => super::sizes::fit(op, &copy.ty(*first).shape),
            _ => op,
        };
        copy.add(op, &operands, scope).ok()
    }

    /// A name that no input or delay has: the number of the node in the graph's order, after as many dots as it takes.
    fn fresh(&self, id: NodeId) -> String {
        let mut name = format!("given.{}", self.graph.serial(id));
        let taken = |name: &str| {
            self.graph.nodes().into_iter().any(|id| match self.graph.op(id) {
                Op::Input { name: known, .. } | Op::Delay { name: known, .. } => &**known == name,
                _ => false,
            })
        };
        while taken(&name) {
            name.push('.');
        }
        name
    }
}
