//! What stands for a meta-context that a prompt begins and does not fill. Owns the two rules.

use serde::{Deserialize, Serialize};

/// How generation goes on from a meta-context of which the prompt gave the first tokens, once the others are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Remainder {
    /// It is encoded from its tokens, whatever the protocol (PHOTON.md section 5).
    #[default]
    Encoded,
    /// It is summarised as the protocol says, like any other (SCALA.md section 6).
    Summarised,
}

impl Remainder {
    /// Whether it is the rule of manifests that say none.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Remainder::default()
    }
}
