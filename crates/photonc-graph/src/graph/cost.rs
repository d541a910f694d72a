//! What one run of a graph costs. Owns the difference between work of a run and work of loading: a value that depends
//! on weights and constants alone is computed once, when a runtime loads the graph, and only reading it counts.

use super::{Graph, NodeId};
use crate::ir::cost::{self, Cost};
use crate::ir::dim::Bindings;
use crate::ir::op::Op;
use crate::ir::shape::Type;
use std::collections::HashSet;

impl Graph {
    /// Arithmetic and memory traffic of one run under `bindings`; `None` if a symbol is unbound.
    #[must_use]
    pub fn cost(&self, bindings: &Bindings) -> Option<Cost> {
        let fixed = self.fixed();
        let run = self.order().into_iter().filter(|id| !fixed.contains(id));
        run.map(|id| {
            let operands = self.operands(id);
            let types: Vec<&Type> = operands.iter().map(|operand| self.ty(*operand)).collect();
            cost::cost(self.op(id), &types, self.ty(id), bindings)
        })
        .sum::<Option<Cost>>()
    }

    /// Nodes that depend on weights and constants alone.
    #[must_use]
    pub fn fixed(&self) -> HashSet<NodeId> {
        let mut fixed = HashSet::new();
        for id in self.order() {
            let operands = self.operands(id);
            let is_fixed = match self.op(id) {
                Op::Weight { .. } | Op::QuantizedWeight { .. } | Op::Const { .. } => true,
                Op::Input { .. } | Op::Delay { .. } => false,
                _ => operands.iter().all(|operand| fixed.contains(operand)),
            };
            if is_fixed {
                fixed.insert(id);
            }
        }
        fixed
    }
}
