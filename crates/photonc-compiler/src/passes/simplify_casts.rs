//! Removes casts that change no number: to the type a value has, and back from a wider type. Never removes a cast that
//! rounds: to a narrower type and back is not the identity.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct SimplifyCasts;

impl Pass for SimplifyCasts {
    fn name(&self) -> &'static str {
        "simplify-casts"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        for id in graph.order() {
            let Op::Cast { dtype } = *graph.op(id) else { continue };
            let [x] = graph.operands(id)[..] else { continue };
            let before = graph.ty(x).dtype;
            if before == dtype {
                if !graph.may_rewrite() {
                    break;
                }
                graph.replace_uses(id, x)?;
                graph.erase(id);
                rewrites.count += 1;
                continue;
            }
            let Some(origin) = cast_of(graph, x) else { continue };
            let first = graph.ty(origin).dtype;
            if !holds(before, first) {
                rewrites.decline(graph, id, format!("{before} does not hold every {first}"));
                continue;
            }
            if !graph.may_rewrite() {
                break;
            }
            let scope = graph.scope(id).clone();
            let direct = match first == dtype {
                true => origin,
                false => graph.add(Op::Cast { dtype }, &[origin], &scope)?,
            };
            graph.replace_uses(id, direct)?;
            graph.erase(id);
            rewrites.count += 1;
        }
        Ok(rewrites)
    }
}

/// What a cast casts.
fn cast_of(graph: &Graph, id: NodeId) -> Option<NodeId> {
    match graph.op(id) {
        Op::Cast { .. } => graph.operands(id).first().copied(),
        _ => None,
    }
}

/// Whether every number of type `narrow` is one of type `wide`.
fn holds(wide: Dtype, narrow: Dtype) -> bool {
    wide == narrow || (wide == Dtype::F32 && narrow.is_narrow())
}
