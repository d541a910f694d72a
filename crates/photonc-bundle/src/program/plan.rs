//! Which graphs carry out a protocol. Owns the parts that graphs play in it.

use super::certificate::{Certificate, Declined};
use serde::{Deserialize, Serialize};

/// Which graphs carry out a protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Plan {
    /// The loops of the step program one after the other: those that no sample reaches run ahead; the expansion follows for
    /// many meta-contexts at once or, where samples are on cycles of its own, one meta-context after the other.
    Distributed {
        /// One coarse step.
        coarse: String,
        /// What no sample reaches of an expansion that has a loop: for many meta-contexts at once, before it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lead: Option<String>,
        /// Expansion with in-graph sampling.
        expand: String,
        /// The same, with logits.
        logits: String,
        /// Expansion up to the level-1 windows, for samplers outside the graph; absent where it has a loop.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prepare: Option<String>,
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

impl Plan {
    /// Whether the expansion has a loop of its own, so that it runs one meta-context after the other.
    #[must_use]
    pub fn expands_in_order(&self) -> bool {
        match self {
            Plan::Distributed { certificate, .. } => !certificate.loops.is_empty(),
            Plan::Undistributed { .. } => false,
        }
    }
}
