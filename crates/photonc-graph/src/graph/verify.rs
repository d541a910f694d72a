//! Checking a graph. Owns the proof that passes, exporters and runtimes ask for: a `Verified` borrows a graph in
//! which every invariant held, so it cannot outlive a change. Reports every error, each with its place.

use super::{Graph, NodeId};
use crate::ir::infer;
use crate::ir::op::Op;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Deref;

/// A graph all of whose invariants hold. Invariant: exporters and runtimes take nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'g>(&'g Graph);

impl Deref for Verified<'_> {
    type Target = Graph;
    fn deref(&self) -> &Graph {
        self.0
    }
}

impl<'g> Verified<'g> {
    /// The graph, for as long as it was verified.
    #[must_use]
    pub fn graph(self) -> &'g Graph {
        self.0
    }
}

/// One broken invariant and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The node, if one is to blame.
    pub node: Option<NodeId>,
    /// Scope of the node.
    pub scope: String,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scope.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.scope, self.message)
        }
    }
}

/// Every broken invariant of a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("graph `{graph}` is not valid:{}", list(.violations))]
pub struct VerifyError {
    /// Name of the graph.
    pub graph: String,
    /// At least one.
    pub violations: Vec<Violation>,
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("\n  {violation}")).collect()
}

impl Graph {
    /// Checks every invariant: arity and slots, stored types equal to inferred ones, no cycle without a delay,
    /// no use of erased nodes, unique names of inputs, delays and outputs, one type per weight.
    ///
    /// # Errors
    /// Lists every violation.
    pub fn verify(&self) -> Result<Verified<'_>, VerifyError> {
        let mut violations = Vec::new();
        self.check_nodes(&mut violations);
        self.check_names(&mut violations);
        self.check_cycles(&mut violations);
        if violations.is_empty() {
            Ok(Verified(self))
        } else {
            Err(VerifyError { graph: self.name().to_owned(), violations })
        }
    }

    fn violation(&self, id: NodeId, message: String) -> Violation {
        Violation { node: Some(id), scope: self.scope(id).to_string(), message }
    }

    fn check_nodes(&self, violations: &mut Vec<Violation>) {
        for id in self.nodes() {
            let operands = self.operands(id);
            let name = self.op(id).kind().def().name;
            if let Some(dead) = operands.iter().find(|operand| self.node(**operand).erased) {
                violations.push(
                    self.violation(
                        id,
                        format!("`{name}` reads erased `{}`", self.op(*dead).kind().def().name),
                    ),
                );
                continue;
            }
            let types: Vec<_> = operands.iter().map(|operand| self.ty(*operand).clone()).collect();
            match infer::infer(self.op(id), &types) {
                Ok(ty) if &ty == self.ty(id) => {}
                Ok(ty) => violations
                    .push(self.violation(id, format!("`{name}` is typed {}, but yields {ty}", self.ty(id)))),
                Err(error) => violations.push(self.violation(id, format!("`{name}`: {error}"))),
            }
        }
        for output in self.outputs() {
            if self.node(output.node).erased {
                violations.push(self.violation(output.node, format!("output `{}` is erased", output.name)));
            }
        }
    }

    fn check_names(&self, violations: &mut Vec<Violation>) {
        let mut external: HashSet<&str> = HashSet::new();
        let mut weights: HashMap<&str, NodeId> = HashMap::new();
        for id in self.nodes() {
            match self.op(id) {
                Op::Input { name, .. } | Op::Delay { name, .. } if !external.insert(name) => {
                    violations.push(self.violation(id, format!("two inputs or delays are called `{name}`")));
                }
                Op::Weight { name, ty } => {
                    let first = *weights.entry(name).or_insert(id);
                    if self.ty(first) != ty {
                        let message = format!("weight `{name}` is used as {} and as {ty}", self.ty(first));
                        violations.push(self.violation(id, message));
                    }
                }
                _ => {}
            }
        }
        let mut outputs: HashSet<&str> = HashSet::new();
        for output in self.outputs() {
            if !outputs.insert(&output.name) {
                violations
                    .push(self.violation(output.node, format!("two outputs are called `{}`", output.name)));
            }
        }
        if self.outputs().is_empty() {
            violations.push(Violation { node: None, scope: String::new(), message: "no outputs".to_owned() });
        }
    }

    fn check_cycles(&self, violations: &mut Vec<Violation>) {
        let ordered: HashSet<NodeId> = self.order().into_iter().collect();
        for id in self.nodes() {
            if !ordered.contains(&id) {
                let name = self.op(id).kind().def().name;
                violations.push(self.violation(id, format!("`{name}` depends on itself without a delay")));
            }
        }
    }
}
