//! Removes changes of shape that change nothing: identity reshapes and transposes, a reshape of a reshape, a
//! transpose of a transpose, whole slices, one-part concatenations. Never moves data differently than before.

use super::{Form, Pass, PassError, Rewrites};
use crate::graph::{BuildError, Graph, NodeId};
use crate::ir::dim::Dim;
use crate::ir::op::Op;

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
            if let Some(simpler) = simpler(graph, id)? {
                graph.replace_uses(id, simpler)?;
                graph.erase(id);
                count += 1;
            }
        }
        Ok(Rewrites::of(count))
    }
}

/// A node that already is, or now is, the value of `id`.
fn simpler(graph: &mut Graph, id: NodeId) -> Result<Option<NodeId>, BuildError> {
    let operands = graph.operands(id);
    let op = graph.op(id).clone();
    match (&op, &operands[..]) {
        (Op::Reshape { .. }, [x]) if graph.ty(*x) == graph.ty(id) => Ok(Some(*x)),
        (Op::Reshape { .. }, [x]) => match graph.op(*x) {
            Op::Reshape { .. } => {
                let inner = graph.operands(*x);
                let scope = graph.scope(id).clone();
                graph.add(op, &inner, &scope).map(Some)
            }
            _ => Ok(None),
        },
        (Op::Transpose { perm }, [x]) => transpose(graph, id, perm, *x),
        (Op::Concat { .. }, [x]) => Ok(Some(*x)),
        (Op::Slice { axis, len, .. }, [x]) if graph.ty(*x).shape.0[*axis] == Dim::from(*len) => Ok(Some(*x)),
        _ => Ok(None),
    }
}

fn transpose(graph: &mut Graph, id: NodeId, perm: &[usize], x: NodeId) -> Result<Option<NodeId>, BuildError> {
    if perm.iter().copied().eq(0..perm.len()) {
        return Ok(Some(x));
    }
    let Op::Transpose { perm: first } = graph.op(x) else { return Ok(None) };
    let perm: Vec<usize> = perm.iter().map(|axis| first[*axis]).collect();
    let inner = graph.operands(x);
    let scope = graph.scope(id).clone();
    graph.add(Op::Transpose { perm }, &inner, &scope).map(Some)
}
