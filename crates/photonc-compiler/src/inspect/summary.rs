//! A graph as a folded table: a line per scope with its sums, the text of a review.

use super::sheet::{Fold, Sheet};
use super::units::{si, table};
use photonc_graph::ir::dim::Symbol;

const HEADER: [&str; 8] =
    ["scope", "nodes", "parameters", "FLOPs", "weights B", "KV cache B", "activations B", "FLOPs/B"];

/// The table of a graph, scopes folded below `depth` parts of their path.
#[must_use]
pub fn summary(sheet: &Sheet, depth: usize) -> String {
    let mut lines = vec![HEADER.map(str::to_owned).to_vec()];
    lines.extend(sheet.root.walk(depth).into_iter().map(|(at, fold)| line(at, fold, &sheet.graph)));
    let bound = Symbol::ALL
        .iter()
        .filter_map(|symbol| sheet.bindings.get(*symbol).map(|value| format!("{} = {value}", symbol.name())));
    format!("{} with {}\n{}", sheet.graph, bound.collect::<Vec<_>>().join(", "), table(&lines))
}

fn line(at: usize, fold: &Fold, graph: &str) -> Vec<String> {
    let name = if at == 0 { graph } else { &fold.name };
    let count = |value: u64| if value == 0 { "-".to_owned() } else { si(value as f64) };
    let work = &fold.work;
    vec![
        format!("{}{name}", "  ".repeat(at)),
        fold.nodes.to_string(),
        count(fold.parameters),
        count(work.flops()),
        count(work.weight_bytes),
        count(work.cache_bytes),
        count(work.activation_bytes),
        work.intensity().map_or_else(|| "-".to_owned(), si),
    ]
}
