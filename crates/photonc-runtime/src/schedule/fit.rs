//! Whether a request can ever run, and what it takes. Owns the one rule of what fits; refuses with the figures.

use crate::decoder::DecoderSetup;
use crate::draws::Draws;
use crate::logprobs::MAX_LOGPROBS;
use crate::plan::Program;
use crate::prompt::{Prompt, PromptError, check_ids};
use crate::request::{Request, RunAhead};
use crate::sampler::SamplingError;
use photonc_bundle::program::Remainder;

/// Longest burst, in meta-contexts: what is recorded once has a bounded size.
const MAX_RUN_AHEAD: usize = 64;

/// What the model allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of a meta-context.
    pub meta_tokens: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest sequence in tokens, prompt included.
    pub max_tokens: usize,
    /// What stands for a meta-context that a prompt begins.
    pub remainder: Remainder,
}

/// A request that can run, and how it goes.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    pub prompt: Prompt,
    /// Whole meta-contexts of the prompt.
    pub whole: usize,
    /// Meta-contexts that are encoded before whole ones are drawn: one more, where the prompt begins it.
    pub encoded: usize,
    /// Whether that one is yet to be drawn, behind the tokens that begin it.
    pub begun: bool,
    /// New tokens that are drawn in that meta-context.
    pub first_tokens: usize,
    /// Meta-contexts to draw behind all that was encoded, those of given tokens included.
    pub steps: usize,
}

/// Why a request can never run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Something is asked for in no number.
    #[error("request {number}: {what} is 0, expected at least 1")]
    Empty {
        /// The request.
        number: usize,
        /// What is zero: samples, new tokens.
        what: &'static str,
    },
    /// A prompt that nothing can start from.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Sampling parameters without a meaning.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// More log-probabilities than are handed out.
    #[error("request {number}: asks for {found} log-probabilities a token, expected at most {MAX_LOGPROBS}")]
    Logprobs {
        /// The request.
        number: usize,
        /// Asked for.
        found: usize,
    },
    /// More forced tokens than new ones.
    #[error("request {number}: {found} tokens are forced, expected at most its {expected} new tokens")]
    Forced {
        /// The request.
        number: usize,
        /// Tokens given.
        found: usize,
        /// New tokens.
        expected: usize,
    },
    /// Longer than the model's longest sequence.
    #[error(
        "request {number}: {prompt_tokens} tokens and {new_tokens} new ones exceed the bundle's {max_tokens}; ask for fewer or export with a larger --max-tokens"
    )]
    TooLong {
        /// The request.
        number: usize,
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// New tokens.
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
    /// Another protocol than the decoder's.
    #[error("request {number}: asks for protocol `{found}`, and these rows run `{expected}`")]
    Protocol {
        /// The request.
        number: usize,
        /// Asked for.
        found: String,
        /// The decoder's.
        expected: String,
    },
    /// The graphs cannot draw so.
    #[error("request {number}: {message}")]
    Draws {
        /// The request.
        number: usize,
        /// Why not.
        message: String,
    },
    /// The queue is full.
    #[error("{waiting} requests wait already, of {limit} that may; try again later")]
    QueueFull {
        /// Requests that wait.
        waiting: usize,
        /// How many may.
        limit: usize,
    },
    /// Nothing is taken any more.
    #[error("the queue is closed")]
    Closed,
}

impl Limits {
    /// Those of a model.
    #[must_use]
    pub fn of(program: &Program) -> Self {
        let Program { meta_tokens, vocab_size, max_tokens, remainder, .. } = *program;
        Limits { meta_tokens, vocab_size, max_tokens, remainder }
    }

    /// Meta-contexts of one burst for these requests.
    #[must_use]
    pub fn run_ahead(self, requests: &[Request], run_ahead: RunAhead) -> usize {
        let longest = requests.iter().map(|request| request.max_new_tokens).max().unwrap_or(1);
        let steps = longest.div_ceil(self.meta_tokens).clamp(1, MAX_RUN_AHEAD);
        match run_ahead {
            RunAhead::All => steps,
            RunAhead::MetaContexts(count) => count.clamp(1, steps),
        }
    }

    /// Meta-contexts that a row must have room for, of whichever of these requests needs most.
    ///
    /// # Errors
    /// The first request that can never run.
    pub fn capacity(self, requests: &[Request], run_ahead: usize) -> Result<usize, Refusal> {
        let mut most = run_ahead + 1;
        for (number, request) in requests.iter().enumerate() {
            most = most.max(self.meta_contexts(number, request, run_ahead)?);
        }
        Ok(most)
    }

    /// Meta-contexts that a row must have room for, whole bursts counted.
    ///
    /// # Errors
    /// Why the request can never run.
    pub fn meta_contexts(self, number: usize, request: &Request, run_ahead: usize) -> Result<usize, Refusal> {
        Ok(self.fit(number, request)?.meta_contexts(run_ahead))
    }

