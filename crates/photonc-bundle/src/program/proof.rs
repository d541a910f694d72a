//! The certificate of a distributed plan, read off the graphs that carry it out: the compiler writes it, and whoever reads a
//! bundle derives it again and compares.

use super::certificate::{Certificate, CutValue, Recurrence};
use super::signature::NEXT;
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::op::Op;
use std::collections::{BTreeSet, HashMap, HashSet};

/// A state of a step: its name, the node that reads it and the node that yields its next value.
struct State {
    name: String,
    read: NodeId,
    next: NodeId,
}

/// The certificate of `coarse`, which runs ahead around the state called `state`, and of `expand`, which follows it.
#[must_use]
pub fn certificate(coarse: &Graph, expand: &Graph, state: &str) -> Certificate {
    let own = states(coarse);
    let tainted = coarse.descendants(taint(coarse, expand, &own));
    let is_sample = |op: &Op| matches!(op, Op::Sample { .. });
    let expanded = states(expand);
    let loops = recurrences(expand, &expanded);
    let is_looped = |state: &State| loops.iter().any(|one| one.delays.contains(&state.name));
    let cut = coarse.outputs().iter().filter(|output| !output.name.starts_with(NEXT));
    Certificate {
        state: state.to_owned(),
        coarse_nodes: coarse.len(),
        expand_nodes: expand.len(),
        samples: expand.select(is_sample).len(),
        tainted_coarse_nodes: tainted.len(),
        recurrences: recurrences(coarse, &own),
        cut: cut
            .map(|output| CutValue {
                name: output.name.to_string(),
                ty: coarse.ty(output.node).to_string(),
                scope: coarse.scope(output.node).to_string(),
            })
            .collect(),
        shifts: expanded.iter().filter(|state| !is_looped(state)).map(|state| state.name.clone()).collect(),
        loops,
    }
}

/// What a graph reads and yields the next value of, in the order of its outputs.
fn states(graph: &Graph) -> Vec<State> {
    let inputs: HashMap<&str, NodeId> = inputs(graph).collect();
    let state = |output: &photonc_graph::graph::Output| {
        let name = output.name.strip_prefix(NEXT)?;
        Some(State { name: name.to_owned(), read: *inputs.get(name)?, next: output.node })
    };
    graph.outputs().iter().filter_map(state).collect()
}

fn inputs(graph: &Graph) -> impl Iterator<Item = (&str, NodeId)> {
    graph.inputs().into_iter().filter_map(|id| match graph.op(id) {
        Op::Input { name, .. } => Some((&**name, id)),
        _ => None,
    })
}

/// Nodes of the coarse graph that hold a sample, or what the expansion makes of one: its own samples, and inputs that
/// neither it nor the caller's counters give.
fn taint(coarse: &Graph, expand: &Graph, own: &[State]) -> Vec<NodeId> {
    let mut found = coarse.select(|op| matches!(op, Op::Sample { .. }));
    let yielded: HashSet<&str> = expand.outputs().iter().map(|output| &*output.name).collect();
    let is_yielded =
        |name: &str| yielded.contains(name) || yielded.contains(format!("{NEXT}{name}").as_str());
    let is_own = |name: &str| own.iter().any(|state| state.name == name);
    found.extend(inputs(coarse).filter(|(name, _)| !is_own(name) && is_yielded(name)).map(|(_, id)| id));
    found
}

/// The cycles of a straight graph whose states are read where the step before yielded them: states that reach each other,
/// with every node between them.
fn recurrences(graph: &Graph, states: &[State]) -> Vec<Recurrence> {
    let after: Vec<HashSet<NodeId>> = states.iter().map(|state| graph.descendants([state.read])).collect();
    let count = states.len();
    let mut reaches: Vec<Vec<bool>> =
        after.iter().map(|after| states.iter().map(|state| after.contains(&state.next)).collect()).collect();
    for middle in 0..count {
        for from in 0..count {
            if reaches[from][middle] {
                let row = reaches[middle].clone();
                reaches[from].iter_mut().zip(row).for_each(|(to, through)| *to |= through);
            }
        }
    }
    let mut found = Vec::new();
    let mut placed = BTreeSet::new();
    for (first, reached) in reaches.iter().enumerate() {
        if !reached[first] || placed.contains(&first) {
            continue;
        }
        let together: Vec<usize> =
            (0..count).filter(|other| reached[*other] && reaches[*other][first]).collect();
        let before = graph.ancestors(together.iter().map(|at| states[*at].next));
        let on_cycle: HashSet<NodeId> =
            together.iter().flat_map(|at| &after[*at]).filter(|id| before.contains(id)).copied().collect();
        found.push(Recurrence {
            delays: together.iter().map(|at| states[*at].name.clone()).collect(),
            nodes: on_cycle.len(),
        });
        placed.extend(together);
    }
    found
}
