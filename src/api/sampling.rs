//! How tokens are drawn and where sequences end, under vLLM's names. Owns their defaults and what they mean to the runtime.

use super::error::Error;
use crate::runtime::penalties::Penalties;
use crate::runtime::request::{Request, StopCondition};
use crate::runtime::sampler::Sampling;
use crate::text::speech::StopStrings;
use crate::text::tokenizer::Tokenizer;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

/// Sampling parameters; by default a sequence of 16 tokens from the model's own distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Sequences of a prompt.
    pub n: usize,
    /// Divides the logits; 0 is greedy.
    pub temperature: f64,
    /// Keeps the most probable tokens that reach this mass.
    pub top_p: f64,
    /// Keeps so many of the most probable tokens; 0 or -1 keeps all.
    pub top_k: i64,
    /// Keeps tokens at least this probable relative to the most probable one.
    pub min_p: f64,
    /// Taken off the logits of tokens among the new ones.
    pub presence_penalty: f64,
    /// The same for each time they occur.
    pub frequency_penalty: f64,
    /// Divides the logits above 0 of tokens that occurred, prompt included.
    pub repetition_penalty: f64,
    /// Added to the logits of these token ids.
    pub logit_bias: Vec<(i64, f64)>,
    /// Log-probabilities of each new token and of so many of the most probable ones.
    pub logprobs: Option<usize>,
    /// The same of each token of the prompt.
    pub prompt_logprobs: Option<usize>,
    /// Texts that end a sequence and are not part of it.
    pub stop: Vec<String>,
    /// Token ids that end a sequence and are not part of it.
    pub stop_token_ids: Vec<i64>,
    /// New tokens of a sequence at most; `None` is all that there is room for.
    pub max_tokens: Option<usize>,
    /// New tokens before which no id ends a sequence.
    pub min_tokens: usize,
    /// Goes on behind the ids that end a sequence by the model's convention.
    pub ignore_eos: bool,
    /// Key of the random numbers: the same seed gives the same tokens. `None` is another for every prompt.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            n: 1,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            max_tokens: Some(16),
            min_tokens: 0,
            ignore_eos: false,
            seed: None,
        }
    }
}

/// What of a model its requests are made with.
pub(super) struct Context<'c> {
    pub tokenizer: Option<&'c Arc<Tokenizer>>,
    pub eos: &'c [i64],
    pub vocab_size: usize,
    pub max_tokens: usize,
}

impl SamplingParams {
    /// How tokens are drawn.
    ///
    /// # Errors
    /// A parameter without a meaning.
    pub(super) fn sampling(&self) -> Result<Sampling, Error> {
        if self.top_k < -1 {
            return Err(Error::refused(format!("top_k is {}, expected -1 or more", self.top_k)));
        }
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: usize::try_from(self.top_k).unwrap_or(0),
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()),
        };
        sampling.check().map_err(|error| Error::refused(error.to_string()))?;
        Ok(sampling)
    }

    /// Ends sequences at the stop strings; `None` without any.
    fn stop_condition(&self, context: &Context<'_>) -> Result<Option<Arc<dyn StopCondition>>, Error> {
        if self.stop.is_empty() {
            return Ok(None);
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::refused("a stop string is empty, and every text reaches that"));
        }
        let Some(tokenizer) = context.tokenizer else {
            return Err(Error::refused("the model has no tokenizer for stop strings; use stop_token_ids"));
        };
        let (tokenizer, stops) = (Arc::clone(tokenizer), self.stop.clone().into());
        Ok(Some(Arc::new(StopStrings { tokenizer, stops })))
    }

    /// What is asked of a prompt; its protocol and what is kept are the caller's.
    ///
    /// # Errors
    /// A parameter without a meaning, or no room.
    pub(super) fn request(&self, prompt: Vec<i64>, context: &Context<'_>) -> Result<Request, Error> {
        let known = |id: &i64| usize::try_from(*id).is_ok_and(|id| id < context.vocab_size);
        if let Some(id) = self.stop_token_ids.iter().find(|id| !known(id)) {
            let last = context.vocab_size.saturating_sub(1);
            return Err(Error::refused(format!(
                "stop_token_ids has {id}, and the model has the ids 0 to {last}"
            )));
        }
        let penalties = Penalties {
            repetition: self.repetition_penalty,
            presence: self.presence_penalty,
            frequency: self.frequency_penalty,
        };
        penalties.check().map_err(|error| Error::refused(error.to_string()))?;
        let room = context.max_tokens.saturating_sub(prompt.len());
        if room == 0 {
            let (tokens, most) = (prompt.len(), context.max_tokens);
            return Err(Error::refused(format!(
                "{tokens} tokens leave no room for new ones: the model has {most}"
            )));
        }
        Ok(Request {
            samples: self.n,
            max_new_tokens: self.max_tokens.unwrap_or(room),
            min_new_tokens: self.min_tokens,
            sampling: self.sampling()?,
            penalties,
            logit_bias: self.logit_bias.clone(),
            logprobs: self.logprobs,
            prompt_logprobs: self.prompt_logprobs,
            stop: self.stop_token_ids.clone(),
            eos: if self.ignore_eos { Vec::new() } else { context.eos.to_vec() },
            stop_condition: self.stop_condition(context)?,
            ..Request::greedy(crate::program::Protocol::Recgen, prompt, 1)
        })
    }
}
