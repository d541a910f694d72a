//! Which ONNX operators stand for an operation: one arm per operation, none for all others.

use super::ExportError;
use super::emit::{Emitter, Shared};
use photonc_graph::graph::NodeId;
use photonc_graph::ir::op::Op;

impl Emitter<'_> {
    /// Emits the nodes of one operation whose operands are lowered; returns the name of its value.
    pub(super) fn lower(&mut self, id: NodeId) -> Result<String, ExportError> {
        let graph = self.graph;
        let operands = graph.operands(id);
        let names: Vec<String> = operands.iter().map(|operand| self.values[operand].clone()).collect();
        let args: Vec<&str> = names.iter().map(String::as_str).collect();
        let ty = |slot: usize| graph.ty(operands[slot]);
        Ok(match graph.op(id) {
            Op::Input { name, .. } => name.to_string(),
            Op::Weight { name, ty } => self.weight(name, ty)?,
            Op::QuantizedWeight { name, ty, scheme } => self.quantized(name, ty, *scheme)?,
            Op::Const { value } => self.literal(value),
            op @ (Op::Delay { .. } | Op::ProtocolSwitch | Op::CacheAppend) => {
                return Err(ExportError::NotLowered { scope: self.scope.clone(), op: op.kind().def().name });
            }
            Op::Unary { function } => self.unary(*function, args[0]),
            Op::Binary { function } => self.binary(*function, &args),
            Op::Compare { function } => self.compare(*function, &args),
            Op::Where => self.node("Where", &args, vec![]),
            Op::Cast { dtype } => self.cast(args[0], ty(0).dtype, *dtype),
            Op::Reshape { shape } => self.reshape(args[0], &ty(0).shape, shape)?,
            Op::Transpose { perm } => self.transpose(args[0], perm),
            Op::Concat { axis } => match self.joined(id)? {
                Some(weight) => weight,
                None => self.concat(&args, *axis),
            },
            Op::Slice { axis, start, len, from_end } => match self.split(id, operands[0])? {
                Some(part) => part,
                None => self.slice(args[0], *axis, *start, *len, *from_end),
            },
            Op::Iota { axis } => self.range(&ty(0).shape.0[*axis])?,
            Op::Gather => self.node("Gather", &args, vec![]),
            Op::GatherRows => self.gather_rows(args[0], args[1]),
            Op::Linear => self.linear(id, &args)?,
            Op::RmsNorm { eps } => self.rms_norm(id, &args, eps.get())?,
            Op::Rope { theta } => self.rope(id, &operands, *theta)?,
            Op::Attention { scale, mask, reach } => {
                let scale = if self.scaled.contains_key(&id) { 1.0 } else { scale.get() };
                self.attention(id, &operands, scale, (*mask, *reach))?
            }
            Op::Route { .. } => self.route(id, &args)?,
            Op::Experts { .. } => self.experts(id, &args)?,
            Op::SwiGlu => self.swiglu(args[0], args[1]),
            Op::Shift => self.shift(args[0], args[1]),
            Op::Sample { candidates } => self.sample(id, &operands, *candidates)?,
        })
    }

    /// A weight `[N, K]` as `[K, N]`, once for all users.
    pub(super) fn transposed(&mut self, weight: &str) -> Result<String, ExportError> {
        self.shared(Shared::Transposed(weight.to_owned()), |emitter| Ok(emitter.transpose(weight, &[1, 0])))
    }
}
