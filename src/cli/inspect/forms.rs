//! Forms of one graph for tools: Graphviz and JSON. Nodes are numbered in topological order; the text form for people
//! belongs to `graph::text`.

use crate::graph::{Graph, NodeId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

/// Nodes, operands by number, and outputs.
pub fn json(graph: &Graph) -> Value {
    let numbers = numbers(graph);
    let node = |id: NodeId| {
        let attributes: BTreeMap<&str, String> = graph.op(id).attributes().into_iter().collect();
        json!({
            "id": numbers[&id],
            "op": graph.op(id).kind().def().name,
            "attributes": attributes,
            "type": graph.ty(id).to_string(),
            "scope": graph.scope(id).as_str(),
            "label": graph.label(id),
            "operands": graph.operands(id).iter().map(|operand| numbers[operand]).collect::<Vec<_>>(),
        })
    };
    let outputs: Vec<Value> = graph
        .outputs()
        .iter()
        .map(|output| json!({"name": &*output.name, "node": numbers[&output.node]}))
        .collect();
    json!({
        "graph": graph.name(),
        "nodes": graph.order().into_iter().map(node).collect::<Vec<_>>(),
        "outputs": outputs,
    })
}

/// A Graphviz digraph with a cluster per scope; edges into delays, which belong to the next step, are dashed.
pub fn dot(graph: &Graph) -> String {
    let numbers = numbers(graph);
    let mut text = format!("digraph \"{}\" {{\n  node [shape=box, fontname=monospace];\n", graph.name());
    let mut clusters: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
    for id in graph.order() {
        clusters.entry(graph.scope(id).as_str()).or_default().push(id);
    }
    for (at, (scope, ids)) in clusters.iter().enumerate() {
        let _infallible = writeln!(text, "  subgraph cluster_{at} {{\n    label=\"{scope}\";");
        for id in ids {
            let name = graph.label(*id).unwrap_or(graph.op(*id).kind().def().name);
            let _infallible = writeln!(text, "    n{} [label=\"{name}\\n{}\"];", numbers[id], graph.ty(*id));
        }
        text.push_str("  }\n");
    }
    for id in graph.order() {
        let style = if graph.op(id).is_delay() { " [style=dashed]" } else { "" };
        for operand in graph.operands(id) {
            let _infallible = writeln!(text, "  n{} -> n{}{style};", numbers[&operand], numbers[&id]);
        }
    }
    for output in graph.outputs() {
        let name = &output.name;
        let _infallible = writeln!(text, "  \"out {name}\" [label=\"{name}\", shape=plain];");
        let _infallible = writeln!(text, "  n{} -> \"out {name}\";", numbers[&output.node]);
    }
    text.push_str("}\n");
    text
}

fn numbers(graph: &Graph) -> HashMap<NodeId, usize> {
    graph.order().into_iter().enumerate().map(|(number, id)| (id, number)).collect()
}
