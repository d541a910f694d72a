//! A graph as JSON for other tools. The shape:
//!
//! ```text
//! { "graph", "setting": {"batch", "run_ahead", "capacity", "precision"}, "bindings": {"batch", "meta", "capacity"},
//!   "nodes": [{ "id", "op", "attributes": {..}, "type", "scope", "label", "operands": [id, ..], "parameters",
//!               "work": {"matmul_flops", "other_flops", "weight_bytes", "cache_bytes", "activation_bytes"},
//!               "intensity" }],
//!   "outputs": [{ "name", "node" }],
//!   "scopes": { "name", "scope", "nodes", "parameters", "work", "intensity", "children": [..] } }
//! ```
//!
//! Nodes stand in the order of the graph's text and `id` is their place. Sums of a scope include those inside it; `parameters` counts
//! each weight once.

use super::sheet::{Fold, Row, Sheet};
use super::subject::Setting;
use photonc_graph::ir::dim::Symbol;
use serde_json::{Map, Value, json};

/// The document of a graph.
#[must_use]
pub fn document(sheet: &Sheet, setting: &Setting) -> Value {
    let bindings: Map<String, Value> = Symbol::ALL
        .into_iter()
        .filter_map(|symbol| Some((symbol.name().to_owned(), sheet.bindings.get(symbol)?.into())))
        .collect();
    let outputs: Vec<Value> =
        sheet.outputs.iter().map(|(name, node)| json!({"name": name, "node": node})).collect();
    json!({
        "graph": sheet.graph,
        "setting": setting,
        "bindings": bindings,
        "nodes": sheet.rows.iter().enumerate().map(node).collect::<Vec<_>>(),
        "outputs": outputs,
        "scopes": scope(&sheet.root),
    })
}

fn node((id, row): (usize, &Row)) -> Value {
    let attributes: Map<String, Value> =
        row.attributes.iter().map(|(name, text)| ((*name).to_owned(), text.as_str().into())).collect();
    json!({
        "id": id,
        "op": row.op,
        "attributes": attributes,
        "type": row.ty,
        "scope": row.scope,
        "label": row.label,
        "operands": row.operands,
        "parameters": row.parameters,
        "work": row.work,
        "intensity": row.work.intensity(),
    })
}

fn scope(fold: &Fold) -> Value {
    json!({
        "name": fold.name,
        "scope": fold.scope,
        "nodes": fold.nodes,
        "parameters": fold.parameters,
        "work": fold.work,
        "intensity": fold.work.intensity(),
        "children": fold.children.iter().map(scope).collect::<Vec<_>>(),
    })
}
