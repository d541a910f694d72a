//! Computes only what is read: where every reader of a value takes the same slice of it, the slice moves before the
//! operation. In the last layer of a window's prefix only the last position is read, so queries, attention, MLP and
//! final norm of the others disappear; keys and values of all positions stay, because the last one attends to them.
//!
//! Never moves a slice past a value that has a name, is an output or has a reader that wants all of it: that would
//! compute entries twice. Never slices an axis along which the operation mixes entries.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{BuildError, Graph, NodeId};
use photonc_graph::ir::attr::Mask;
use photonc_graph::ir::dim::Dim;
use photonc_graph::ir::op::Op;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct SkipUnreadPositions;

/// `len` entries of `axis` from `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    axis: usize,
    start: usize,
    len: usize,
}

impl Part {
    fn along(self, axis: usize) -> Self {
        Part { axis, ..self }
    }

    fn op(self) -> Op {
        Op::Slice { axis: self.axis, start: self.start, len: self.len, from_end: false }
    }
}

impl Pass for SkipUnreadPositions {
    fn name(&self) -> &'static str {
        "skip-unread-positions"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        // Readers first: a slice that moved in front of a reader is there when its operand's turn comes.
        for id in graph.order().into_iter().rev() {
            let Some((part, slices)) = read_part(graph, id) else { continue };
            match plan(graph, id, part) {
                Ok(operands) => {
                    if !graph.may_rewrite() {
                        break;
                    }
                    move_before(graph, id, &operands, &slices)?;
                    rewrites.count += 1;
                }
                Err(Some(reason)) => rewrites.decline(graph, id, reason),
                Err(None) => {}
            }
        }
        Ok(rewrites)
    }
}

/// The one part of `id` that is read, and the slices that read it.
fn read_part(graph: &Graph, id: NodeId) -> Option<(Part, Vec<NodeId>)> {
    if graph.label(id).is_some() || graph.outputs().iter().any(|output| output.node == id) {
        return None;
    }
    let mut part = None;
    let mut slices = Vec::new();
    for (user, _) in graph.users(id) {
        let Op::Slice { axis, start, len, from_end: false } = *graph.op(user) else { return None };
        let read = Part { axis, start, len };
        if *part.get_or_insert(read) != read || graph.label(user).is_some() {
            return None;
        }
        slices.push(user);
    }
    part.map(|part| (part, slices))
}

