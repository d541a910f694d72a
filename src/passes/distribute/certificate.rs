//! What distribution proved, or why it declined, as data for manifests and people.

use super::{Dependence, Split};
use crate::graph::{Graph, NodeId};
use crate::ir::op::Op;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The proof that a step program may be distributed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The state whose recurrence runs ahead.
    pub state: String,
    /// Nodes of the step program in the coarse part.
    pub coarse_nodes: usize,
    /// Nodes of the step program in the expansion part.
    pub expand_nodes: usize,
    /// `sample` nodes, all of them in the expansion part.
    pub samples: usize,
    /// Nodes of the coarse part that a `sample` reaches: 0, or there is no certificate.
    pub tainted_coarse_nodes: usize,
    /// The recurrences found, all untainted.
    pub recurrences: Vec<Recurrence>,
    /// Values handed from the coarse graph to the expansion.
    pub cut: Vec<CutValue>,
    /// Delays of the expansion, which became shifts along the meta axis.
    pub shifts: Vec<String>,
}

/// A strongly connected component of the step program that contains a cycle.
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

impl Declined {
    pub(super) fn without_path(state: &str, reason: String) -> Self {
        Declined { state: state.to_owned(), reason, path: Vec::new() }
    }

    pub(super) fn with_path(graph: &Graph, state: &str, target: NodeId, path: Vec<NodeId>) -> Self {
        let reached = delay_name(graph, target).unwrap_or_default();
        let path = path
            .into_iter()
            .map(|id| PathNode {
                serial: graph.serial(id),
                op: graph.op(id).kind().def().name.to_owned(),
                scope: graph.scope(id).to_string(),
            })
            .collect();
        Declined { state: state.to_owned(), reason: format!("a sample reaches the state `{reached}`"), path }
    }
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

impl Certificate {
    pub(super) fn of(split: &Split<'_>, dependence: &Dependence, state: &str) -> Self {
        let graph = split.graph;
        let names = |ids: &[NodeId]| -> Vec<String> {
            ids.iter().filter_map(|id| delay_name(graph, *id)).map(str::to_owned).collect()
        };
        Certificate {
            state: state.to_owned(),
            coarse_nodes: split.coarse.len(),
            expand_nodes: split.rest.len(),
            samples: split.rest.iter().filter(|id| matches!(graph.op(**id), Op::Sample { .. })).count(),
            tainted_coarse_nodes: split.coarse.intersection(&dependence.tainted).count(),
            recurrences: dependence
                .recurrences
                .iter()
                .map(|component| Recurrence { delays: names(component), nodes: component.len() })
                .collect(),
            cut: split
                .cut
                .iter()
                .map(|(id, name)| CutValue {
                    name: name.clone(),
                    ty: graph.ty(*id).to_string(),
                    scope: graph.scope(*id).to_string(),
                })
                .collect(),
            shifts: names(&split.rest),
        }
    }
}

fn delay_name(graph: &Graph, id: NodeId) -> Option<&str> {
    match graph.op(id) {
        Op::Delay { name, .. } => Some(name),
        _ => None,
    }
}
