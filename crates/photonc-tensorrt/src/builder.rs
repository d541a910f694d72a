//! What building an engine asks of a vendor, so that everything around it runs without one.

use super::message::{Finding, Message};
use super::profile::Profile;
use super::target::{Sm, Vendor, Version};
use photonc_bundle::bundle::BundleError;
use photonc_graph::ir::dim::Dim;
use std::path::Path;
use std::sync::Arc;

/// An input of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name in the ONNX model.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<Dim>,
}

/// What to build.
pub struct Order<'a> {
    /// The ONNX model, with its weights beside it.
    pub onnx: &'a Path,
    /// The GPUs, all in one engine.
    pub sms: &'a [Sm],
    /// Every input that the model has.
    pub inputs: &'a [Port],
    /// Sizes to build for.
    pub profiles: &'a [Profile],
    /// Told how far the build is.
    pub steps: Steps,
}

/// How far the longest part of a build is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Name of the part, in the vendor's words.
    pub phase: String,
    /// Steps done.
    pub done: u64,
    /// Steps in all.
    pub of: u64,
}

/// Takes the steps of a build, from any thread.
pub type Steps = Arc<dyn Fn(Step) + Send + Sync>;

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// What the vendor said.
    pub messages: Vec<Message>,
}

/// How far a build came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading the ONNX model.
    Parse,
    /// Compiling it.
    Build,
}

impl Phase {
    /// The phase as a verb.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Phase::Parse => "read",
            Phase::Build => "build",
        }
    }
}

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The vendor's library failed.
    #[error("{vendor} cannot {verb} it", verb = .phase.verb())]
    Refused {
        /// The vendor.
        vendor: Vendor,
        /// How far it came.
        phase: Phase,
        /// What it said.
        messages: Vec<Message>,
    },
    /// The vendor dropped inputs: the engine would not compute the graph.
    #[error("{vendor} drops its inputs {}: the engine would not compute this graph", .inputs.join(", "))]
    Unconsumed {
        /// The vendor.
        vendor: Vendor,
        /// Names of the inputs.
        inputs: Vec<String>,
    },
    /// The profile does not fit the graph.
    #[error("input `{input}`: the profile ({profile}) does not say how large its axes are")]
    Profile {
        /// The input.
        input: String,
        /// The profile.
        profile: String,
    },
    /// The engine could not be written.
    #[error(transparent)]
    Write(#[from] BundleError),
}

impl BuildError {
    /// What makes two failures the same one: how far the build came, and what was said.
    #[must_use]
    pub fn kind(&self, findings: &[Finding]) -> String {
        match self {
            BuildError::Refused { phase, .. } => {
                let gists: Vec<String> = findings.iter().map(Finding::gist).collect();
                format!("{phase:?} {}", gists.first().map_or("", String::as_str))
            }
            BuildError::Unconsumed { .. } => "inputs dropped".to_owned(),
            BuildError::Profile { .. } => "profile".to_owned(),
            BuildError::Write(_) => "write".to_owned(),
        }
    }
}

/// Takes the bytes of an engine, piece by piece.
pub type Sink<'s> = dyn FnMut(&[u8]) -> Result<(), BundleError> + 's;

/// A vendor's library that builds engines.
pub trait EngineBuilder {
    /// The vendor.
    fn vendor(&self) -> Vendor;

    /// Version of the library.
    fn version(&self) -> Version;

    /// Builds an engine and hands its bytes to `sink`, from any thread.
    ///
    /// # Errors
    /// The model cannot be read or compiled, or an input was dropped: what `sink` has taken is no engine.
    fn build(&mut self, order: &Order<'_>, sink: &mut Sink<'_>) -> Result<Built, BuildError>;
}
