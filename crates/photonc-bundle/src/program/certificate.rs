//! What distribution proved, or why it declined, as data for manifests and people.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The proof that a step program may be distributed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The state whose recurrence runs ahead.
    pub state: String,
    /// Nodes of the coarse graph.
    pub coarse_nodes: usize,
    /// Nodes of the expansion.
    pub expand_nodes: usize,
    /// `sample` nodes, all of them in the expansion.
    pub samples: usize,
    /// Nodes of the coarse graph that a `sample` reaches: 0, or there is no certificate.
    pub tainted_coarse_nodes: usize,
    /// The recurrences found, all untainted.
    pub recurrences: Vec<Recurrence>,
    /// Values handed from the coarse graph to the expansion.
    pub cut: Vec<CutValue>,
    /// Delays of the expansion, which became shifts along the meta axis.
    pub shifts: Vec<String>,
    /// Recurrences of the expansion, which samples reach: what is left runs one meta-context after the other, and nothing
    /// above waits for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loops: Vec<Recurrence>,
}

/// Nodes on a cycle through states, together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recurrence {
    /// Delays on the cycle.
    pub delays: Vec<String>,
    /// Number of nodes.
    pub nodes: usize,
}

/// A value on the cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutValue {
    /// Output of the coarse graph and input of the expansion.
    pub name: String,
    /// Type in one step.
    #[serde(rename = "type")]
    pub ty: String,
    /// Where in the model it is made.
    pub scope: String,
}

/// A step of a path through the step program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathNode {
    /// Creation number in the step program.
    pub serial: u64,
    /// Name of the operation.
    pub op: String,
    /// Where in the model.
    pub scope: String,
}

/// Why a step program was not distributed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// The state that was asked about.
    pub state: String,
    /// What stands in the way.
    pub reason: String,
    /// The shortest path from a `sample` to the state, if that is the reason; else empty.
    pub path: Vec<PathNode>,
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not distributed around `{}`: {}", self.state, self.reason)?;
        for node in &self.path {
            write!(f, "\n  {} ({})", node.scope, node.op)?;
        }
        Ok(())
    }
}

impl Declined {
    /// A refusal without a path.
    #[must_use]
    pub fn without_path(state: &str, reason: String) -> Self {
        Declined { state: state.to_owned(), reason, path: Vec::new() }
    }
}
