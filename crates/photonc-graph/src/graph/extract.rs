//! Copying parts of a graph into a new one. Owns the renaming of node ids; the copy keeps scopes, labels and order.

use super::{BuildError, Graph, NodeId};
use crate::ir::op::Op;
use std::collections::HashMap;

impl Graph {
    /// A new graph that computes the outputs that satisfy `keep`, with only what they need: unused inputs go too.
    ///
    /// # Errors
    /// Never for a verified graph; the types are inferred anew.
    pub fn subgraph(&self, name: &str, keep: impl Fn(&str) -> bool) -> Result<Graph, BuildError> {
        let roots: Vec<_> = self.outputs().iter().filter(|output| keep(&output.name)).collect();
        let needed = self.ancestors(roots.iter().map(|output| output.node));
        let mut copy = Graph::new(name);
        let mut map = HashMap::new();
        for id in self.order().into_iter().filter(|id| needed.contains(id)) {
            copy.copy_node(self, id, &mut map)?;
        }
        copy.connect_delays(self, &map)?;
        for output in roots {
            copy.set_output(&output.name, map[&output.node]);
        }
        Ok(copy)
    }

    /// Copies one node of `from` whose operands `map` already knows; a delay is copied without its next state.
    ///
    /// # Errors
    /// The mapped operands do not fit the operation.
    pub fn copy_node(
        &mut self,
        from: &Graph,
        id: NodeId,
        map: &mut HashMap<NodeId, NodeId>,
    ) -> Result<NodeId, BuildError> {
        let copy = match from.op(id) {
            Op::Delay { name, ty } => self.add_delay(name, ty.clone(), from.scope(id)),
            op => {
                let operands: Vec<NodeId> = from.operands(id).iter().map(|operand| map[operand]).collect();
                self.add(op.clone(), &operands, from.scope(id))?
            }
        };
        if let Some(label) = from.label(id) {
            self.set_label(copy, label);
        }
        map.insert(id, copy);
        Ok(copy)
    }

    /// Sets the next states of copied delays whose next state was copied too.
    ///
    /// # Errors
    /// Never for a verified `from`.
    pub fn connect_delays(&mut self, from: &Graph, map: &HashMap<NodeId, NodeId>) -> Result<(), BuildError> {
        for delay in from.delays() {
            let next = from.operands(delay).first().and_then(|next| map.get(next));
            if let (Some(copy), Some(next)) = (map.get(&delay), next) {
                self.set_next(*copy, *next)?;
            }
        }
        Ok(())
    }
}
