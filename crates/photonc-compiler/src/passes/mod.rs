//! Rewrites of graphs. Owns the pass interface; each pass is one file that says what it must never do. Which optional
//! pass runs when is a table in `opt_level`; distribution of the step program is in `distribute`.

pub mod choose_protocol;
pub mod close_counters;
pub mod compile;
pub mod distribute;
pub mod eliminate_common_subexpressions;
pub mod eliminate_dead_code;
pub mod flatten_rows;
pub mod fold_constants;
pub mod fuse_residuals;
pub mod lower_caches;
pub mod lower_precision;
pub mod merge_gates;
pub mod merge_projections;
pub mod opt_level;
pub mod pad_heads;
pub mod pipeline;
pub mod protocols;
pub mod quantize_weights;
pub mod reduce;
pub mod simplify_casts;
pub mod simplify_shapes;
pub mod simplify_unit_transposes;
pub mod sink_reshapes;
pub mod skip_unread_positions;
pub mod straighten;

use photonc_graph::graph::{BuildError, Graph, NodeId};
use photonc_graph::ir::op::Op;

/// What a graph must already be before a pass may run on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Any verified graph.
    Any,
    /// A step program whose protocol is chosen: no `protocol_switch`.
    Chosen,
    /// No delays, no `protocol_switch`, no `cache_append`: what exporters and runtimes take.
    Straight,
}

impl Form {
    /// The first node that keeps `graph` from having this form, with the reason.
    #[must_use]
    pub fn broken_by(self, graph: &Graph) -> Option<(NodeId, &'static str)> {
        let bad = |op: &Op| match (self, op) {
            (Form::Chosen | Form::Straight, Op::ProtocolSwitch) => Some("the protocol is not chosen yet"),
            (Form::Straight, Op::Delay { .. }) => Some("delays are not lowered yet"),
            (Form::Straight, Op::CacheAppend) => Some("caches are not lowered yet"),
            _ => None,
        };
        graph.nodes().into_iter().find_map(|id| bad(graph.op(id)).map(|reason| (id, reason)))
    }
}

/// A place where a pass looked and left things as they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// Scope and operation of the place.
    pub at: String,
    /// Why.
    pub reason: String,
}

/// What a pass did. No rewrites promises an untouched graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrites {
    /// Number of places rewritten.
    pub count: usize,
    /// Places considered and declined.
    pub declined: Vec<Declined>,
}

impl Rewrites {
    /// That many rewrites, nothing declined.
    #[must_use]
    pub fn of(count: usize) -> Self {
        Rewrites { count, declined: Vec::new() }
    }

    /// Records a declined place.
    pub fn decline(&mut self, graph: &Graph, node: NodeId, reason: impl Into<String>) {
        let at = format!("{} ({})", graph.scope(node), graph.op(node).kind().def().name);
        self.declined.push(Declined { at, reason: reason.into() });
    }
}

/// Why a pass could not finish.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// A rewrite made a node that does not type: a bug of the pass.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The graph cannot be what the pass is asked to make of it.
    #[error("{at}: {reason}")]
    Impossible {
        /// Scope of the place.
        at: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// A rewrite of graphs. Its name, its file and its struct agree: `fold-constants`, `fold_constants.rs`,
/// `FoldConstants`.
pub trait Pass {
    /// Name in options and reports: `verb-object`.
    fn name(&self) -> &'static str;
    /// What the graph must already be.
    fn requires(&self) -> Form;
    /// Rewrites the graph. Asks [`Graph::may_rewrite`] before each rewrite, once per rewrite it counts, and stops where
    /// that is refused: the graph must be valid, and compute the same, after any number of them.
    ///
    /// # Errors
    /// The rewrite is impossible, or the pass has a bug.
    fn run(&self, graph: &mut Graph) -> Result<Rewrites, PassError>;
}
