//! Wires the top chunker to the source its protocol reads and drops what no output then needs. Never touches a
//! graph without a `protocol_switch`.

use super::{Form, Pass, PassError, Rewrites, eliminate_dead_code};
use photonc_graph::graph::Graph;
use photonc_graph::ir::op::Op;

pub use photonc_bundle::program::Protocol;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct ChooseProtocol(pub Protocol);

impl Pass for ChooseProtocol {
    fn name(&self) -> &'static str {
        "choose-protocol"
    }

    fn requires(&self) -> Form {
        Form::Any
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let switches = graph.select(|op| matches!(op, Op::ProtocolSwitch));
        let mut count = 0;
        for switch in &switches {
            let sources = graph.operands(*switch);
            let Some(source) = sources.get(operand(self.0)) else {
                return Err(PassError::Impossible {
                    at: graph.scope(*switch).to_string(),
                    reason: format!(
                        "{} is not defined for this model: {}; use another protocol",
                        self.0,
                        match self.0 {
                            Protocol::Recgen =>
                                "the reconstruction's width is not what the top chunker reads",
                            _ => "its windows do not read summaries of units",
                        }
                    ),
                });
            };
            if !graph.may_rewrite() {
                break;
            }
            graph.replace_uses(*switch, *source)?;
            graph.erase(*switch);
            count += 1;
        }
        if count == 0 {
            return Ok(Rewrites::default());
        }
        eliminate_dead_code::dead(graph).into_iter().flatten().for_each(|id| graph.erase(id));
        Ok(Rewrites::of(count))
    }
}

/// Operand of a `protocol_switch` that the protocol reads.
fn operand(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Hiergen => 0,
        Protocol::Recgen => 1,
        Protocol::Windowed => 2,
        Protocol::Chunkgen => 3,
    }
}
