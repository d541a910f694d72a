//! Printing. Owns the canonical order and numbering; prints graphs that do not verify too, for reports.

use crate::graph::{Graph, NodeId, Scope};
use crate::ir::op::Op;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

/// The canonical text of a graph.
#[must_use]
pub fn print(graph: &Graph) -> String {
    let order = canonical_order(graph);
    let mut numbers: HashMap<NodeId, usize> = HashMap::with_capacity(order.len());
    let mut used: HashMap<&Scope, usize> = HashMap::new();
    for id in &order {
        let next = used.entry(graph.scope(*id)).or_insert(0);
        numbers.insert(*id, *next);
        *next += 1;
    }
    let mut printer = Printer { graph, numbers, scope: Scope::new(""), text: String::new() };
    printer.line(format_args!("graph {} {{", graph.name()));
    for id in order {
        printer.enter(graph.scope(id));
        printer.node(id);
    }
    if !graph.outputs().is_empty() {
        printer.text.push('\n');
    }
    for output in graph.outputs() {
        let value = printer.reference(output.node);
        printer.line(format_args!("  output \"{}\" = {value}", output.name));
    }
    printer.line(format_args!("}}"));
    printer.text
}

struct Printer<'g> {
    graph: &'g Graph,
    /// Number of a value within its scope.
    numbers: HashMap<NodeId, usize>,
    scope: Scope,
    text: String,
}

impl Printer<'_> {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn enter(&mut self, scope: &Scope) {
        if &self.scope != scope {
            self.line(format_args!("\n@{scope}"));
            self.scope = scope.clone();
        }
    }

    fn node(&mut self, id: NodeId) {
        let op = self.graph.op(id);
        let attributes: Vec<String> =
            op.attributes().into_iter().map(|(name, text)| format!("{name}={text}")).collect();
        let mut line = format!("  {} = {}", self.reference(id), op.kind().def().name);
        if !attributes.is_empty() {
            line.push_str(&format!("{{{}}}", attributes.join(", ")));
        }
        let operands: Vec<String> =
            self.graph.operands(id).into_iter().map(|operand| self.reference(operand)).collect();
        if !operands.is_empty() {
            let next = if op.is_delay() { "next " } else { "" };
            line.push_str(&format!(" {next}{}", operands.join(", ")));
        }
        if !says_its_type(op) {
            line.push_str(&format!(" : {}", self.graph.ty(id)));
        }
        if let Some(label) = self.graph.label(id) {
            line.push_str(&format!(" #{label}"));
        }
        self.line(format_args!("{line}"));
    }

    fn reference(&self, id: NodeId) -> String {
        let scope = self.graph.scope(id);
        match self.numbers.get(&id) {
            Some(number) if *scope == self.scope => format!("%{number}"),
            Some(number) => format!("%{scope}:{number}"),
            // Only a graph that does not verify reads an erased node.
            None => "%erased".to_owned(),
        }
    }
}

/// Whether an operation's attributes hold the type of its result.
fn says_its_type(op: &Op) -> bool {
    op.is_leaf() || op.is_delay()
}

/// The order of the text: see the module header. Every live node once; the same for a graph and for what its text parses
/// to.
#[must_use]
pub fn canonical_order(graph: &Graph) -> Vec<NodeId> {
    let (inputs, delays) = (graph.inputs(), graph.delays());
    let next: Vec<NodeId> = delays.iter().flat_map(|delay| graph.operands(*delay)).collect();
    let results = graph.outputs().iter().map(|output| output.node);
    let roots = inputs.into_iter().chain(delays).chain(results).chain(next).chain(graph.nodes());
    let live: HashSet<NodeId> = graph.nodes().into_iter().collect();
    let mut seen: HashSet<NodeId> = HashSet::with_capacity(live.len());
    let mut order = Vec::with_capacity(live.len());
    for root in roots {
        // Operands wait on the stack in front of their user; `true` means they are done.
        let mut stack = vec![(root, false)];
        while let Some((id, done)) = stack.pop() {
            if done {
                order.push(id);
            } else if live.contains(&id) && seen.insert(id) {
                stack.push((id, true));
                if !graph.op(id).is_delay() {
                    stack.extend(graph.operands(id).into_iter().rev().map(|operand| (operand, false)));
                }
            }
        }
    }
    order
}
