//! A request as a scheduler takes it, what it refuses and what it gives back. Owns the rule of what can ever fit.

use crate::runtime::decoder::DecoderSetup;
use crate::runtime::error::RuntimeError;
use crate::runtime::plan::Program;
use crate::runtime::prompt::{Prompt, PromptError};
use crate::runtime::request::{Burst, Cancel, Sequence, Watch};
use crate::runtime::sampler::{Sampling, SamplingError};
use std::sync::Arc;

/// One prompt and what is wanted of it: as many samples as a row of the decoder has.
pub struct Job<'j> {
    /// Token ids, oldest first.
    pub prompt: Vec<i64>,
    /// New tokens per sequence, at most.
    pub max_new_tokens: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Number of the first sample: sample `s` draws with the key `(seed, first_sample + s)`.
    pub first_sample: u64,
    /// Token ids that end a sequence on the caller's behalf.
    pub stop: Vec<i64>,
    /// Token ids that end a sequence by the model's convention.
    pub eos: Vec<i64>,
    /// Ends sequences by what their tokens say.
    pub watch: Option<Arc<dyn Watch>>,
    /// Ends the request early.
    pub cancel: Cancel,
    /// Told new tokens as soon as they are known; `prompt` of the burst is the request's number.
    pub on_burst: Box<dyn FnMut(&Burst<'_>) + Send + 'j>,
}

impl Job<'_> {
    /// A greedy request that nobody listens to.
    #[must_use]
    pub fn greedy(prompt: Vec<i64>, max_new_tokens: usize) -> Self {
        Job {
            prompt,
            max_new_tokens,
            sampling: Sampling::greedy(),
            first_sample: 0,
            stop: Vec::new(),
            eos: Vec::new(),
            watch: None,
            cancel: Cancel::default(),
            on_burst: Box::new(|_| {}),
        }
    }
}

/// What the model allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of a meta-context.
    pub meta_tokens: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest sequence in tokens, prompt included.
    pub max_tokens: usize,
}

impl Limits {
    /// Those of a model.
    #[must_use]
    pub fn of(program: &Program) -> Self {
        let Program { meta_tokens, vocab_size, max_tokens, .. } = *program;
        Limits { meta_tokens, vocab_size, max_tokens }
    }

    /// Whether `job` can run in rows of this shape.
    ///
    /// # Errors
    /// Why not.
    pub fn check(self, number: usize, job: &Job<'_>, setup: DecoderSetup) -> Result<(), Refusal> {
        self.fit(number, job, setup).map(|_| ())
    }

    /// The prompt in whole meta-contexts, and the bursts that `job` takes.
    pub(super) fn fit(
        self,
        number: usize,
        job: &Job<'_>,
        setup: DecoderSetup,
    ) -> Result<(Prompt, usize), Refusal> {
        if job.max_new_tokens == 0 {
            return Err(Refusal::Empty { number });
        }
        job.sampling.check()?;
        let prompt = Prompt::align(number, &job.prompt, self.meta_tokens, self.vocab_size)?;
        let steps = job.max_new_tokens.div_ceil(self.meta_tokens);
        let (prompt_tokens, new_tokens) = (prompt.tokens.len(), steps.saturating_mul(self.meta_tokens));
        if prompt_tokens.saturating_add(new_tokens) > self.max_tokens {
            return Err(Refusal::TooLong { number, prompt_tokens, new_tokens, max_tokens: self.max_tokens });
        }
        let bursts = steps.div_ceil(setup.run_ahead);
        let meta_contexts =
            prompt.meta_contexts(self.meta_tokens).saturating_add(bursts.saturating_mul(setup.run_ahead));
        if meta_contexts > setup.capacity {
            return Err(Refusal::NoRoom { number, meta_contexts, capacity: setup.capacity });
        }
        Ok((prompt, bursts))
    }
}

/// Why a request can never run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No new tokens are wanted.
    #[error("request {number}: asks for 0 new tokens, expected at least 1")]
    Empty {
        /// The request.
        number: usize,
    },
    /// A prompt that nothing can start from.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Sampling parameters without a meaning.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// Longer than the model's longest sequence.
    #[error(
        "request {number}: {prompt_tokens} tokens and {new_tokens} new ones exceed the model's {max_tokens}; ask for fewer or export with a larger --max-tokens"
    )]
    TooLong {
        /// The request.
        number: usize,
        /// Aligned tokens of the prompt.
        prompt_tokens: usize,
        /// New tokens, in whole meta-contexts.
        new_tokens: usize,
        /// The bound.
        max_tokens: usize,
    },
    /// Longer than a row of the decoder.
    #[error(
        "request {number}: needs {meta_contexts} meta-contexts, whole bursts counted, and a row has room for {capacity}; ask for fewer tokens or give rows more capacity"
    )]
    NoRoom {
        /// The request.
        number: usize,
        /// Meta-contexts of prompt and bursts.
        meta_contexts: usize,
        /// Those of a row.
        capacity: usize,
    },
}

/// A request that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its number.
    pub number: usize,
    /// Its sequences by sample, or why it has none.
    pub result: Result<Vec<Sequence>, RuntimeError>,
}

impl Finished {
    pub(super) fn wasted_tokens(&self) -> usize {
        self.result.iter().flatten().map(|sequence| sequence.wasted_tokens).sum()
    }
}
