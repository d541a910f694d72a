//! Parameters of the protocol's requests: those that all generating endpoints have, in the object `parameters`. Owns what they
//! mean beside a path that names the model and says whether there is a stream.

use crate::body::parse;
use crate::completions::MAX_TOKENS;
use crate::engine::Engine;
use crate::error::ApiError;
use crate::fields::generating_body;
use crate::flow::{Piece, Whole};
use crate::generation::Wishes;
use crate::prompt::Prompt;
use axum::http::StatusCode;
use serde_json::value::RawValue;

/// What a request calls parameters that have another name within the server: pairs of that name and its own.
pub type Names = &'static [(&'static str, &'static str)];

generating_body! {
    /// How many tokens there are and how they are drawn.
    InferenceParameters {
        /// New tokens, at most [default: 16].
        #[schema(minimum = 1)]
        max_tokens: Option<u32>,
        /// Tokens of the prompt that are prompt: those behind them were generated, and the generation goes on.
        prompt_length: Option<u32>,
        /// Whether a text gets the marks that the tokenizer puts around one [default: true].
        add_special_tokens: Option<bool>,
    }
}

impl InferenceParameters {
    /// Those of a request's `parameters`, if it has some.
    ///
    /// # Errors
    /// They are no object, or one of them is not known or of another type.
    pub fn read(given: Option<&RawValue>) -> Result<Self, ApiError> {
        let text = given.map_or("{}", RawValue::get);
        if !text.starts_with('{') {
            let message = "`parameters` is no object";
            return Err(
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_type", message).of("parameters")
            );
        }
        parse(text.as_bytes())
    }

    /// What is asked for with one prompt, which the endpoint calls by another name.
    ///
    /// # Errors
    /// A parameter contradicts the path, or the prompt cannot be read.
    pub fn wishes(
        &self,
        engine: &Engine,
        prompt: &Prompt,
        names: Names,
        [text, stream]: [bool; 2],
    ) -> Result<Wishes, ApiError> {
        check_name("model", self.model.as_deref(), &engine.name)?;
        if let Some(wished) = self.stream.filter(|wished| *wished != stream) {
            let message = format!("`stream` is {wished}: only `generate_stream` streams, and it always does");
            return Err(ApiError::value("stream", message));
        }
        let mark = self.add_special_tokens.unwrap_or(true);
        let prompts = prompt.read(engine, mark, false, 1).map_err(|error| error.renamed(names))?;
        Ok(Wishes {
            prompts: prompts.ids,
            prompt_length: self.prompt_length.map(|length| length as usize),
            max_tokens: Some(self.max_tokens.unwrap_or(MAX_TOKENS) as usize),
            samples: 1,
            text,
            stream,
            names,
            ..Wishes::default()
        })
    }
}

/// Refuses another name of the model than the path has.
///
/// # Errors
/// It is another.
pub fn check_name(param: &str, given: Option<&str>, own: &str) -> Result<(), ApiError> {
    match given.filter(|given| *given != own) {
        Some(given) => {
            Err(ApiError::value(param, format!("`{param}` is `{given}`, and the path names `{own}`")))
        }
        None => Ok(()),
    }
}

/// What was written: requests have one prompt and one sample.
#[must_use]
pub fn only(wholes: Vec<Whole>) -> Piece {
    wholes.into_iter().next().expect("invariant: one prompt with one sample is one choice").piece
}
