//! Makes a graph of f32 values one of f16 or bf16 values: activations, state and weights. f32 stays where it matters and
//! costs little: what is sampled and what is told a sampler (logits, uniforms, temperature, top-p), and the outputs that
//! are named to stay wide. Sums, statistics of norms, softmax and rotary angles are wide inside their operations whatever
//! the type (docs/ir.md), so they need no casts here.
//!
//! Casts are few by construction: a value is computed in one type, cast at most once to the other, and what only moves
//! values has the type its readers want, so that the cast comes before the values are repeated or cut up. Leaves have the
//! type they are read in, the narrow one where readers differ; all nodes of one weight have one type. Never touches
//! integers, or values that are narrow already.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{BuildError, Graph, NodeId};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::Type;
use photonc_graph::ir::tensor::Literal;
use std::collections::{BTreeMap, HashMap, HashSet};

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct LowerPrecision {
    /// The type that f32 values become; f32 itself changes nothing.
    pub dtype: Dtype,
    /// Outputs that stay f32.
    pub wide_outputs: &'static [&'static str],
}

impl Pass for LowerPrecision {
    fn name(&self) -> &'static str {
        "lower-precision"
    }

    fn requires(&self) -> Form {
        Form::Straight
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        if !self.dtype.is_narrow() {
            return Ok(Rewrites::default());
        }
        let wide = self.wide(graph);
        let lowering = Lowering { from: graph, to: Graph::new(graph.name()), dtype: self.dtype, wide: &wide };
        let (lowered, count) = lowering.run(self)?;
        // One rewrite, whole: part of a graph in another type would be another graph.
        if count == 0 || !graph.may_rewrite() {
            return Ok(Rewrites::default());
        }
        graph.become_copy(lowered);
        Ok(Rewrites::of(1))
    }
}

impl LowerPrecision {
    /// Values that are wanted as f32 by everyone who reads them.
    fn wide(&self, graph: &Graph) -> HashSet<NodeId> {
        let mut wide = HashSet::new();
        for id in graph.order().into_iter().rev() {
            let users = graph.users(id);
            let outputs: Vec<&str> = graph
                .outputs()
                .iter()
                .filter(|output| output.node == id)
                .map(|output| &*output.name)
                .collect();
            let is_read = !users.is_empty() || !outputs.is_empty();
            let read_wide = users.iter().all(|(user, _)| match graph.op(*user) {
                Op::Sample { .. } => true,
                op => moves(op) && wide.contains(user),
            });
            if is_read && read_wide && outputs.iter().all(|name| self.wide_outputs.contains(name)) {
                wide.insert(id);
            }
        }
        agree_on_weights(graph, &mut wide);
        wide
    }
}

/// A weight is stored once: the nodes of its name are wide if all are that anyone reads, else none is.
fn agree_on_weights(graph: &Graph, wide: &mut HashSet<NodeId>) {
    let mut nodes_of: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for id in graph.nodes() {
        if let Op::Weight { name, .. } | Op::QuantizedWeight { name, .. } = graph.op(id) {
            nodes_of.entry(name).or_default().push(id);
        }
    }
    let is_output = |id: NodeId| graph.outputs().iter().any(|output| output.node == id);
    for nodes in nodes_of.into_values() {
        let is_wide = nodes.iter().any(|id| wide.contains(id))
            && nodes.iter().all(|id| wide.contains(id) || graph.users(*id).is_empty() && !is_output(*id));
        for id in nodes {
            if is_wide {
                wide.insert(id)
            } else {
                wide.remove(&id)
            };
        }
    }
}

/// Whether an operation yields elements of its operands as they are.
fn moves(op: &Op) -> bool {
    match op {
        Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Where
        | Op::Gather
        | Op::GatherRows
        | Op::Shift => true,
        Op::Input { .. }
        | Op::Weight { .. }
        | Op::QuantizedWeight { .. }
        | Op::Const { .. }
        | Op::Delay { .. }
        | Op::ProtocolSwitch
        | Op::Unary { .. }
        | Op::Binary { .. }
        | Op::Compare { .. }
        | Op::Cast { .. }
        | Op::Iota { .. }
        | Op::Linear
        | Op::RmsNorm { .. }
        | Op::Rope { .. }
        | Op::Attention { .. }
        | Op::Route { .. }
        | Op::Experts { .. }
        | Op::SwiGlu
        | Op::CacheAppend
        | Op::Sample { .. } => false,
    }
}

