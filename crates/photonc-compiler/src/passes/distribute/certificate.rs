//! The certificate of a division and the refusal of one, read off the step program.

use super::{Dependence, Split, is_tainted};
use photonc_bundle::program::{Certificate, CutValue, Declined, PathNode, Recurrence};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::op::Op;
use std::collections::HashSet;

/// The refusal of `state`, whose recurrence a sample reaches at `target` along `path`.
pub(super) fn declined(graph: &Graph, state: &str, target: NodeId, path: Vec<NodeId>) -> Declined {
    let reached = delay_name(graph, target).unwrap_or_default();
    let path = path
        .into_iter()
        .map(|id| PathNode {
            serial: graph.serial(id),
            op: graph.op(id).kind().def().name.to_owned(),
            scope: graph.scope(id).to_string(),
        })
        .collect();
    Declined { state: state.to_owned(), reason: format!("a sample reaches the state `{reached}`"), path }
}

/// What the division of a step program around `state` proves.
pub(super) fn certificate(split: &Split<'_>, dependence: &Dependence, state: &str) -> Certificate {
    let graph = split.graph;
    let names = |ids: &[NodeId]| -> Vec<String> {
        ids.iter().filter_map(|id| delay_name(graph, *id)).map(str::to_owned).collect()
    };
    let recurrences = |tainted: bool| {
        let all = dependence.recurrences.iter();
        all.filter(|component| is_tainted(dependence, component) == tainted)
            .map(|component| Recurrence { delays: names(component), nodes: component.len() })
            .collect::<Vec<_>>()
    };
    let in_loops: HashSet<&str> =
        dependence.recurrences.iter().flatten().filter_map(|id| delay_name(graph, *id)).collect();
    Certificate {
        state: state.to_owned(),
        coarse_nodes: split.coarse.len(),
        expand_nodes: split.rest.len(),
        samples: split.rest.iter().filter(|id| matches!(graph.op(**id), Op::Sample { .. })).count(),
        tainted_coarse_nodes: split.coarse.intersection(&dependence.tainted).count(),
        recurrences: recurrences(false),
        loops: recurrences(true),
        cut: split
            .cut
            .iter()
            .map(|(id, name)| CutValue {
                name: name.clone(),
                ty: graph.ty(*id).to_string(),
                scope: graph.scope(*id).to_string(),
            })
            .collect(),
        shifts: names(&split.rest).into_iter().filter(|name| !in_loops.contains(name.as_str())).collect(),
    }
}

fn delay_name(graph: &Graph, id: NodeId) -> Option<&str> {
    match graph.op(id) {
        Op::Delay { name, .. } => Some(name),
        _ => None,
    }
}
