//! Log-probabilities and usage as clients of OpenAI's interfaces read them. Owns the text of single tokens.

use super::language::Language;
use indexmap::IndexMap;
use photonc_runtime::logprobs::TokenLogprobs;
use serde::Serialize;
use utoipa::ToSchema;

/// What stands for probability 0, which JSON has no logarithm of; vLLM's too.
const LEAST: f64 = -9999.0;

/// Tokens that were used.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of prompts.
    pub prompt_tokens: usize,
    /// New tokens.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
}

impl Usage {
    /// Of so many of each.
    #[must_use]
    pub fn of(prompt_tokens: usize, completion_tokens: usize) -> Self {
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }
}

/// Log-probabilities of a completion, by token.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    /// Text of each token, or `token_id:N`.
    pub tokens: Vec<String>,
    /// Natural logarithms of the probabilities.
    pub token_logprobs: Vec<f64>,
    /// The most probable tokens and the token itself, at each place.
    #[schema(value_type = Vec<Object>)]
    pub top_logprobs: Vec<IndexMap<String, f64>>,
    /// Where each token begins in the text, in characters.
    pub text_offset: Vec<usize>,
}

/// Log-probabilities of a chat's choice.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// By token.
    pub content: Vec<ChatLogprob>,
    /// There are no refusals.
    pub refusal: Option<Vec<ChatLogprob>>,
}

/// A token of a chat.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatLogprob {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// Bytes of its text, where it has one of its own.
    pub bytes: Option<Vec<u8>>,
    /// The most probable tokens at its place.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that was probable.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TopLogprob {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// Bytes of its text, where it has one of its own.
    pub bytes: Option<Vec<u8>>,
}

/// Names of tokens.
pub struct Names<'l> {
    /// What makes text of them.
    pub language: &'l Language,
    /// Whether they are named by their ids.
    pub by_id: bool,
}

impl Names<'_> {
    /// The text of one token: `token_id:N` where it has none.
    fn name(&self, id: i64) -> String {
        let text = if self.by_id { None } else { self.language.decode(&[id]).ok() };
        text.unwrap_or_else(|| format!("token_id:{id}"))
    }

    /// Log-probabilities of a completion's tokens, which begin at character `offset` of its text.
    #[must_use]
    pub fn completion(&self, told: &[TokenLogprobs], offset: &mut usize) -> CompletionLogprobs {
        let mut all = CompletionLogprobs::default();
        for one in told {
            let name = self.name(one.token);
            let mut top: IndexMap<String, f64> = IndexMap::new();
            // Of tokens with one text the most probable counts.
            for (id, logprob) in &one.top {
                top.entry(self.name(*id)).or_insert(logprob.max(LEAST));
            }
            top.entry(name.clone()).or_insert(one.logprob.max(LEAST));
            all.text_offset.push(*offset);
            *offset += if self.by_id { 0 } else { name.chars().count() };
            all.tokens.push(name);
            all.token_logprobs.push(one.logprob.max(LEAST));
            all.top_logprobs.push(top);
        }
        all
    }

    /// Log-probabilities of a chat's tokens.
    #[must_use]
    pub fn chat(&self, told: &[TokenLogprobs]) -> ChatLogprobs {
        let named = |id: i64, logprob: f64| {
            let token = self.name(id);
            // A part of a character has no bytes that could be told from its text.
            let whole = !token.contains(char::REPLACEMENT_CHARACTER);
            let bytes = whole.then(|| token.clone().into_bytes());
            TopLogprob { token, logprob: logprob.max(LEAST), bytes }
        };
        let content = told.iter().map(|one| {
            let TopLogprob { token, logprob, bytes } = named(one.token, one.logprob);
            let top_logprobs = one.top.iter().map(|(id, logprob)| named(*id, *logprob)).collect();
            ChatLogprob { token, logprob, bytes, top_logprobs }
        });
        ChatLogprobs { content: content.collect(), refusal: None }
    }
}
