//! Makes the query, key and value projections of one vector a single linear map over their weights side by side, split
//! after the heads are. One product with a wide matrix instead of three, and one movement of the result.
//!
//! The wide matrix is a concatenation of stored weights; a bundle stores them one after the other, so that it is itself
//! stored. Never merges maps of different operands, maps with a bias or residual, or maps whose results are not split
//! into heads: there nothing but the product would be saved, and a split of the result costs as much.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{BuildError, Graph, NodeId};
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::op::Op;
use photonc_graph::ir::shape::Shape;
use std::collections::HashMap;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct MergeProjections;

/// A linear map whose result is split into heads.
#[derive(Clone, Debug)]
struct Heads {
    weight: NodeId,
    /// What the reshape, or the transpose after it, yields: the value that others read.
    result: NodeId,
    /// From the result back to the linear map.
    chain: Vec<NodeId>,
    /// `[B, n, heads, d]`, or `[B, heads, n, d]` of one position.
    split: Vec<Dim>,
    /// Axis of the heads in `split`.
    axis: usize,
    /// The transpose after the split.
    perm: Option<Vec<usize>>,
    count: usize,
}

impl Pass for MergeProjections {
    fn name(&self) -> &'static str {
        "merge-projections"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        let order = graph.order();
        // By weights, not by who reads first: all positions of a window then read one matrix, which a bundle can store.
        let places: HashMap<NodeId, usize> = order.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        for x in order {
            let readers: Vec<NodeId> = linear_readers(graph, x);
            let Some(first) = readers.first().filter(|_| readers.len() > 1) else { continue };
            let Some(lead) = heads(graph, *first) else {
                rewrites.decline(graph, *first, "the results are not split into heads");
                continue;
            };
            let alike = |part: &Heads| {
                let others = |part: &Heads| -> Vec<Dim> {
                    let dims = part.split.iter().enumerate();
                    dims.filter(|(axis, _)| *axis != part.axis).map(|(_, dim)| dim.clone()).collect()
                };
                part.axis == lead.axis && part.perm == lead.perm && others(part) == others(&lead)
            };
            let mut parts: Vec<Heads> =
                readers.iter().filter_map(|id| heads(graph, *id)).filter(alike).collect();
            if parts.len() < 2 {
                rewrites.decline(graph, *first, "no other map is split into heads of this width");
                continue;
            }
            if !graph.may_rewrite() {
                break;
            }
            parts.sort_by_key(|part| places.get(&part.weight).copied());
            merge(graph, x, &parts)?;
            rewrites.count += 1;
        }
        Ok(rewrites)
    }
}

/// Linear maps of `x` by a stored weight, without bias.
fn linear_readers(graph: &Graph, x: NodeId) -> Vec<NodeId> {
    let users = graph.users(x).into_iter();
    users
        .filter(|(user, slot)| {
            let operands = graph.operands(*user);
            *slot == 0
                && graph.op(*user) == &Op::Linear
                && graph.label(*user).is_none()
                && operands.len() == 2
                && matches!(graph.op(operands[1]), Op::Weight { .. })
        })
        .map(|(user, _)| user)
        .collect()
}

/// `[B, n, heads * d] -> [B, n, heads, d] -> [B, heads, n, d]`, each read by the next alone.
fn heads(graph: &Graph, linear: NodeId) -> Option<Heads> {
    let reshape = only_reader(graph, linear)?;
    let Op::Reshape { shape } = graph.op(reshape) else { return None };
    let flat = graph.ty(linear).shape.0.clone();
    let split = shape.0.clone();
    let ([rows, n, width], [_, _, _, d]) = (&flat[..], &split[..]) else { return None };
    let count = width.divided_by(d)?.as_const()?;
    let axis = match (&split[..], n.as_const()) {
        ([b, m, heads, _], _) if b == rows && m == n && heads.as_const() == Some(count) => 2,
        ([b, heads, m, _], Some(1)) if b == rows && m == n && heads.as_const() == Some(count) => 1,
        _ => return None,
    };
    let weight = *graph.operands(linear).get(1)?;
    let mut part =
        Heads { weight, result: reshape, chain: vec![reshape, linear], split, axis, perm: None, count };
    if let Some(reader) = only_reader(graph, reshape)
        && let Op::Transpose { perm } = graph.op(reader)
    {
        part.perm = Some(perm.clone());
        part.result = reader;
        part.chain.insert(0, reader);
    }
    Some(part)
}

/// The one reader of a value without a name that is no output.
fn only_reader(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let named = graph.label(id).is_some() || graph.outputs().iter().any(|output| output.node == id);
    match graph.users(id)[..] {
        [(user, _)] if !named => Some(user),
        _ => None,
    }
}

fn merge(graph: &mut Graph, x: NodeId, parts: &[Heads]) -> Result<(), BuildError> {
    let Some(lead) = parts.first() else { return Ok(()) };
    let scope = graph.scope(lead.result).clone();
    let weights: Vec<NodeId> = parts.iter().map(|part| part.weight).collect();
    let wide = graph.add(Op::Concat { axis: 0 }, &weights, &scope)?;
    let product = graph.add(Op::Linear, &[x, wide], &scope)?;
    let mut split = lead.split.clone();
    split[lead.axis] = Dim::from(parts.iter().map(|part| part.count).sum::<usize>());
    let mut joined = graph.add(Op::Reshape { shape: Shape(split) }, &[product], &scope)?;
    let mut axis = lead.axis;
    if let Some(perm) = &lead.perm {
        joined = graph.add(Op::Transpose { perm: perm.clone() }, &[joined], &scope)?;
        axis = perm.iter().position(|from| *from == lead.axis).unwrap_or(axis);
    }
    let mut start = 0;
    for part in parts {
        let slice = Op::Slice { axis, start, len: part.count, from_end: false };
        let slice = graph.add(slice, &[joined], &scope)?;
        start += part.count;
        graph.replace_uses(part.result, slice)?;
        for id in &part.chain {
            graph.erase(*id);
        }
    }
    Ok(())
}
