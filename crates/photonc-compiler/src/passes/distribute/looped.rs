//! The expansion of a step program whose expansion has recurrences: they and what follows them stay one step, and what
//! precedes them goes wide. Owns the second cut, between the two; keeps all in the step where a part refuses to be rows.

use super::{NotDistributed, Split, row_wise, widen};
use crate::passes::straighten;
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::dim::Symbol;
use photonc_graph::ir::op::Op;
use std::collections::HashSet;

/// What precedes the recurrences `looped`, wide, if anything does; and the rest as one step.
pub(super) fn looped(
    split: &Split<'_>,
    looped: impl Iterator<Item = NodeId>,
) -> Result<(Option<Graph>, Graph), NotDistributed> {
    let graph = split.graph;
    let behind: HashSet<NodeId> = graph.descendants(looped);
    let ahead: Vec<NodeId> = split.rest.iter().copied().filter(|id| !behind.contains(id)).collect();
    // What reads nothing of the coarse graph, such as places counted from a length, costs nothing in the step.
    let given: HashSet<NodeId> = graph.descendants(split.cut.iter().map(|(id, _)| *id));
    let own: Vec<NodeId> = ahead.into_iter().filter(|id| given.contains(id)).collect();
    let lead = lead(split, &own, &behind)?;
    let given: Vec<(NodeId, String)> = match &lead {
        Some((_, cut)) => [&split.cut[..], cut].concat(),
        None => split.cut.clone(),
    };
    let leads = |id: &NodeId| lead.is_some() && own.contains(id);
    let stays = |id: &NodeId| split.rest.contains(id) && !leads(id);
    let delays: Vec<NodeId> = graph.delays().into_iter().filter(stays).collect();
    let mut roots: Vec<(String, NodeId)> = split.roots.iter().map(|(id, name)| (name.clone(), *id)).collect();
    roots.extend(straighten::next_states(graph, &delays));
    let boundary: Vec<(NodeId, &str)> = given.iter().map(|(id, name)| (*id, name.as_str())).collect();
    let step = straighten::straighten(graph, "expand", &roots, &boundary)?;
    Ok((lead.map(|(wide, _)| wide), step))
}

/// A wide graph, and the values of the step program that it yields, with their names.
type Lead = Option<(Graph, Vec<(NodeId, String)>)>;

/// The nodes `own` over many steps, and what of them the nodes `behind` or outputs read, with its names; `None` where
/// nothing is gained, or a part cannot run many steps as rows.
fn lead(split: &Split<'_>, own: &[NodeId], behind: &HashSet<NodeId>) -> Result<Lead, NotDistributed> {
    let graph = split.graph;
    if !own.iter().any(|id| matches!(graph.op(*id), Op::Linear | Op::Attention { .. })) {
        return Ok(None);
    }
    let outputs: HashSet<NodeId> = split.roots.iter().map(|(id, _)| *id).collect();
    // Numbers of places and masks cost nothing: the step counts its own again.
    let is_read = |id: &NodeId| {
        let used = || graph.users(*id).iter().any(|(user, _)| behind.contains(user));
        graph.ty(*id).dtype.is_float() && (outputs.contains(id) || used())
    };
    let named = |(index, id): (usize, NodeId)| {
        (id, graph.label(id).map_or_else(|| format!("lead.{index}"), str::to_owned))
    };
    let cut: Vec<(NodeId, String)> = own.iter().copied().filter(is_read).enumerate().map(named).collect();
    // A step takes its own part of the second axis of each.
    let is_sliced = |(id, _): &(NodeId, String)| {
        let shape = &graph.ty(*id).shape;
        shape.rank() > 1 && shape.0[0] == Symbol::Batch.into() && !row_wise::mixed(shape)
    };
    if cut.is_empty() || !cut.iter().all(is_sliced) {
        return Ok(None);
    }
    let part = Split {
        graph,
        coarse: split.coarse.clone(),
        rest: own.to_vec(),
        cut: split.cut.clone(),
        roots: cut.clone(),
        fixed: split.fixed.clone(),
    };
    match widen::widen_as("expand_lead", &part) {
        Ok(wide) => Ok(Some((wide, cut))),
        Err(NotDistributed::Declined(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
