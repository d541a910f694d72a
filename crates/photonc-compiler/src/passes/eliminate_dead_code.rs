//! Removes nodes no output needs, delays included: state that nothing reads is dead, however long it is carried.
//! Never removes a graph input, used or not: inputs are the caller's contract.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::op::Op;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct EliminateDeadCode;

impl Pass for EliminateDeadCode {
    fn name(&self) -> &'static str {
        "eliminate-dead-code"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut count = 0;
        for group in dead(graph) {
            if !graph.may_rewrite() {
                break;
            }
            group.into_iter().for_each(|id| graph.erase(id));
            count += 1;
        }
        Ok(Rewrites::of(count))
    }
}

/// Groups that can go one after the other: a node once nothing reads it, the nodes of a cycle of state together.
pub(super) fn dead(graph: &Graph) -> Vec<Vec<NodeId>> {
    let live = graph.ancestors(graph.outputs().iter().map(|output| output.node));
    if live.len() == graph.len() {
        return Vec::new();
    }
    let stays = |id: &NodeId| live.contains(id) || matches!(graph.op(*id), Op::Input { .. });
    let mut groups = graph.users_first();
    groups.retain(|group| !group.iter().any(stays));
    groups
}
