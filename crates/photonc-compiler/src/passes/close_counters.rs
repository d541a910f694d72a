//! Replaces a delay that only counts steps by an input the runtime can compute: its value is the initial one plus
//! the step index. Never touches state that reads anything but itself, or counts by anything but one.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::attr::{BinaryFn, Role};
use photonc_graph::ir::dtype::Dtype;
use photonc_graph::ir::op::Op;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct CloseCounters;

impl Pass for CloseCounters {
    fn name(&self) -> &'static str {
        "close-counters"
    }

    fn requires(&self) -> Form {
        Form::Chosen
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        for delay in graph.delays() {
            let Op::Delay { name, ty } = graph.op(delay).clone() else { continue };
            if ty.dtype != Dtype::I64 {
                continue;
            }
            if !counts_by_one(graph, delay) {
                rewrites.decline(graph, delay, "the next value is not this one plus one");
                continue;
            }
            if !graph.may_rewrite() {
                break;
            }
            let scope = graph.scope(delay).clone();
            // The name stays unique: the delay that had it goes in the same rewrite.
            let input = graph.add(Op::Input { name, ty, role: Role::Counter }, &[], &scope)?;
            let next = graph.operands(delay);
            graph.replace_uses(delay, input)?;
            graph.erase(delay);
            for id in next {
                let is_output = graph.outputs().iter().any(|output| output.node == id);
                if graph.users(id).is_empty() && !is_output {
                    graph.erase(id);
                }
            }
            rewrites.count += 1;
        }
        Ok(rewrites)
    }
}

fn counts_by_one(graph: &Graph, delay: NodeId) -> bool {
    let [next] = graph.operands(delay)[..] else { return false };
    if !matches!(graph.op(next), Op::Binary { function: BinaryFn::Add }) {
        return false;
    }
    let operands = graph.operands(next);
    operands.contains(&delay)
        && operands.iter().any(|operand| match graph.op(*operand) {
            Op::Const { value } => value
                .to_tensor()
                .as_ints()
                .is_some_and(|ints| !ints.is_empty() && ints.iter().all(|n| *n == 1)),
            _ => false,
        })
}
