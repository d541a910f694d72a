//! Which graphs carry out a protocol. Owns the parts that graphs play in it.

use super::certificate::{Certificate, Declined};
use serde::{Deserialize, Serialize};

/// Which graphs carry out a protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Plan {
    /// The coarse graph runs ahead; the expansion follows for many meta-contexts at once.
    Distributed {
        /// One coarse step.
        coarse: String,
        /// Expansion with in-graph sampling.
        expand: String,
        /// The same, with logits.
        logits: String,
        /// Expansion up to the level-1 windows, for samplers outside the graph.
        prepare: String,
        /// Why this is the step program.
        certificate: Certificate,
    },
    /// One whole meta-context at a time.
    Undistributed {
        /// State to ids, with in-graph sampling.
        decode: String,
        /// The same, with logits.
        logits: String,
        /// Down to the level-1 windows, for samplers outside the graph; absent where the next state reads a sample
        /// by another way than the ids.
        prepare: Option<String>,
        /// Ids to the next state, if that reads nothing else of the step; otherwise `decode` returns the state.
        reencode: Option<String>,
        /// Why it was not distributed.
        declined: Declined,
    },
}
