//! Removes nodes no output needs, delays included: state that nothing reads is dead, however long it is carried.
//! Never removes a graph input, used or not: inputs are the caller's contract.

use super::{Form, Pass, PassError, Rewrites};
use crate::graph::Graph;
use crate::ir::op::Op;

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
        let roots: Vec<_> = graph.outputs().iter().map(|output| output.node).collect();
        let live = graph.ancestors(roots);
        let dead: Vec<_> = graph
            .nodes()
            .into_iter()
            .filter(|id| !live.contains(id) && !matches!(graph.op(*id), Op::Input { .. }))
            .collect();
        for id in &dead {
            graph.erase(*id);
        }
        Ok(Rewrites::of(dead.len()))
    }
}
