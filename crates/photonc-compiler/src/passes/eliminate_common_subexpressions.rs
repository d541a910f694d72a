//! Makes equal operations on equal operands one node, the earlier one. Never merges inputs, which are the caller's
//! contract, or delays, which are state.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::op::Op;
use std::collections::HashMap;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct EliminateCommonSubexpressions;

impl Pass for EliminateCommonSubexpressions {
    fn name(&self) -> &'static str {
        "eliminate-common-subexpressions"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut seen: HashMap<(Op, Vec<NodeId>), NodeId> = HashMap::new();
        let mut count = 0;
        for id in graph.order() {
            if matches!(graph.op(id), Op::Input { .. } | Op::Delay { .. }) {
                continue;
            }
            let key = (graph.op(id).clone(), graph.operands(id));
            match seen.get(&key) {
                // Two names for one value would lose one of them.
                Some(first) if graph.label(id).is_some() && graph.label(*first).is_some() => {}
                Some(first) => {
                    let first = *first;
                    if !graph.may_rewrite() {
                        break;
                    }
                    graph.replace_uses(id, first)?;
                    graph.erase(id);
                    count += 1;
                }
                None => {
                    seen.insert(key, id);
                }
            }
        }
        Ok(Rewrites::of(count))
    }
}
