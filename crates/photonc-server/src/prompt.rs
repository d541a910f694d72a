//! Prompts of completions: text or token ids, one or several. Owns which is which.

use super::engine::Engine;
use super::error::ApiError;
use serde::Deserialize;
use utoipa::ToSchema;

/// Text, texts, token ids, or several lists of them.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of token ids or a list of such lists"
)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// The tokens of one.
    Ids(Vec<i64>),
    /// Several texts.
    Texts(Vec<String>),
    /// The tokens of several.
    ManyIds(Vec<Vec<i64>>),
}

/// Prompts as tokens.
#[derive(Clone, Debug)]
pub struct Prompts {
    /// Token ids of each.
    pub ids: Vec<Vec<i64>>,
    /// Their texts, where they are wanted; otherwise empty ones.
    pub texts: Vec<String>,
}

impl Prompt {
    /// The prompts, `most` at most, with their texts if `texts`; `mark` puts the tokenizer's own marks around those that are
    /// text.
    ///
    /// # Errors
    /// There is none, there are too many, or the tokenizer cannot read or write one.
    pub fn read(&self, engine: &Engine, mark: bool, texts: bool, most: usize) -> Result<Prompts, ApiError> {
        let language = &engine.language;
        let count = match self {
            Prompt::Text(_) | Prompt::Ids(_) => 1,
            Prompt::Texts(texts) => texts.len(),
            Prompt::ManyIds(many) => many.len(),
        };
        // Before any is read: a body has room for millions.
        if count > most {
            let message = format!("`prompt` has {count} prompts, expected {most} at most");
            return Err(ApiError::value("prompt", message));
        }
        let of_texts = |given: &[String]| {
            let ids = given.iter().map(|text| language.encode(text, mark, "prompt"));
            Ok(Prompts { ids: ids.collect::<Result<_, ApiError>>()?, texts: given.to_vec() })
        };
        let of_ids = |given: &[Vec<i64>]| {
            let text = |ids: &Vec<i64>| match texts && language.tokenizer().is_ok() {
                true => language.decode(ids),
                false => Ok(String::new()),
            };
            Ok(Prompts {
                ids: given.to_vec(),
                texts: given.iter().map(text).collect::<Result<_, ApiError>>()?,
            })
        };
        match self {
            Prompt::Text(text) => of_texts(std::slice::from_ref(text)),
            Prompt::Ids(ids) if ids.is_empty() => Err(empty()),
            Prompt::Ids(ids) => of_ids(std::slice::from_ref(ids)),
            Prompt::Texts(texts) => of_texts(texts),
            Prompt::ManyIds(many) => of_ids(many),
        }
    }
}

fn empty() -> ApiError {
    ApiError::value("prompt", "`prompt` is an empty list; an empty prompt is \"\" or [[]]")
}
