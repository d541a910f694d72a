//! `POST /v1/completions`: text or token ids in, text out. Owns the body, the answer, and the chunks of a stream.

use super::ServerState;
use super::answer::{name, ok, unix_seconds};
use super::body::Json;
use super::engine::Engine;
use super::error::ApiError;
use super::fields::{StreamUsage, StreamWishes, generating_body};
use super::flow::{Piece, Step, Whole, finish_reason};
use super::generation::{Wishes, answered, check_sequences};
use super::openapi::Refusals;
use super::prompt::{Prompt, Prompts};
use super::stream::{Frame, Telling};
use super::told::{CompletionLogprobs, Names, Usage};
use axum::extract::State;
use axum::response::Response;
use photonc_runtime::logprobs::TokenLogprobs;
use photonc_runtime::request::Finish;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// New tokens where nobody says how many, as OpenAI has it.
pub const MAX_TOKENS: u32 = 16;

generating_body! {
    /// A completion that is asked for.
    CompletionBody {
        /// Text, texts, token ids, or several lists of them.
        prompt: Prompt,
        /// Not done: models write from left to right.
        suffix: Option<String>,
        /// New tokens, at most; 0 with `echo` only [default: 16].
        max_tokens: Option<u32>,
        /// Sequences of each prompt [default: 1].
        #[schema(minimum = 1)]
        n: Option<u32>,
        /// Only as many as `n`: the best of more is not chosen here.
        best_of: Option<u32>,
        /// Whether the text begins with the prompt's [default: false].
        echo: Option<bool>,
        /// Log-probabilities of tokens and of so many others, 20 at most.
        #[schema(maximum = 20)]
        logprobs: Option<u32>,
        /// What a stream has besides.
        #[serde(default, deserialize_with = "crate::body::object")]
        stream_options: Option<StreamWishes>,
        /// Whether ids of tokens are told [default: false].
        return_token_ids: Option<bool>,
        /// Whether log-probabilities name tokens `token_id:N` [default: false].
        return_tokens_as_token_ids: Option<bool>,
        /// Tokens of the prompt that are prompt: those behind them were generated, and the generation goes on.
        prompt_length: Option<u32>,
        /// Whether a text gets the marks that the tokenizer puts around one [default: true].
        add_special_tokens: Option<bool>,
    }
}

