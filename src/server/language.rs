//! What a served model knows of text: its tokenizer, its chat template, the ids that end a sequence. Owns what is said where
//! one is missing.

use super::error::ApiError;
use crate::bundle::Bundle;
use crate::program::Protocol;
use crate::runtime::plan::Program;
use crate::text::Date;
use crate::text::chat::{ChatOptions, ChatTemplate, Message, named_tokens};
use crate::text::defaults::{GenerationDefaults, Wanted};
use crate::text::tokenizer::Tokenizer;
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
}

impl Language {
    /// That of a bundle, with a chat template in place of its own if one is given.
    ///
    /// # Errors
    /// A file of the bundle that cannot be read, in words.
    pub fn of(bundle: &Bundle, template: Option<&(PathBuf, String)>) -> Result<Self, String> {
        let tokenizer = Tokenizer::of_bundle(bundle).map_err(|error| error.to_string())?;
        let wanted = Wanted { eos: true, ..Wanted::default() };
        let defaults = GenerationDefaults::of_bundle(bundle, tokenizer.as_ref(), wanted);
        let defaults = defaults.map_err(|error| error.to_string())?;
        let tokens = named_tokens(bundle).map_err(|error| error.to_string())?;
        let template = match template {
            Some((path, source)) => Ok(ChatTemplate::new(path, source, tokens.clone())),
            None => ChatTemplate::needed(bundle).map_err(|error| error.to_string()),
        };
        Ok(Language { tokenizer: tokenizer.map(Arc::new), template, tokens, eos: defaults.eos })
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
    /// The model has no tokenizer, or it cannot encode the text.
    pub fn encode(&self, text: &str, mark: bool, param: &str) -> Result<Vec<i64>, ApiError> {
        let encoded = self.tokenizer()?.encode(text, mark);
        Ok(encoded.map_err(|error| ApiError::of_text(&error, param))?.ids)
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
    /// The model has no chat template, or it refuses the messages.
    pub fn encode_chat(&self, messages: &[Message], tools: Value, param: &str) -> Result<Vec<i64>, ApiError> {
        let template = self.template.as_ref().map_err(|message| ApiError::value(param, message))?;
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

/// Now, in universal time, for templates that ask.
fn today() -> Option<Date> {
    let seconds = super::answer::unix_seconds();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let [year, month, day] = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}").parse().ok()
}

/// Year, month and day of a number of days since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> [u64; 3] {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    [year, month, day]
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_have_dates() {
        assert_eq!(civil(0), [1970, 1, 1]);
        assert_eq!(civil(19_782), [2024, 2, 29]);
        assert_eq!(civil(20_786), [2026, 11, 29]);
    }
}
