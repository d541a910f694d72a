//! Errors of generation and scoring.

use super::backend::BackendError;
use super::prompt::PromptError;
use super::sampler::SamplingError;
use photonc_bundle::bundle::BundleError;

/// Why nothing, or nothing more, was generated.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The device or a graph failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A prompt that no generation can start from.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Sampling parameters without a meaning.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A request that a scheduler can never run.
    #[error(transparent)]
    Refused(#[from] super::schedule::Refusal),
    /// The request asks for nothing.
    #[error("{what} is 0, expected at least 1")]
    Empty {
        /// What is zero: prompts, samples, ...
        what: &'static str,
    },
    /// A text of fewer tokens than a measurement takes.
    #[error(
        "the text has {found} tokens, expected at least {expected}: a prompt and what follows it; use a longer text or shorter prompts"
    )]
    ShortText {
        /// Tokens found.
        found: usize,
        /// Tokens expected.
        expected: usize,
    },
    /// The bundle has no such protocol.
    #[error(
        "protocol `{protocol}` is not in the bundle, which has {found}; export the model with `--protocol {protocol}`"
    )]
    NoProtocol {
        /// The protocol asked for.
        protocol: String,
        /// Those there.
        found: String,
    },
    /// The model's samples feed its state inside the graph, so that no other sampler can stand in.
    #[error(
        "this protocol of the model draws tokens inside the graph only; use greedy, or top-k from 1 to {max_top_k} without min-p, bias and penalties"
    )]
    GraphSamplerOnly {
        /// Largest top-k.
        max_top_k: usize,
    },
    /// Logits that are no distribution.
    #[error(
        "sequence {row}: the logits of token {token} hold NaN or infinity; check the weights with `photonc verify`"
    )]
    NotADistribution {
        /// Place among the sequences.
        row: usize,
        /// Place among the new tokens.
        token: usize,
    },
    /// A graph's signature is not one the runtime knows.
    #[error("graph `{graph}`: {message}; the bundle was made by another version, export the model again")]
    Signature {
        /// The graph.
        graph: String,
        /// What was found and expected.
        message: String,
    },
    /// A place outside a stored trajectory.
    #[error("meta-context {meta} is not in the stored trajectory, which has {meta_contexts}")]
    NotInTrajectory {
        /// The meta-context, from 0 after the encoded part of the prompt.
        meta: usize,
        /// How many are stored.
        meta_contexts: usize,
    },
    /// The replica that ran a request failed.
    #[error("the replica that ran the request failed: {message}")]
    Lost {
        /// Why.
        message: String,
    },
}

impl RuntimeError {
    pub(super) fn signature(graph: &str, message: impl Into<String>) -> Self {
        RuntimeError::Signature { graph: graph.to_owned(), message: message.into() }
    }
}
