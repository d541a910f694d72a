//! How the top state of a model advances. Owns the names of protocols.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How the top state advances (PHOTON Defs. A.2 and A.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// From the reconstruction; no sampled token is read.
    Recgen,
    /// From the sampled tokens, re-encoded bottom-up.
    Hiergen,
}

impl Protocol {
    /// Name in options and manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Recgen => "recgen",
            Protocol::Hiergen => "hiergen",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
