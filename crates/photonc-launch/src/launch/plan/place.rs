//! Where values are made and how wide they are, decided before any step. Owns the lending of memory: outputs and
//! concatenations lend theirs to the nodes that make their parts.

use super::emit::Emitter;
use super::view::View;
use photonc_bundle::program::NEXT;
use photonc_graph::graph::NodeId;
use photonc_graph::ir::op::Op;

impl Emitter<'_> {
    /// Marks values that stay f32: what only samplers and callers read of products, and what samplers read beside.
    pub(super) fn widen(&mut self, order: &[NodeId]) {
        for id in order.iter().rev() {
            let graph = self.demand.graph;
            let users = graph.users(*id);
            let outputs = || graph.outputs().iter().filter(|output| output.node == *id);
            let is_output = outputs().next().is_some();
            // The next step reads a state in the type in which this one did.
            let is_state = outputs().any(|output| output.name.starts_with(NEXT));
            let sampled = |user: NodeId, slot: usize| match graph.op(user) {
                Op::Sample { .. } => slot != 3,
                op => moves(op) && self.wide.contains(&user),
            };
            let only_sampled = users.iter().all(|(user, slot)| sampled(*user, *slot));
            let sampler_only = only_sampled && !users.is_empty();
            let wide = match graph.op(*id) {
                Op::Linear => only_sampled && (is_output || sampler_only),
                Op::Input { .. } => sampler_only,
                op => {
                    moves(op) && only_sampled && (sampler_only || is_output && self.comes_from_product(*id))
                }
            };
            if wide && !is_state {
                self.wide.insert(*id);
            }
        }
    }

    fn comes_from_product(&self, id: NodeId) -> bool {
        match (self.graph().op(id), self.graph().operands(id).as_slice()) {
            (Op::Linear, _) => true,
            (Op::Reshape { .. } | Op::Slice { .. } | Op::Transpose { .. } | Op::Cast { .. }, [of]) => {
                self.comes_from_product(*of)
            }
            (Op::Concat { .. }, parts) => parts.iter().all(|part| self.comes_from_product(*part)),
            _ => false,
        }
    }

    /// Lends the memory of concatenations and placed views to the nodes that make their parts.
    pub(super) fn place(&mut self, order: &[NodeId]) {
        for id in order.iter().rev().filter(|id| self.demand.needed.contains(id)) {
            let operands = self.graph().operands(*id);
            match self.graph().op(*id).clone() {
                Op::Concat { axis } => {
                    let whole = self.target(*id);
                    self.placed.insert(*id, whole.clone());
                    let mut start = 0;
                    for part in operands {
                        let len = self.demand.dims(part)[axis];
                        self.propose(part, whole.slice(axis, start, len));
                        start += len;
                    }
                }
                Op::Reshape { .. } => {
                    let placed =
                        self.placed.get(id).and_then(|view| view.reshape(self.demand.dims(operands[0])));
                    if let Some(view) = placed {
                        self.propose(operands[0], view);
                    }
                }
                Op::Transpose { perm } => {
                    if let Some(view) = self.placed.get(id).map(|view| view.untranspose(&perm)) {
                        self.propose(operands[0], view);
                    }
                }
                _ => {}
            }
        }
    }

    pub(super) fn propose(&mut self, id: NodeId, view: View) {
        let op = self.graph().op(id);
        let made = !op.is_leaf() && !matches!(op, Op::Slice { .. });
        if made && view.element == self.element(id) && !self.values.contains_key(&id) {
            self.placed.entry(id).or_insert(view);
        }
    }
}

/// Whether an operation yields its operands' elements, in another type at most.
fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Reshape { .. } | Op::Slice { .. } | Op::Concat { .. } | Op::Transpose { .. } | Op::Cast { .. }
    )
}
