//! Removes changes of shape that change nothing: identity reshapes and transposes, a reshape of a reshape, a
//! transpose of a transpose, whole slices, one-part concatenations. Never moves data differently than before.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::op::Op;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct SimplifyShapes;

impl Pass for SimplifyShapes {
    fn name(&self) -> &'static str {
        "simplify-shapes"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut count = 0;
        for id in graph.order() {
            let Some(simpler) = simpler(graph, id) else { continue };
            if !graph.may_rewrite() {
                break;
            }
            let new = match simpler {
                Simpler::Value(value) => value,
                Simpler::Of(op, operand) => {
                    let scope = graph.scope(id).clone();
                    graph.add(op, &[operand], &scope)?
                }
            };
            graph.replace_uses(id, new)?;
            graph.erase(id);
            count += 1;
        }
        Ok(Rewrites::of(count))
    }
}

/// What can stand for a node.
enum Simpler {
    /// A value that is there.
    Value(NodeId),
    /// An operation on one.
    Of(Op, NodeId),
}

fn simpler(graph: &Graph, id: NodeId) -> Option<Simpler> {
    let op = graph.op(id);
    let operands = graph.operands(id);
    let x = *operands.first()?;
    match op {
        Op::Reshape { .. } if graph.ty(x) == graph.ty(id) => Some(Simpler::Value(x)),
        Op::Reshape { .. } => match graph.op(x) {
            Op::Reshape { .. } => Some(Simpler::Of(op.clone(), *graph.operands(x).first()?)),
            _ => None,
        },
        Op::Transpose { perm } if perm.iter().copied().eq(0..perm.len()) => Some(Simpler::Value(x)),
        Op::Transpose { perm } => {
            let Op::Transpose { perm: first } = graph.op(x) else { return None };
            let perm = perm.iter().map(|axis| first[*axis]).collect();
            Some(Simpler::Of(Op::Transpose { perm }, *graph.operands(x).first()?))
        }
        Op::Concat { .. } if operands.len() == 1 => Some(Simpler::Value(x)),
        Op::Slice { axis, len, .. } if graph.ty(x).shape.0[*axis] == Dim::from(*len) => {
            Some(Simpler::Value(x))
        }
        _ => None,
    }
}
