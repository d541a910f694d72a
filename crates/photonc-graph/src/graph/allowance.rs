//! How many rewrites of a graph may still start. Owns the count that bisection stops by: a pass asks before each rewrite,
//! so that it can be ended between any two of them. Refuses to undo: what was allowed counts.

use super::Graph;

/// Rewrites since counting began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    started: usize,
    limit: Option<usize>,
}

impl Graph {
    /// Counts rewrites from 0 and allows `limit` of them, or any number.
    pub fn allow_rewrites(&mut self, limit: Option<usize>) {
        self.allowance = Allowance { started: 0, limit };
    }

    /// Whether one more rewrite may start; if so it counts as made. After a `false` the graph must be left as it is.
    #[must_use]
    pub fn may_rewrite(&mut self) -> bool {
        let Allowance { started, limit } = &mut self.allowance;
        if limit.is_some_and(|limit| *started >= limit) {
            return false;
        }
        *started += 1;
        true
    }

    /// Rewrites started since counting began.
    #[must_use]
    pub fn rewrites_started(&self) -> usize {
        self.allowance.started
    }

    /// Takes the nodes and outputs of `other`, a copy made for a rewrite that was allowed here; the count goes on.
    pub fn become_copy(&mut self, other: Graph) {
        *self = Graph { allowance: self.allowance, ..other };
    }
}
