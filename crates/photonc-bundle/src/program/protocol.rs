//! How the top state of a model advances. Owns the names of protocols and of the graphs that prefill for them.

use super::signature::ENCODE;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How the top state advances (PHOTON Defs. A.2 and A.3): what stands for a unit that is finished. A row of this table
/// each; what a summary is as a graph is told where step programs are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// The reconstruction; no sampled token is read.
    Recgen,
    /// The encoder's state: the sampled tokens are re-encoded bottom-up.
    Hiergen,
    /// The same, of encoders below the top that forget what is before a tile of units.
    Windowed,
    /// The chunk of what it is made of, without the encoder.
    Chunkgen,
}

impl Protocol {
    /// Every protocol, in the order in which bundles list them.
    pub const ALL: [Protocol; 4] =
        [Protocol::Recgen, Protocol::Hiergen, Protocol::Windowed, Protocol::Chunkgen];

    /// Name in options and manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Recgen => "recgen",
            Protocol::Hiergen => "hiergen",
            Protocol::Windowed => "windowed",
            Protocol::Chunkgen => "chunkgen",
        }
    }

    /// The protocol of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Protocol::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// Whether finished units are summarised by what was reconstructed of them, so that the next ones need no sampled token:
    /// the others are never split.
    #[must_use]
    pub fn may_run_ahead(self) -> bool {
        match self {
            Protocol::Recgen => true,
            Protocol::Hiergen | Protocol::Windowed | Protocol::Chunkgen => false,
        }
    }

    /// Name of the graph that prefills for it: one for all but those whose caches the prompt fills otherwise.
    #[must_use]
    pub fn encode(self) -> &'static str {
        match self {
            Protocol::Windowed => "encode_windowed",
            Protocol::Recgen | Protocol::Hiergen | Protocol::Chunkgen => ENCODE,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