    /// Whether `request` can run in rows of this shape.
    ///
    /// # Errors
    /// Why not.
    pub fn check(self, number: usize, request: &Request, setup: DecoderSetup) -> Result<(), Refusal> {
        self.fit_in(number, request, setup).map(|_| ())
    }

    /// How the tokens of a request are drawn.
    ///
    /// # Errors
    /// Why it can never run.
    pub(crate) fn draws(self, request: &Request) -> Result<Draws, Refusal> {
        Ok(draws(request, &self.fit(0, request)?.prompt))
    }

    pub(super) fn fit_in(
        self,
        number: usize,
        request: &Request,
        setup: DecoderSetup,
    ) -> Result<Fit, Refusal> {
        if request.protocol != setup.protocol {
            let (found, expected) = (request.protocol.to_string(), setup.protocol.to_string());
            return Err(Refusal::Protocol { number, found, expected });
        }
        let fit = self.fit(number, request)?;
        let meta_contexts = fit.meta_contexts(setup.run_ahead);
        if meta_contexts > setup.capacity {
            return Err(Refusal::NoRoom { number, meta_contexts, capacity: setup.capacity });
        }
        Ok(fit)
    }

    pub(super) fn fit(self, number: usize, request: &Request) -> Result<Fit, Refusal> {
        let Limits { meta_tokens, vocab_size, max_tokens, remainder } = self;
        for (what, count) in
            [("the number of new tokens", request.max_new_tokens), ("the number of samples", request.samples)]
        {
            if count == 0 {
                return Err(Refusal::Empty { number, what });
            }
        }
        let length = request.prompt_length.unwrap_or(request.prompt.len());
        let prompt =
            Prompt::align(number, &request.prompt, length, request.align, [meta_tokens, vocab_size])?;
        let biased: Vec<i64> = request.logit_bias.iter().map(|(id, _)| *id).collect();
        check_ids(number, &biased, vocab_size)?;
        check_ids(number, &request.forced, vocab_size)?;
        draws(request, &prompt).check()?;
        let asked = request.logprobs.max(request.prompt_logprobs);
        if let Some(found) = asked.filter(|found| *found > MAX_LOGPROBS) {
            return Err(Refusal::Logprobs { number, found });
        }
        let new_tokens = request.max_new_tokens;
        if request.forced.len() > new_tokens {
            let found = request.forced.len();
            return Err(Refusal::Forced { number, found, expected: new_tokens });
        }
        let prompt_tokens = prompt.tokens.len();
        if prompt_tokens.saturating_add(new_tokens) > max_tokens {
            return Err(Refusal::TooLong { number, prompt_tokens, new_tokens, max_tokens });
        }
        Ok(Fit::of(prompt, new_tokens, meta_tokens, remainder))
    }
}

impl Fit {
    fn of(prompt: Prompt, new_tokens: usize, meta_tokens: usize, remainder: Remainder) -> Self {
        let known = prompt.tokens.len();
        let (whole, rest) = match remainder {
            Remainder::Encoded => (prompt.length / meta_tokens, prompt.length % meta_tokens),
            // What the prompt begins is drawn with its tokens forced, and goes on as any other does.
            Remainder::Summarised => (prompt.length / meta_tokens, 0),
        };
        let encoded = whole + usize::from(rest > 0);
        // A generation that goes on may have left the meta-context that its prompt begins.
        let begun = rest > 0 && known < encoded * meta_tokens;
        let first_tokens = if begun { (encoded * meta_tokens - known).min(new_tokens) } else { 0 };
        let steps = match new_tokens - first_tokens {
            0 => 0,
            left => (known.saturating_sub(encoded * meta_tokens) + left).div_ceil(meta_tokens),
        };
        Fit { prompt, whole, encoded, begun, first_tokens, steps }
    }

    /// Meta-contexts that a row holds, whole bursts counted.
    fn meta_contexts(&self, run_ahead: usize) -> usize {
        let first = if self.begun { self.whole + run_ahead } else { 0 };
        let bursts = self.steps.div_ceil(run_ahead).saturating_mul(run_ahead);
        let behind = if self.steps > 0 { self.encoded.saturating_add(bursts) } else { 0 };
        first.max(behind)
    }
}

/// How the tokens of a request are drawn.
pub(super) fn draws(request: &Request, prompt: &Prompt) -> Draws {
    let mut barred = Vec::new();
    if request.min_new_tokens > 0 {
        barred = [&request.eos[..], &request.stop].concat();
    }
    Draws {
        sampling: request.sampling,
        penalties: request.penalties,
        bias: request.logit_bias.clone(),
        barred,
        barred_until: prompt.length.saturating_add(request.min_new_tokens),
        logprobs: request.logprobs,
        prompt: prompt.tokens[..prompt.length].to_vec(),
    }
}
