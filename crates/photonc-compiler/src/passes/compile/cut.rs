//! The next states of a step that is not distributed, before its ids and behind them. Owns which of them can be computed
//! from the ids alone.

use crate::passes::straighten;
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::op::Op;

/// The next states of a step, divided by whether they can be computed from the ids alone.
pub(super) struct Cut {
    pub before: Vec<(String, NodeId)>,
    pub after: Vec<(String, NodeId)>,
    /// Whether a state of `before` depends on a sample of the same step.
    pub before_reads_samples: bool,
}

impl Cut {
    pub fn of(step: &Graph) -> Self {
        let states = straighten::next_states(step, &step.delays());
        let samples = step.select(|op| matches!(op, Op::Sample { .. }));
        let reads_samples = |states: &[(String, NodeId)], stops: &[NodeId]| {
            let needed = straighten::within_step(step, states.iter().map(|(_, id)| *id), stops);
            samples.iter().any(|sample| needed.contains(sample) && !stops.contains(sample))
        };
        let ids: Vec<NodeId> = step.output("ids").into_iter().collect();
        let reads_ids = |(_, id): &(String, NodeId)| {
            let needed = straighten::within_step(step, [*id], &[]);
            ids.iter().any(|ids| needed.contains(ids))
        };
        let (after, before): (Vec<_>, Vec<_>) = states.iter().cloned().partition(reads_ids);
        // Behind the ids nothing else of the step may be read: a sample on another way would be drawn twice.
        let (before, after) =
            if reads_samples(&after, &ids) { (states, Vec::new()) } else { (before, after) };
        let before_reads_samples = reads_samples(&before, &[]);
        Cut { before, after, before_reads_samples }
    }
}