/// A completion, or a chunk of one.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Completion {
    id: String,
    /// `text_completion`
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    choices: Vec<CompletionChoice>,
    /// Tokens that were used; in streams with the last chunk, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// A choice, or what is new of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CompletionChoice {
    index: usize,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`, with the last of it.
    finish_reason: Option<&'static str>,
    /// Ids of its tokens, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<i64>>,
    /// Ids of the prompt's tokens, if asked for; in streams with the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<i64>>,
}

/// Everything that chunks are made with.
struct Writing {
    id: String,
    created: u64,
    engine: Arc<Engine>,
    prompts: Prompts,
    samples: usize,
    echo: bool,
    /// Whether nothing is to be generated: what was drawn all the same is thrown away.
    only_prompt: bool,
    logprobs: bool,
    by_id: bool,
    ids: bool,
    usage: StreamUsage,
    /// New tokens so far, of all choices.
    new_tokens: usize,
    /// Characters of each choice so far.
    offsets: Vec<usize>,
}

/// Write on behind a text.
#[utoipa::path(post, path = "/v1/completions", request_body = CompletionBody, tag = "openai", responses(
    (status = 200, description = "The completion; with `stream`, server-sent events of the same shape", content(
        (Completion = "application/json"), (String = "text/event-stream"))),
    Refusals,
))]
pub async fn completions(
    State(state): State<Arc<ServerState>>,
    Json(body): Json<CompletionBody>,
) -> Result<Response, ApiError> {
    let engine = state.models.get(body.model.as_deref())?;
    let most = state.options.limits.sequences;
    let (writing, wishes) = tokio::task::block_in_place(|| body.asked(&engine, most))?;
    answered(&state, &engine, &body.common(), &wishes, writing).await
}

impl CompletionBody {
    /// What is asked for, of so many sequences at most.
    fn asked(&self, engine: &Arc<Engine>, most: usize) -> Result<(Writing, Wishes), ApiError> {
        let samples = self.n.unwrap_or(1) as usize;
        let (echo, stream) = (self.echo == Some(true), self.stream == Some(true));
        let max_tokens = self.max_tokens.unwrap_or(MAX_TOKENS) as usize;
        if self.suffix.is_some() {
            return Err(ApiError::unsupported(
                "suffix",
                "`suffix` is not done: the model writes behind a prompt",
            ));
        }
        if self.best_of.is_some_and(|best_of| best_of as usize != samples) {
            return Err(ApiError::unsupported("best_of", "`best_of` is not done, unless it is `n`"));
        }
        if max_tokens == 0 && !echo {
            return Err(ApiError::value(
                "max_tokens",
                "max_tokens is 0, which leaves nothing to do without `echo`",
            ));
        }
        if echo && stream && self.logprobs.is_some() {
            return Err(ApiError::unsupported("echo", "`echo` with `logprobs` is not streamed"));
        }
        let ids = self.return_token_ids == Some(true);
        if engine.language.tokenizer().is_err() && !ids {
            let message = "the model has no tokenizer, so there is no text; set return_token_ids";
            return Err(ApiError::value("return_token_ids", message));
        }
        let prompts = self.prompt.read(engine, self.add_special_tokens.unwrap_or(true), echo, most)?;
        check_sequences(prompts.ids.len(), samples, most)?;
        let only_prompt = max_tokens == 0;
        let logprobs = self.logprobs.map(|count| count as usize);
        let wishes = Wishes {
            prompts: prompts.ids.clone(),
            prompt_length: self.prompt_length.map(|length| length as usize),
            max_tokens: Some(max_tokens.max(1)),
            samples,
            logprobs: logprobs.filter(|_| !only_prompt),
            prompt_logprobs: logprobs.filter(|_| echo),
            only_prompt,
            text: true,
            stream,
            names: &[],
        };
        let writing = Writing {
            id: name("cmpl"),
            created: unix_seconds(),
            engine: Arc::clone(engine),
            offsets: vec![0; prompts.ids.len() * samples],
            prompts,
            samples,
            echo,
            only_prompt,
            logprobs: logprobs.is_some(),
            by_id: self.return_tokens_as_token_ids == Some(true),
            ids,
            usage: StreamUsage::of(self.stream_options, stream)?,
            new_tokens: 0,
        };
        Ok((writing, wishes))
    }
}

impl Writing {
    fn document(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>) -> Completion {
        Completion {
            id: self.id.clone(),
            object: "text_completion",
            created: self.created,
            model: self.engine.name.clone(),
            choices,
            usage,
        }
    }

    fn logprobs(&mut self, choice: usize, told: &[TokenLogprobs]) -> Option<CompletionLogprobs> {
        let names = Names { language: &self.engine.language, by_id: self.by_id };
        self.logprobs.then(|| names.completion(told, &mut self.offsets[choice]))
    }

    fn usage(&self, new_tokens: usize) -> Usage {
        let new_tokens = if self.only_prompt { 0 } else { new_tokens };
        Usage::of(self.prompts.ids.iter().map(Vec::len).sum(), new_tokens)
    }
}

impl Telling for Writing {
    fn whole(mut self, wholes: Vec<Whole>, new_tokens: usize) -> Response {
        let mut choices = Vec::new();
        for (choice, Whole { mut piece, prompt_logprobs }) in wholes.into_iter().enumerate() {
            let prompt = choice / self.samples;
            let mut told = prompt_logprobs.unwrap_or_default();
            if self.only_prompt {
                // Where there was no room behind the prompt, its last token stands for the new one.
                let missing = self.prompts.ids[prompt].len() - told.len();
                told.extend(piece.logprobs.into_iter().take(missing));
                piece = Piece { finish: Some(Finish::Length), ..Piece::default() };
            }
            let text =
                if self.echo { format!("{}{}", self.prompts.texts[prompt], piece.text) } else { piece.text };
            told.extend(piece.logprobs);
            choices.push(CompletionChoice {
                index: choice,
                text,
                logprobs: self.logprobs(choice, &told),
                finish_reason: finish_reason(piece.finish),
                token_ids: self.ids.then_some(piece.tokens),
                prompt_token_ids: self.ids.then(|| self.prompts.ids[prompt].clone()),
            });
        }
        ok(&self.document(choices, Some(self.usage(new_tokens))))
    }

    fn begin(&mut self) -> Vec<Frame> {
        if !(self.echo || self.ids) {
            return Vec::new();
        }
        let first = |choice: usize| {
            let prompt = choice / self.samples;
            let choice = CompletionChoice {
                index: choice,
                text: if self.echo { self.prompts.texts[prompt].clone() } else { String::new() },
                logprobs: None,
                finish_reason: None,
                token_ids: self.ids.then(Vec::new),
                prompt_token_ids: self.ids.then(|| self.prompts.ids[prompt].clone()),
            };
            Frame::data(&self.document(vec![choice], self.usage.always.then(|| self.usage(0))))
        };
        (0..self.prompts.ids.len() * self.samples).map(first).collect()
    }

    fn step(&mut self, step: Step) -> Result<Vec<Frame>, ApiError> {
        let Step::Piece(mut piece) = step else { return Ok(Vec::new()) };
        self.new_tokens += piece.tokens.len();
        if self.only_prompt {
            let finish = piece.finish;
            piece = Piece { choice: piece.choice, finish, ..Piece::default() };
        }
        if piece.text.is_empty() && piece.finish.is_none() && !self.logprobs && !self.ids {
            return Ok(Vec::new());
        }
        let choice = CompletionChoice {
            index: piece.choice,
            logprobs: self.logprobs(piece.choice, &piece.logprobs),
            text: piece.text,
            finish_reason: finish_reason(piece.finish),
            token_ids: self.ids.then_some(piece.tokens),
            prompt_token_ids: None,
        };
        let usage = self.usage.always.then(|| self.usage(self.new_tokens));
        Ok(vec![Frame::data(&self.document(vec![choice], usage))])
    }

    fn end(&mut self, new_tokens: usize) -> Vec<Frame> {
        let usage =
            self.usage.last.then(|| Frame::data(&self.document(Vec::new(), Some(self.usage(new_tokens)))));
        usage.into_iter().chain([Frame::done()]).collect()
    }
}
