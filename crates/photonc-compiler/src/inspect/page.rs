//! One page about a checkpoint or a bundle for programs: its shape, how each protocol runs, and its graphs.

use crate::model::checkpoint::Checkpoint;
use crate::model::config_json::config_json;
use crate::model::parameter_table::ParameterTable;
use crate::passes::compile::Compilation;
use photonc_bundle::bundle::Bundle;
use photonc_graph::graph::Graph;
use photonc_graph::ir::op::Op;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The page of what was compiled for every defined protocol. `path` says where it was found.
#[must_use]
pub fn checkpoint(path: &str, checkpoint: &Checkpoint, compilation: &Compilation) -> Value {
    let signature = |graph: &Graph| {
        let inputs: Vec<Value> = graph
            .inputs()
            .into_iter()
            .filter_map(|id| match graph.op(id) {
                Op::Input { name, ty, .. } => Some(json!({"name": &**name, "type": ty.to_string()})),
                _ => None,
            })
            .collect();
        let outputs: Vec<Value> = graph
            .outputs()
            .iter()
            .map(|output| json!({"name": &*output.name, "type": graph.ty(output.node).to_string()}))
            .collect();
        json!({"name": graph.name(), "nodes": graph.len(), "inputs": inputs, "outputs": outputs})
    };
    json!({
        "path": path,
        "dialect": checkpoint.dialect.name,
        "config": config_json(&checkpoint.config),
        "dtypes": dtypes(checkpoint),
        "parameters": ParameterTable::new(&checkpoint.config),
        "notes": checkpoint.notes,
        "plans": compilation.plans,
        "graphs": compilation.graphs.values().map(signature).collect::<Vec<_>>(),
    })
}

/// The page from the manifest. `path` says where the bundle was found.
#[must_use]
pub fn bundle(path: &str, bundle: &Bundle) -> Value {
    json!({"path": path, "manifest": bundle.manifest()})
}

/// Types of the stored tensors.
#[must_use]
pub fn dtypes(checkpoint: &Checkpoint) -> Vec<String> {
    let dtypes: BTreeSet<_> = checkpoint.tensors.values().map(|entry| entry.dtype).collect();
    dtypes.into_iter().map(|dtype| dtype.to_string()).collect()
}
