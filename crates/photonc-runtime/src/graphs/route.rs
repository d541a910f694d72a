//! Where the tokens of a request are drawn: by the graphs' sampler, or on the host.

use crate::draws::Draws;
use crate::error::RuntimeError;
use crate::plan::{Program, WINDOW};
use crate::sampler::MAX_GRAPH_CANDIDATES;
use photonc_compiler::passes::compile::Plan;

/// Where tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// By the graphs' sampler.
    Graph,
    /// On the host from logits that no token feeds: one run.
    Logits,
    /// On the host, position by position, each token fed back.
    Window,
}

impl Route {
    /// How tokens can be drawn so by the graphs of a plan: a function of the request alone.
    ///
    /// # Errors
    /// They cannot.
    pub fn choose(program: &Program, plan: &Plan, draws: &Draws) -> Result<Self, RuntimeError> {
        if !draws.change_logits() && draws.sampling.fits_graph(program.vocab_size) {
            return Ok(Route::Graph);
        }
        // A window that reads no ids computes logits that no token changes.
        if !program.signature(WINDOW)?.inputs.contains_key("ids") {
            return Ok(Route::Logits);
        }
        let prepared = match plan {
            Plan::Distributed { prepare, .. } | Plan::Undistributed { prepare, .. } => prepare.is_some(),
        };
        match prepared {
            true => Ok(Route::Window),
            false => {
                let max_top_k = MAX_GRAPH_CANDIDATES.min(program.vocab_size);
                Err(RuntimeError::GraphSamplerOnly { max_top_k })
            }
        }
    }
}