/// How each operand is to be sliced (`None`: not at all) for `id` to yield the part; else the reason why it cannot,
/// if the place is worth a word.
fn plan(graph: &Graph, id: NodeId, part: Part) -> Result<Vec<Option<Part>>, Option<&'static str>> {
    let operands = graph.operands(id);
    let dims = |slot: usize| &graph.ty(operands[slot]).shape.0;
    let rank = graph.ty(id).shape.rank();
    let whole = |count: usize| vec![None; count];
    let first = |part: Part| {
        let mut plan = whole(operands.len());
        plan[0] = Some(part);
        plan
    };
    match graph.op(id) {
        Op::Linear | Op::RmsNorm { .. } | Op::Route { .. } | Op::Experts { .. } if part.axis + 1 == rank => {
            Err(Some("mixes entries of the sliced axis"))
        }
        Op::Linear if operands.len() == 3 && dims(2).len() == rank => Ok(vec![Some(part), None, Some(part)]),
        Op::Linear | Op::RmsNorm { .. } | Op::Route { .. } | Op::Cast { .. } | Op::Unary { .. } => {
            Ok(first(part))
        }
        Op::Experts { .. } => Ok(vec![Some(part), Some(part), None, None]),
        Op::Binary { .. } | Op::Compare { .. } | Op::Where | Op::SwiGlu => {
            let full = &graph.ty(id).shape.0[part.axis];
            let slice = |slot: usize| {
                let axis = (part.axis + dims(slot).len()).checked_sub(rank)?;
                (&dims(slot)[axis] == full).then(|| part.along(axis))
            };
            Ok((0..operands.len()).map(slice).collect())
        }
        Op::Reshape { shape } => match same_axis(&shape.0, dims(0), part.axis) {
            Some(axis) => Ok(first(part.along(axis))),
            None => Err(Some("the reshape does not keep the sliced axis")),
        },
        Op::Transpose { perm } => Ok(first(part.along(perm[part.axis]))),
        Op::Concat { axis } if *axis != part.axis => Ok(vec![Some(part); operands.len()]),
        Op::Gather if part.axis + 1 < rank => Ok(vec![None, Some(part)]),
        Op::Rope { .. } if part.axis == 2 => {
            Ok(vec![Some(part), Some(part.along(graph.ty(operands[1]).shape.rank() - 1))])
        }
        // Tiles begin at positions, which follow from how many keys there are.
        Op::Attention { mask: Mask::Causal, reach, .. } if part.axis == 2 && reach.tile.is_none() => {
            let mut plan = causal(dims(0), dims(1), part)?;
            plan.resize(operands.len(), None);
            Ok(plan)
        }
        Op::Attention { .. } => Err(Some("which keys a query sees follows from how many queries there are")),
        Op::Input { .. }
        | Op::Weight { .. }
        | Op::QuantizedWeight { .. }
        | Op::Const { .. }
        | Op::Delay { .. }
        | Op::ProtocolSwitch
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Iota { .. }
        | Op::Gather
        | Op::GatherRows
        | Op::Rope { .. }
        | Op::CacheAppend
        | Op::Shift
        | Op::Sample { .. } => Err(None),
    }
}

/// Causal attention of some queries: keys after the last of them are seen by none, and without those the queries are
/// aligned at the end again.
fn causal(queries: &[Dim], keys: &[Dim], part: Part) -> Result<Vec<Option<Part>>, Option<&'static str>> {
    let (Some(n), Some(m)) = (queries[2].as_const(), keys[2].as_const()) else {
        return Err(Some("the number of queries is not known"));
    };
    let unseen = n - part.start - part.len;
    let seen = match m.checked_sub(unseen) {
        Some(seen) if seen >= part.len => seen,
        _ => return Err(Some("fewer keys than queries")),
    };
    let keys = (unseen > 0).then_some(Part { axis: 2, start: 0, len: seen });
    Ok(vec![Some(part), keys, keys])
}

/// The axis of `from` that is axis `axis` of `to`: as long, with as many elements before and after it.
fn same_axis(to: &[Dim], from: &[Dim], axis: usize) -> Option<usize> {
    let product = |dims: &[Dim]| dims.iter().fold(Dim::from(1), |product, dim| product.times(dim));
    let before = product(&to[..axis]);
    (0..from.len()).find(|other| from[*other] == to[axis] && product(&from[..*other]) == before)
}

fn move_before(
    graph: &mut Graph,
    id: NodeId,
    plan: &[Option<Part>],
    slices: &[NodeId],
) -> Result<(), BuildError> {
    let mut operands = graph.operands(id);
    let scope = graph.scope(id).clone();
    for (operand, part) in operands.iter_mut().zip(plan) {
        let Some(part) = part else { continue };
        let op = part.op();
        let made = graph.users(*operand).into_iter().find(|(user, _)| graph.op(*user) == &op);
        *operand = match made {
            Some((slice, _)) if !slices.contains(&slice) => slice,
            _ => graph.add(op, &[*operand], &scope)?,
        };
    }
    let op = match graph.op(id) {
        Op::Reshape { .. } => match slices.first() {
            Some(slice) => Op::Reshape { shape: graph.ty(*slice).shape.clone() },
            None => return Ok(()),
        },
        op => op.clone(),
    };
    let part = graph.add(op, &operands, &scope)?;
    for slice in slices {
        graph.replace_uses(*slice, part)?;
        graph.erase(*slice);
    }
    graph.erase(id);
    Ok(())
}
