//! Widens the heads of window attention to a multiple that a target's kernels want: zeros behind queries, keys and values,
//! and the first entries of the result. Zeros add nothing to a product of a query and a key, and the entries that they
//! give in the result are cut off again, so values stay the same to the bit.
//!
//! Never pads keys of a cache: they would be copied whole in each run. Never changes a cache, a weight or a scale.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{BuildError, Graph, NodeId, Scope};
use photonc_graph::ir::infer::InferError;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::tensor::Literal;
use std::num::NonZeroUsize;

/// Pads head widths to a multiple of this; see the module's description.
#[derive(Clone, Copy, Debug)]
pub struct PadHeads(pub NonZeroUsize);

impl Pass for PadHeads {
    fn name(&self) -> &'static str {
        "pad-heads"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        for id in graph.select(|op| matches!(op, Op::Attention { .. })) {
            match self.missing(graph, id) {
                Ok(0) => {}
                Ok(missing) => {
                    if !graph.may_rewrite() {
                        break;
                    }
                    pad(graph, id, missing)?;
                    rewrites.count += 1;
                }
                Err(reason) => rewrites.decline(graph, id, reason),
            }
        }
        Ok(rewrites)
    }
}

impl PadHeads {
    /// How many entries each head of an attention lacks.
    fn missing(self, graph: &Graph, attention: NodeId) -> Result<usize, &'static str> {
        let shape = &graph.ty(attention).shape.0;
        let width = shape.last().and_then(|dim| dim.as_const()).ok_or("the width of a head is not known")?;
        let missing = width.next_multiple_of(self.0.get()) - width;
        if missing == 0 {
            return Ok(0);
        }
        let operands = graph.operands(attention);
        if graph.ty(operands[1]).shape != graph.ty(operands[2]).shape {
            return Err("its values are of another width than its keys");
        }
        let keys = &graph.ty(operands[1]).shape.0;
        if keys[2].as_const().is_none() {
            return Err("its keys are a cache or a prompt's, which would be copied in each run");
        }
        match missing <= width {
            true => Ok(missing),
            false => Err("more than twice as wide"),
        }
    }
}

fn pad(graph: &mut Graph, attention: NodeId, missing: usize) -> Result<(), BuildError> {
    let scope = graph.scope(attention).clone();
    let shape = &graph.ty(attention).shape.0;
    let (axis, width) = (shape.len() - 1, shape.last().and_then(|dim| dim.as_const()).unwrap_or_default());
    let mut operands = graph.operands(attention);
    for operand in operands.iter_mut().take(3) {
        *operand = padded(graph, *operand, missing, &scope)?;
    }
    let wide = graph.add(graph.op(attention).clone(), &operands, &scope)?;
    let cut = Op::Slice { axis, start: 0, len: width, from_end: false };
    let cut = graph.add(cut, &[wide], &scope)?;
    graph.replace_uses(attention, cut)?;
    graph.erase(attention);
    Ok(())
}

/// The value with zeros behind its last axis, of whatever length its other axes have in a run: a part of the value
/// itself gives the zeros their shape.
fn padded(graph: &mut Graph, value: NodeId, missing: usize, scope: &Scope) -> Result<NodeId, BuildError> {
    let ty = graph.ty(value).clone();
    let axis = ty.shape.rank() - 1;
    let part = graph.add(Op::Slice { axis, start: 0, len: missing, from_end: false }, &[value], scope)?;
    let never = constant(graph, Literal::bools(&[1], &[false]), scope)?;
    let zero = constant(graph, Literal::floats(ty.dtype, &[1], &[0.0]), scope)?;
    let zeros = graph.add(Op::Where, &[never, part, zero], scope)?;
    graph.add(Op::Concat { axis }, &[value, zeros], scope)
}

fn constant(graph: &mut Graph, value: Option<Literal>, scope: &Scope) -> Result<NodeId, BuildError> {
    let value = value.ok_or_else(|| BuildError {
        scope: scope.to_string(),
        op: "const",
        source: InferError("attention of a type that has no zero".to_owned()),
    })?;
    graph.add(Op::Const { value }, &[], scope)
}
