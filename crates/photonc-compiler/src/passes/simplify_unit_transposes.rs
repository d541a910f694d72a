//! Makes a transpose that only moves axes of size one a reshape: no element changes its place in memory. One position
//! of a window has such an axis, so its heads are split and joined for nothing. Never touches a transpose in which two
//! axes that may be longer change their order.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::Graph;
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::op::Op;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct SimplifyUnitTransposes;

impl Pass for SimplifyUnitTransposes {
    fn name(&self) -> &'static str {
        "simplify-unit-transposes"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        for id in graph.order() {
            let (Op::Transpose { perm }, [x]) = (graph.op(id), &graph.operands(id)[..]) else { continue };
            if !keeps_order(&graph.ty(*x).shape.0, perm) {
                rewrites.decline(graph, id, "axes longer than one change their order");
                continue;
            }
            if !graph.may_rewrite() {
                break;
            }
            let (shape, scope) = (graph.ty(id).shape.clone(), graph.scope(id).clone());
            let reshaped = graph.add(Op::Reshape { shape }, &[*x], &scope)?;
            graph.replace_uses(id, reshaped)?;
            graph.erase(id);
            rewrites.count += 1;
        }
        Ok(rewrites)
    }
}

/// Whether the axes of `dims` that may be longer than one follow each other as before.
fn keeps_order(dims: &[Dim], perm: &[usize]) -> bool {
    let longer = perm.iter().filter(|axis| dims[**axis].as_const() != Some(1));
    longer.is_sorted()
}