/// A lowered copy under construction.
struct Lowering<'g> {
    from: &'g Graph,
    to: Graph,
    dtype: Dtype,
    wide: &'g HashSet<NodeId>,
}

impl Lowering<'_> {
    /// The lowered graph and the number of values whose type changed.
    fn run(mut self, pass: &LowerPrecision) -> Result<(Graph, usize), BuildError> {
        let mut map: HashMap<NodeId, NodeId> = HashMap::new();
        let mut casts: HashMap<(NodeId, Dtype), NodeId> = HashMap::new();
        let mut count = 0;
        for id in self.from.order() {
            let wanted = self.wanted(id);
            let mut operands = Vec::new();
            for operand in self.from.operands(id) {
                operands.push(self.cast(map[&operand], wanted, &mut casts)?);
            }
            let copy = self.to.add(self.retyped(id), &operands, self.from.scope(id))?;
            if let Some(label) = self.from.label(id) {
                self.to.set_label(copy, label);
            }
            count += usize::from(self.to.ty(copy).dtype != self.from.ty(id).dtype);
            map.insert(id, copy);
        }
        for output in self.from.outputs() {
            let stays = pass.wide_outputs.contains(&&*output.name);
            let dtype = if stays { self.from.ty(output.node).dtype } else { self.lowered(output.node) };
            let value = self.cast(map[&output.node], dtype, &mut casts)?;
            self.to.set_output(&output.name, value);
        }
        Ok((self.to, count))
    }

    /// The type that an f32 value has where it is not kept.
    fn lowered(&self, id: NodeId) -> Dtype {
        match self.from.ty(id).dtype {
            Dtype::F32 => self.dtype,
            other => other,
        }
    }

    /// The float type in which a node reads its operands.
    fn wanted(&self, id: NodeId) -> Dtype {
        match self.from.op(id) {
            // A choice of experts, like one of tokens, must not turn on a rounded score.
            Op::Sample { .. } | Op::Route { .. } => Dtype::F32,
            op if moves(op) && self.wide.contains(&id) => Dtype::F32,
            _ => self.dtype,
        }
    }

    /// The operation of a node; leaves have the type their readers want.
    fn retyped(&self, id: NodeId) -> Op {
        let dtype = if self.wide.contains(&id) { self.from.ty(id).dtype } else { self.lowered(id) };
        let lower = |ty: &Type| Type::new(dtype, ty.shape.clone());
        match self.from.op(id) {
            Op::Input { name, ty, role } => Op::Input { name: name.clone(), ty: lower(ty), role: *role },
            Op::Weight { name, ty } => Op::Weight { name: name.clone(), ty: lower(ty) },
            Op::QuantizedWeight { name, ty, scheme } => {
                Op::QuantizedWeight { name: name.clone(), ty: lower(ty), scheme: *scheme }
            }
            Op::Const { value } => match Literal::from_tensor(dtype, &value.to_tensor()) {
                Some(value) => Op::Const { value },
                None => Op::Const { value: value.clone() },
            },
            op => op.clone(),
        }
    }

    /// A float value as `dtype`, cast at most once for all readers; other values as they are.
    fn cast(
        &mut self,
        value: NodeId,
        dtype: Dtype,
        casts: &mut HashMap<(NodeId, Dtype), NodeId>,
    ) -> Result<NodeId, BuildError> {
        let found = self.to.ty(value).dtype;
        if !found.is_float() || !dtype.is_float() || found == dtype {
            return Ok(value);
        }
        if let Some(done) = casts.get(&(value, dtype)) {
            return Ok(*done);
        }
        let scope = self.to.scope(value).clone();
        let cast = self.to.add(Op::Cast { dtype }, &[value], &scope)?;
        casts.insert((value, dtype), cast);
        Ok(cast)
    }
}
