//! Moves changes of shape behind a concatenation: parts that were `[A, n_i * W]` before they became `[A, n_i, W]` lie
//! side by side in memory either way, so they are joined first and change their shape once, together.
//!
//! Never moves a reshape that changes the first axis, and none of a concatenation along any axis but the second.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::op::Op;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct SinkReshapes;

impl Pass for SinkReshapes {
    fn name(&self) -> &'static str {
        "sink-reshapes"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        for id in graph.select(|op| matches!(op, Op::Concat { axis: 1 })) {
            let parts: Option<Vec<NodeId>> =
                graph.operands(id).into_iter().map(|part| unfolded(graph, part)).collect();
            let Some(parts) = parts else {
                rewrites.decline(graph, id, "not every part is a reshape that keeps the first axis");
                continue;
            };
            if !graph.may_rewrite() {
                break;
            }
            let (shape, scope) = (graph.ty(id).shape.clone(), graph.scope(id).clone());
            let joined = graph.add(Op::Concat { axis: 1 }, &parts, &scope)?;
            let joined = graph.add(Op::Reshape { shape }, &[joined], &scope)?;
            graph.replace_uses(id, joined)?;
            graph.erase(id);
            rewrites.count += 1;
        }
        Ok(rewrites)
    }
}

/// The `[A, n * W]` that `[A, n, W]` was.
fn unfolded(graph: &Graph, part: NodeId) -> Option<NodeId> {
    let (Op::Reshape { shape }, [source]) = (graph.op(part), &graph.operands(part)[..]) else { return None };
    let from = &graph.ty(*source).shape.0;
    let rest = shape.0.get(1..)?.iter().fold(Dim::from(1), |rest, axis| rest.times(axis));
    (from.len() == 2 && shape.rank() > 2 && from[0] == shape.0[0] && from[1] == rest).then_some(*source)
}
