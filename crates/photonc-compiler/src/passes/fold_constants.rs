//! Evaluates operations on constants with the reference semantics. Never folds stored weights, and never makes a
//! constant of more than `MAX_ELEMENTS`: graphs are read by people, weights belong in files.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::eval;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::tensor::{Literal, Tensor};

const MAX_ELEMENTS: usize = 4096;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct FoldConstants;

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold-constants"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        for id in graph.order() {
            let Some(operands) = constants(graph, id) else { continue };
            let ty = graph.ty(id).clone();
            let Some(shape) = ty.shape.as_const() else { continue };
            if shape.iter().product::<usize>() > MAX_ELEMENTS {
                rewrites.decline(graph, id, format!("more than {MAX_ELEMENTS} elements"));
                continue;
            }
            let references: Vec<&Tensor> = operands.iter().collect();
            let folded = eval::eval(graph.op(id), &references, &shape)
                .ok()
                .and_then(|tensor| Literal::from_tensor(ty.dtype, &tensor));
            let Some(value) = folded else {
                rewrites.decline(graph, id, "evaluation fails on these constants");
                continue;
            };
            if !graph.may_rewrite() {
                break;
            }
            let scope = graph.scope(id).clone();
            let constant = graph.add(Op::Const { value }, &[], &scope)?;
            graph.replace_uses(id, constant)?;
            graph.erase(id);
            rewrites.count += 1;
        }
        Ok(rewrites)
    }
}

/// The operands' values, if every one is a constant and there is at least one.
fn constants(graph: &Graph, id: NodeId) -> Option<Vec<Tensor>> {
    if graph.op(id).is_delay() {
        return None;
    }
    let operands = graph.operands(id);
    if operands.is_empty() {
        return None;
    }
    operands
        .into_iter()
        .map(|operand| match graph.op(operand) {
            Op::Const { value } => Some(value.to_tensor()),
            _ => None,
        })
        .collect()
}
