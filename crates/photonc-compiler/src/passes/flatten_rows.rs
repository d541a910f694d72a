//! Gives operations that treat every row alike (linear maps, norms, gated products, sums of such) two axes, rows and
//! width, whatever axes the rows are made of. A linear map of rows is one matrix product that also adds a bias or a
//! residual, and the change of shape meets the one that splits heads, where it costs nothing.
//!
//! Never touches an operation that works along an axis of the rows, and a sum only where one of its operands already
//! has two axes: alone it would gain nothing and cost a change of shape.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{BuildError, Graph, NodeId, Scope};
use photonc_graph::ir::attr::BinaryFn;
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::Shape;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct FlattenRows;

impl Pass for FlattenRows {
    fn name(&self) -> &'static str {
        "flatten-rows"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        for id in graph.order() {
            if graph.ty(id).shape.rank() < 3 {
                continue;
            }
            match rows_of(graph, id) {
                Some(rows) => {
                    if !graph.may_rewrite() {
                        break;
                    }
                    flatten(graph, id, &rows)?;
                    rewrites.count += 1;
                }
                None if matches!(graph.op(id), Op::Binary { function: BinaryFn::Add }) => {
                    rewrites.decline(graph, id, "neither operand is made of rows of two axes");
                }
                None => {}
            }
        }
        Ok(rewrites)
    }
}

/// Slots of the operands that are rows; the others belong to every row alike.
fn rows_of(graph: &Graph, id: NodeId) -> Option<Vec<usize>> {
    let operands = graph.operands(id);
    match graph.op(id) {
        // A residual is rows, a bias is not.
        Op::Linear if operands.get(2).is_some_and(|addend| graph.ty(*addend) == graph.ty(id)) => {
            Some(vec![0, 2])
        }
        Op::Linear | Op::RmsNorm { .. } => Some(vec![0]),
        Op::SwiGlu => Some(vec![0, 1]),
        Op::Binary { function: BinaryFn::Add } => {
            let alike = operands.iter().all(|operand| graph.ty(*operand) == graph.ty(id));
            let any = operands.iter().any(|operand| flat_source(graph, *operand).is_some());
            (alike && any).then_some(vec![0, 1])
        }
        _ => None,
    }
}

/// The value of two axes that `id` is the rows of.
fn flat_source(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let (Op::Reshape { shape }, [source]) = (graph.op(id), &graph.operands(id)[..]) else { return None };
    let from = &graph.ty(*source).shape;
    (from.rank() == 2 && from.0.last() == shape.0.last()).then_some(*source)
}

fn flatten(graph: &mut Graph, id: NodeId, rows: &[usize]) -> Result<(), BuildError> {
    let scope = graph.scope(id).clone();
    let mut operands = graph.operands(id);
    for slot in rows {
        operands[*slot] = flat(graph, operands[*slot], &scope)?;
    }
    let made = graph.add(graph.op(id).clone(), &operands, &scope)?;
    let shape = graph.ty(id).shape.clone();
    let back = graph.add(Op::Reshape { shape }, &[made], &scope)?;
    graph.replace_uses(id, back)?;
    graph.erase(id);
    Ok(())
}

/// `[.., W]` as `[rows, W]`.
fn flat(graph: &mut Graph, id: NodeId, scope: &Scope) -> Result<NodeId, BuildError> {
    if let Some(source) = flat_source(graph, id) {
        return Ok(source);
    }
    let Some((width, axes)) = graph.ty(id).shape.0.split_last() else { return Ok(id) };
    let rows = axes.iter().fold(Dim::from(1), |rows, axis| rows.times(axis));
    let shape = Shape(vec![rows, width.clone()]);
    graph.add(Op::Reshape { shape }, &[id], scope)
}
