//! Lets a linear map add its result to a value instead of an addition behind it: `x + y W^T` is one product that starts
//! from `x` instead of zeros, so that the product is neither written nor read on its own.
//!
//! Never takes a map that has a bias or is read by others, none whose result is broadcast, and none of f16 or bf16, whose
//! product is rounded before the sum.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::attr::BinaryFn;
use photonc_graph::ir::op::Op;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct FuseResiduals;

impl Pass for FuseResiduals {
    fn name(&self) -> &'static str {
        "fuse-residuals"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        for sum in graph.select(|op| matches!(op, Op::Binary { function: BinaryFn::Add })) {
            let [left, right] = graph.operands(sum)[..] else { continue };
            let is_map = |id: NodeId| *graph.op(id) == Op::Linear;
            if !is_map(left) && !is_map(right) {
                continue;
            }
            // The newer value is the product; the older one is there already.
            let fitting =
                [(right, left), (left, right)].into_iter().find(|(map, x)| fits(graph, sum, *map, *x));
            let Some((map, residual)) = fitting else {
                rewrites.decline(
                    graph,
                    sum,
                    "the product is read by others, has a bias, is broadcast or rounds",
                );
                continue;
            };
            if !graph.may_rewrite() {
                break;
            }
            let scope = graph.scope(sum).clone();
            let operands: Vec<NodeId> = graph.operands(map).into_iter().chain([residual]).collect();
            let fused = graph.add(Op::Linear, &operands, &scope)?;
            graph.replace_uses(sum, fused)?;
            graph.erase(sum);
            graph.erase(map);
            rewrites.count += 1;
        }
        Ok(rewrites)
    }
}

/// Whether `sum` is a linear map of two operands, which nothing else reads and which rounds nothing, and a value of the
/// same type.
fn fits(graph: &Graph, sum: NodeId, map: NodeId, residual: NodeId) -> bool {
    let named = graph.label(map).is_some() || graph.outputs().iter().any(|output| output.node == map);
    *graph.op(map) == Op::Linear
        && graph.operands(map).len() == 2
        && graph.users(map).len() == 1
        && !named
        && !graph.ty(map).dtype.is_narrow()
        && graph.ty(map) == graph.ty(sum)
        && graph.ty(residual) == graph.ty(sum)
}
