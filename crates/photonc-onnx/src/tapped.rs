//! Values inside an exported model, for those who want to look at them. Owns which values of a graph its model computes as
//! they are; refuses those that it has only in another form, or that two nodes share.

use super::emit::Emitter;
use super::pb::ModelProto;
use super::target::Target;
use super::{ExportError, Weights, proto};
use photonc_graph::graph::{Graph, NodeId, Verified};
use photonc_graph::ir::op::Op;
use std::collections::{HashMap, HashSet};

/// Names of the values of `graph` that `model`, its portable ONNX model, computes under a name of their own.
///
/// # Errors
/// The graph cannot be exported.
pub fn computed_values(
    graph: Verified<'_>,
    weights: &Weights<'_>,
    model: &ModelProto,
) -> Result<HashMap<NodeId, String>, ExportError> {
    let mut emitted = Emitter::new(graph, Target::Portable, weights);
    emitted.lower_graph()?;
    let computed: HashSet<&str> = model
        .graph
        .iter()
        .flat_map(|graph| &graph.node)
        .flat_map(|node| node.output.iter().map(String::as_str))
        .collect();
    let mut scaled: HashSet<NodeId> = HashSet::new();
    let mut taken: HashSet<String> = HashSet::new();
    let mut found = HashMap::new();
    for id in graph.order() {
        let moves = matches!(
            graph.op(id),
            Op::Concat { .. } | Op::Slice { .. } | Op::Reshape { .. } | Op::Transpose { .. }
        );
        let rotated = matches!(graph.op(id), Op::Rope { .. }) && emitted.scaled.contains_key(&id);
        if rotated || moves && graph.operands(id).iter().any(|operand| scaled.contains(operand)) {
            scaled.insert(id);
            continue;
        }
        if let Some(name) = emitted.values.get(&id).filter(|name| computed.contains(name.as_str()))
            && taken.insert(name.clone())
        {
            found.insert(id, name.clone());
        }
    }
    Ok(found)
}

/// The model with values of its graph as further outputs, in this order.
#[must_use]
pub fn with_outputs(mut model: ModelProto, graph: &Graph, values: &[(NodeId, &str)]) -> ModelProto {
    if let Some(parts) = &mut model.graph {
        parts.value_info.retain(|info| values.iter().all(|(_, name)| *name != info.name));
        parts.output.extend(values.iter().map(|(id, name)| proto::value_info(name, graph.ty(*id))));
    }
    model
}
