//! Lets attention read a cache and the new slice side by side instead of the cache after the append, so that a graph
//! never returns a whole cache. Never touches attention whose keys and values are appended at different places.

use super::{Form, Pass, PassError, Rewrites};
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::attr::Mask;
use photonc_graph::ir::op::Op;

/// See the module's description.
#[derive(Clone, Copy, Debug)]
pub struct LowerCaches;

impl Pass for LowerCaches {
    fn name(&self) -> &'static str {
        "lower-caches"
    }

    fn requires(&self) -> Form {
        Form::Chosen
    }

    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError> {
        let mut rewrites = Rewrites::default();
        for id in graph.select(|op| matches!(op, Op::Attention { mask: Mask::Cache, .. })) {
            let operands = graph.operands(id);
            let [q, k, v, lengths, ref sinks @ ..] = operands[..] else { continue };
            let (Some(keys), Some(values)) = (appended(graph, k, lengths), appended(graph, v, lengths))
            else {
                rewrites.decline(graph, id, "keys or values are not appended at the attention's own lengths");
                continue;
            };
            let Op::Attention { scale, reach, .. } = *graph.op(id) else { continue };
            if !graph.may_rewrite() {
                break;
            }
            let scope = graph.scope(id).clone();
            let keys = graph.add(Op::Concat { axis: 2 }, &keys, &scope)?;
            let values = graph.add(Op::Concat { axis: 2 }, &values, &scope)?;
            let op = Op::Attention { scale, mask: Mask::Past, reach };
            let lowered: Vec<NodeId> =
                [q, keys, values, lengths].into_iter().chain(sinks.iter().copied()).collect();
            let lowered = graph.add(op, &lowered, &scope)?;
            graph.replace_uses(id, lowered)?;
            graph.erase(id);
            rewrites.count += 1;
        }
        Ok(rewrites)
    }
}

/// The cache and the new slice of an append at `lengths`.
fn appended(graph: &Graph, id: NodeId, lengths: NodeId) -> Option<[NodeId; 2]> {
    match (graph.op(id), &graph.operands(id)[..]) {
        (Op::CacheAppend, [cache, new, at]) if *at == lengths => Some([*cache, *new]),
        _ => None,
    }
}
