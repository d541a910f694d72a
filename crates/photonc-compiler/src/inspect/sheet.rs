//! A graph as rows and folds: what every form of inspection shows. Owns the tree of scopes and its sums; a weight counts
//! among the parameters of the scope it belongs to, once.

use super::subject::Setting;
use super::work::{Work, work};
use photonc_graph::graph::text::canonical_order;
use photonc_graph::graph::{Graph, NodeId};
use photonc_graph::ir::dim::{Bindings, Symbol};
use photonc_graph::ir::op::Op;
use std::collections::{HashMap, HashSet};

/// A graph under one setting.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// Name of the graph.
    pub graph: String,
    /// Sizes of one run, of the symbols that occur.
    pub bindings: Bindings,
    /// Nodes in the order of the graph's text, operands first; a row's place is its number.
    pub rows: Vec<Row>,
    /// The scope of everything.
    pub root: Fold,
    /// Results by name, with the number of their node.
    pub outputs: Vec<(String, usize)>,
}

/// A node.
#[derive(Clone, Debug)]
pub struct Row {
    /// Where in the model.
    pub scope: String,
    /// Name of the operation.
    pub op: &'static str,
    /// Attributes in table order, without the type of leaves, which is `ty`.
    pub attributes: Vec<(&'static str, String)>,
    /// Numbers of the operands in slot order.
    pub operands: Vec<usize>,
    /// Element type and shape.
    pub ty: String,
    /// Name that other graphs or the runtime use.
    pub label: Option<String>,
    /// Elements of a stored weight where it is met first.
    pub parameters: u64,
    /// What it computes and moves.
    pub work: Work,
}

/// A scope with everything inside it.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    /// Last part of the path; empty for the root.
    pub name: String,
    /// The whole path.
    pub scope: String,
    /// Numbers of the nodes directly in this scope.
    pub own: Vec<usize>,
    /// Scopes inside, in the order the data flow meets them.
    pub children: Vec<Fold>,
    /// Number of the first node in this scope and below that is neither given nor stored.
    first_computed: Option<usize>,
    /// Nodes in this scope and below.
    pub nodes: usize,
    /// Elements of the weights of this scope and below, each once.
    pub parameters: u64,
    /// Sum over this scope and below.
    pub work: Work,
}

impl Sheet {
    /// Counts a graph.
    #[must_use]
    pub fn new(graph: &Graph, bindings: Bindings, setting: &Setting) -> Self {
        let order = canonical_order(graph);
        let bindings = occurring(graph, &bindings);
        let numbers: HashMap<NodeId, usize> =
            order.iter().enumerate().map(|(number, id)| (*id, number)).collect();
        let mut met: HashSet<String> = HashSet::new();
        let mut rows = Vec::with_capacity(order.len());
        let mut root = Fold::default();
        for id in &order {
            let op = graph.op(*id);
            let parameters = match op {
                Op::Weight { name, ty } | Op::QuantizedWeight { name, ty, .. }
                    if met.insert(name.to_string()) =>
                {
                    ty.shape.elements().as_const().unwrap_or(0) as u64
                }
                _ => 0,
            };
            let row = Row {
                scope: graph.scope(*id).to_string(),
                op: op.kind().def().name,
                attributes: op.attributes().into_iter().filter(|(name, _)| *name != "ty").collect(),
                operands: graph.operands(*id).iter().filter_map(|id| numbers.get(id).copied()).collect(),
                ty: graph.ty(*id).to_string(),
                label: graph.label(*id).map(str::to_owned),
                parameters,
                work: work(graph, *id, &bindings, setting.precision),
            };
            root.insert(&row, rows.len(), op.is_leaf() || op.is_delay());
            rows.push(row);
        }
        root.sort();
        let outputs = graph.outputs().iter();
        let outputs =
            outputs.filter_map(|output| Some((output.name.to_string(), *numbers.get(&output.node)?)));
        Sheet { graph: graph.name().to_owned(), bindings, rows, root, outputs: outputs.collect() }
    }

    /// The scope below which a node is drawn when only `depth` parts of its path are.
    #[must_use]
    pub fn cut(scope: &str, depth: usize) -> &str {
        match scope.match_indices('.').nth(depth.saturating_sub(1)) {
            Some((at, _)) if depth > 0 => &scope[..at],
            None if depth > 0 => scope,
            _ => "",
        }
    }
}

/// Bindings of the symbols that a graph's types contain.
fn occurring(graph: &Graph, bindings: &Bindings) -> Bindings {
    let nodes = graph.nodes();
    let mut found = Bindings::default();
    for symbol in Symbol::ALL {
        if let Some(value) = bindings.get(symbol)
            && nodes.iter().any(|id| graph.ty(*id).shape.contains(symbol))
        {
            found.bind(symbol, value);
        }
    }
    found
}

impl Fold {
    fn insert(&mut self, row: &Row, number: usize, given: bool) {
        let mut fold = self;
        fold.count(row);
        let mut end = 0;
        for part in row.scope.split('.').filter(|part| !part.is_empty()) {
            end += part.len();
            let scope = &row.scope[..end];
            end += 1;
            let at = fold.children.iter().position(|child| child.name == part).unwrap_or_else(|| {
                fold.children.push(Fold {
                    name: part.to_owned(),
                    scope: scope.to_owned(),
                    ..Fold::default()
                });
                fold.children.len() - 1
            });
            fold = &mut fold.children[at];
            fold.count(row);
            if !given {
                fold.first_computed.get_or_insert(number);
            }
        }
        fold.own.push(number);
    }

    /// Puts scopes where their arithmetic begins: inputs, caches and weights stand before everything.
    fn sort(&mut self) {
        self.children.sort_by_key(|child| child.first_computed.unwrap_or(0));
        self.children.iter_mut().for_each(Fold::sort);
    }

    fn count(&mut self, row: &Row) {
        self.nodes += 1;
        self.parameters = self.parameters.saturating_add(row.parameters);
        self.work = self.work + row.work;
    }

    /// This fold and those inside it down to `depth` parts, outer first, each with its depth.
    #[must_use]
    pub fn walk(&self, depth: usize) -> Vec<(usize, &Fold)> {
        let mut found = Vec::new();
        let mut stack = vec![(0, self)];
        while let Some((at, fold)) = stack.pop() {
            found.push((at, fold));
            if at < depth {
                stack.extend(fold.children.iter().rev().map(|child| (at + 1, child)));
            }
        }
        found
    }
}
