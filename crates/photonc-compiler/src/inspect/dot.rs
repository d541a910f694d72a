//! A graph for Graphviz. Owns the folding: whatever lies deeper than a depth is one box, so that a drawing of thousands of
//! nodes has a few dozen; deep enough, every node is drawn.

use super::sheet::{Fold, Row, Sheet};
use super::units::si;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Draws a graph, scopes folded below `depth` parts of their path; `None` draws every node. Constants and weights are part
/// of a fold and left out where nothing is folded around them, except those that are results.
#[must_use]
pub fn dot(sheet: &Sheet, depth: Option<usize>) -> String {
    let mut text = format!(
        "digraph \"{}\" {{\n  rankdir=TB; node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=Helvetica, \
         fontsize=11];\n",
        sheet.graph
    );
    let mut drawing = Drawing { sheet, depth, boxes: BTreeMap::new() };
    drawing.fold(&sheet.root, 0, &mut text);
    drawing.edges(&mut text);
    text.push_str("}\n");
    text
}

struct Drawing<'s> {
    sheet: &'s Sheet,
    depth: Option<usize>,
    /// The box of each row that is drawn.
    boxes: BTreeMap<usize, String>,
}

impl Drawing<'_> {
    fn fold(&mut self, fold: &Fold, at: usize, text: &mut String) {
        let pad = "  ".repeat(at + 1);
        if at > 0 && self.depth.is_some_and(|depth| at >= depth) {
            let id = fold.scope.clone();
            let size = match fold.parameters {
                0 => String::new(),
                count => format!(", {} parameters", si(count as f64)),
            };
            let label =
                format!("{}\\n{} nodes{size}\\n{}FLOP", fold.name, fold.nodes, spaced(fold.work.flops()));
            let _infallible =
                writeln!(text, "{pad}\"{id}\" [label=\"{label}\", fillcolor=\"#e8eef7\", shape=folder];");
            self.claim(fold, &id);
            return;
        }
        if at > 0 {
            let _infallible = writeln!(
                text,
                "{pad}subgraph \"cluster_{}\" {{ label=\"{}\"; style=rounded; color=\"#8899aa\";",
                fold.scope, fold.name
            );
        }
        for number in &fold.own {
            let row = &self.sheet.rows[*number];
            if !is_drawn(row) {
                continue;
            }
            let id = format!("n{number}");
            let name = row.called().map(|name| format!("{name}\\n"));
            let label = format!("{}{}\\n{}", name.unwrap_or_default(), row.op, row.ty);
            let _infallible = writeln!(text, "{pad}\"{id}\" [label=\"{label}\"];");
            self.boxes.insert(*number, id);
        }
        for child in &fold.children {
            self.fold(child, at + 1, text);
        }
        if at > 0 {
            let _infallible = writeln!(text, "{pad}}}");
        }
    }

    /// Puts everything inside a fold into its box.
    fn claim(&mut self, fold: &Fold, id: &str) {
        for (_, inside) in fold.walk(usize::MAX) {
            self.boxes.extend(inside.own.iter().map(|number| (*number, id.to_owned())));
        }
    }

    fn edges(&self, text: &mut String) {
        let mut drawn: BTreeSet<(&str, &str, bool)> = BTreeSet::new();
        for (number, row) in self.sheet.rows.iter().enumerate() {
            for operand in row.operands.iter().filter(|operand| is_drawn(&self.sheet.rows[**operand])) {
                if let (Some(from), Some(to)) = (self.boxes.get(operand), self.boxes.get(&number))
                    && (from != to)
                {
                    // The edge into a delay belongs to the next step.
                    drawn.insert((from, to, row.op == "delay"));
                }
            }
        }
        for (from, to, next_step) in drawn {
            let style = if next_step { " [style=dashed]" } else { "" };
            let _infallible = writeln!(text, "  \"{from}\" -> \"{to}\"{style};");
        }
        for (name, number) in &self.sheet.outputs {
            let Some(from) = self.boxes.get(number) else { continue };
            let _infallible = writeln!(
                text,
                "  \"output {name}\" [label=\"{name}\", shape=plain];\n  \"{from}\" -> \"output {name}\";"
            );
        }
    }
}

/// Weights and constants would hide the data flow.
fn is_drawn(row: &Row) -> bool {
    !matches!(row.op, "weight" | "const")
}

fn spaced(flops: u64) -> String {
    let text = si(flops as f64);
    if text.contains(' ') { text } else { format!("{text} ") }
}
