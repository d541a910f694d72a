//! Makes the gate and the up projection of a SwiGLU one linear map over their weights side by side, and slices its result.
//! One wide product instead of two, at the price of the split: where a runtime reads slices in place, or a product has
//! a fixed cost, that is less work; where a split copies, it is more. Hence no default.
//!
//! Never merges maps of different operands, maps with a bias or residual, or a map that anything else reads.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{BuildError, Graph, NodeId};
use photonc_graph::ir::op::Op;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct MergeGates;

impl Pass for MergeGates {
    fn name(&self) -> &'static str {
        "merge-gates"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        for id in graph.select(|op| matches!(op, Op::SwiGlu)) {
            let [gate, up] = graph.operands(id)[..] else { continue };
            if sliced(graph, gate) && sliced(graph, up) {
                continue;
            }
            match fits(graph, gate, up) {
                Ok(width) => {
                    if !graph.may_rewrite() {
                        break;
                    }
                    merge(graph, id, [gate, up], width)?;
                    rewrites.count += 1;
                }
                Err(reason) => rewrites.decline(graph, id, reason),
            }
        }
        Ok(rewrites)
    }
}

/// Whether the value is part of a linear map's result: what this pass makes.
fn sliced(graph: &Graph, id: NodeId) -> bool {
    let is_map = |source: &NodeId| *graph.op(*source) == Op::Linear;
    matches!(graph.op(id), Op::Slice { .. }) && graph.operands(id).first().is_some_and(is_map)
}

/// The width of each of the two maps, if they can be one.
fn fits(graph: &Graph, gate: NodeId, up: NodeId) -> Result<usize, &'static str> {
    if gate == up {
        return Err("gate and up are one value");
    }
    for id in [gate, up] {
        let operands = graph.operands(id);
        if *graph.op(id) != Op::Linear || operands.len() != 2 {
            return Err("gate or up is no linear map without bias");
        }
        if !matches!(graph.op(operands[1]), Op::Weight { .. }) {
            return Err("a weight is not a stored tensor");
        }
        let named = graph.label(id).is_some() || graph.outputs().iter().any(|output| output.node == id);
        if named || graph.users(id).len() != 1 {
            return Err("gate or up is read by others");
        }
    }
    if graph.operands(gate)[0] != graph.operands(up)[0] {
        return Err("gate and up are maps of different values");
    }
    let width = |id: NodeId| graph.ty(id).shape.0.last().and_then(|dim| dim.as_const());
    match (width(gate), width(up)) {
        (Some(gate), Some(up)) if gate == up => Ok(gate),
        _ => Err("gate and up differ in width"),
    }
}

fn merge(graph: &mut Graph, id: NodeId, parts: [NodeId; 2], width: usize) -> Result<(), BuildError> {
    let scope = graph.scope(id).clone();
    let x = graph.operands(parts[0])[0];
    let weights = parts.map(|part| graph.operands(part)[1]);
    let wide = graph.add(Op::Concat { axis: 0 }, &weights, &scope)?;
    let product = graph.add(Op::Linear, &[x, wide], &scope)?;
    let axis = graph.ty(product).shape.rank() - 1;
    let mut halves = Vec::with_capacity(2);
    for start in [0, width] {
        let half = Op::Slice { axis, start, len: width, from_end: false };
        halves.push(graph.add(half, &[product], &scope)?);
    }
    let gated = graph.add(Op::SwiGlu, &halves, &scope)?;
    graph.replace_uses(id, gated)?;
    graph.erase(id);
    for part in parts {
        graph.erase(part);
    }
    Ok(())
}
