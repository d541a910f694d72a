//! What a served model knows of text: its tokenizer, its chat template, the ids that end a sequence. Owns what is said where
//! one is missing.

use super::error::ApiError;
use photonc_bundle::bundle::Bundle;
use photonc_bundle::program::Protocol;
use photonc_runtime::plan::Program;
use photonc_text::chat::{ChatOptions, ChatTemplate, Message, named_tokens};
use photonc_text::clock::today;
use photonc_text::defaults::{GenerationDefaults, Wanted};
use photonc_text::tokenizer::Tokenizer;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;

/// Text to tokens and back.
#[derive(Debug)]
pub struct Language {
    tokenizer: Option<Arc<Tokenizer>>,
    template: Result<ChatTemplate, String>,
    /// Tokens that the bundle names, by what they are for.
    tokens: Map<String, Value>,
    /// Ids that end a sequence by the model's convention.
    pub eos: Vec<i64>,
    /// Longest text that is made tokens, in bytes.
    most_bytes: usize,
}

/// Longest text that is made tokens, in bytes: a tokenizer takes two to four hundred bytes of memory for each of them.
const TEXT_BYTES: usize = 512 << 10;

/// The same for each token of the longest sequence, where that is more: above what tokens have on average.
const TOKEN_BYTES: usize = 16;

impl Language {
    /// That of a bundle whose sequences have so many tokens at most, with a chat template in place of its own if one is
    /// given.
    ///
    /// # Errors
    /// A file of the bundle that cannot be read, in words.
    pub fn of(
        bundle: &Bundle,
        max_tokens: usize,
        template: Option<&(PathBuf, String)>,
    ) -> Result<Self, String> {
        let tokenizer = Tokenizer::of_bundle(bundle).map_err(|error| error.to_string())?;
        let wanted = Wanted { eos: true, ..Wanted::default() };
        let defaults = GenerationDefaults::of_bundle(bundle, tokenizer.as_ref(), wanted);
        let defaults = defaults.map_err(|error| error.to_string())?;
        let tokens = named_tokens(bundle).map_err(|error| error.to_string())?;
        let template = match template {
            Some((path, source)) => Ok(ChatTemplate::new(path, source, tokens.clone())),
            None => ChatTemplate::needed(bundle).map_err(|error| error.to_string()),
        };
        let most_bytes = max_tokens.saturating_mul(TOKEN_BYTES).max(TEXT_BYTES);
        Ok(Language { tokenizer: tokenizer.map(Arc::new), template, tokens, eos: defaults.eos, most_bytes })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// The model has none.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>, ApiError> {
        self.tokenizer.as_ref().ok_or_else(|| {
            ApiError::value("model", "the model has no tokenizer: it reads and writes token ids only")
        })
    }

    /// Whether there is a chat template.
    #[must_use]
    pub fn chats(&self) -> bool {
        self.template.is_ok()
    }

    /// The chat template, if there is one.
    #[must_use]
    pub fn template(&self) -> Option<&str> {
        self.template.as_ref().ok().map(ChatTemplate::source)
    }

    /// The text of a token that the bundle names: `bos_token`, `eos_token` and the like. Where it names no end of a sequence,
    /// the text of the first id that is one.
    #[must_use]
    pub fn named_token(&self, name: &str) -> Option<String> {
        let named = self.tokens.get(name).and_then(Value::as_str).map(str::to_owned);
        let end = || self.tokenizer.as_ref()?.token(*self.eos.first()?);
        named.or_else(|| if name == "eos_token" { end() } else { None })
    }

    /// The tokens of a text, given as parameter `param`; `mark` adds those that the tokenizer puts around a text.
    ///
    /// # Errors
    /// The model has no tokenizer, or it cannot encode the text, or that is far longer than any sequence.
    pub fn encode(&self, text: &str, mark: bool, param: &str) -> Result<Vec<i64>, ApiError> {
        self.check_length(text.len(), param)?;
        let encoded = self.tokenizer()?.encode(text, mark);
        Ok(encoded.map_err(|error| ApiError::of_text(&error, param))?.ids)
    }

    fn check_length(&self, found: usize, param: &str) -> Result<(), ApiError> {
        let most = self.most_bytes;
        if found <= most {
            return Ok(());
        }
        let message = format!("the text has {found} bytes, expected {most} at most");
        Err(ApiError::value(param, message).coded("context_length_exceeded"))
    }

    /// The text of tokens.
    ///
    /// # Errors
    /// The model has no tokenizer, or it cannot decode them.
    pub fn decode(&self, ids: &[i64]) -> Result<String, ApiError> {
        self.tokenizer()?.decode(ids).map_err(|error| ApiError::of_text(&error, "tokens"))
    }

    /// The tokens of a conversation, given as parameter `param`.
    ///
    /// # Errors
    /// The model has no chat template, or it refuses the messages, or they are far longer than any sequence.
    pub fn encode_chat(&self, messages: &[Message], tools: Value, param: &str) -> Result<Vec<i64>, ApiError> {
        let template = self.template.as_ref().map_err(|message| ApiError::value(param, message))?;
        // What a template writes of them is about as long, and takes several times that on the way.
        self.check_length(messages.iter().map(Message::text_bytes).sum(), param)?;
        let options = ChatOptions { tools, date: today() };
        let text = template.render(messages, &options);
        let text = text.map_err(|error| ApiError::of_text(&error, param))?;
        // The template writes every mark itself.
        self.encode(&text, false, param)
    }

    /// The protocol of requests that name none.
    #[must_use]
    pub fn first_protocol(&self, program: &Program) -> Option<Protocol> {
        let mut protocols = program.protocols.keys();
        protocols.clone().find(|known| **known == Protocol::Recgen).or_else(|| protocols.next()).copied()
    }
}
