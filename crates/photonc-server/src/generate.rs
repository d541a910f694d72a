//! `POST /v1/generate`: token ids in, token ids out, nothing between. Owns the body, the answer, and the events of a stream.

use super::ServerState;
use super::answer::{name, ok};
use super::body::Json;
use super::engine::Engine;
use super::error::ApiError;
use super::fields::generating_body;
use super::flow::{Step, Whole, finish_reason};
use super::generation::{Wishes, answered};
use super::openapi::Refusals;
use super::stream::{Frame, Telling};
use super::told::Usage;
use axum::extract::State;
use axum::response::Response;
use photonc_runtime::logprobs::TokenLogprobs;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

generating_body! {
    /// Tokens that are asked for.
    GenerateBody {
        /// Ids of the prompt's tokens; may be empty.
        token_ids: Vec<i64>,
        /// New tokens, at most [default: 16].
        #[schema(minimum = 1)]
        max_tokens: Option<u32>,
        /// Sequences [default: 1].
        #[schema(minimum = 1)]
        n: Option<u32>,
        /// Log-probabilities of new tokens and of so many others, 20 at most.
        #[schema(maximum = 20)]
        logprobs: Option<u32>,
        /// The same of the prompt's tokens; not in streams.
        #[schema(maximum = 20)]
        prompt_logprobs: Option<u32>,
        /// Tokens of the prompt that are prompt: those behind them were generated, and the generation goes on.
        prompt_length: Option<u32>,
    }
}

/// Tokens.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Generated {
    id: String,
    model: String,
    outputs: Vec<GeneratedSequence>,
    /// Log-probabilities of the prompt's tokens, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<Vec<GeneratedLogprob>>,
    usage: Usage,
}

/// A sequence, or what is new of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GeneratedSequence {
    index: usize,
    token_ids: Vec<i64>,
    /// Log-probabilities of the tokens, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<GeneratedLogprob>>,
    /// `stop` or `length`, with the last of it.
    finish_reason: Option<&'static str>,
}

/// Log-probabilities at a place.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GeneratedLogprob {
    token_id: i64,
    logprob: f64,
    /// Tokens more probable than it, plus one.
    rank: usize,
    /// The most probable tokens, best first.
    top: Vec<ProbableToken>,
}

/// A token that was probable.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProbableToken {
    token_id: i64,
    logprob: f64,
}

fn told(logprobs: &[TokenLogprobs]) -> Vec<GeneratedLogprob> {
    let one = |one: &TokenLogprobs| GeneratedLogprob {
        token_id: one.token,
        logprob: one.logprob,
        rank: one.rank,
        top: one
            .top
            .iter()
            .map(|(token_id, logprob)| ProbableToken { token_id: *token_id, logprob: *logprob })
            .collect(),
    };
    logprobs.iter().map(one).collect()
}

/// What a stream is made with.
struct Listing {
    id: String,
    engine: Arc<Engine>,
    logprobs: bool,
    prompt_tokens: usize,
}

/// The last event before the end.
#[derive(Serialize)]
struct Last<'t> {
    id: &'t str,
    model: &'t str,
    usage: Usage,
}

/// Write on behind tokens.
#[utoipa::path(post, path = "/v1/generate", request_body = GenerateBody, tag = "photonc", responses(
    (status = 200, description = "The tokens; with `stream`, an event for each part of a sequence", content(
        (Generated = "application/json"), (String = "text/event-stream"))),
    Refusals,
))]
pub async fn generate(
    State(state): State<Arc<ServerState>>,
    Json(body): Json<GenerateBody>,
) -> Result<Response, ApiError> {
    let engine = state.models.get(body.model.as_deref())?;
    let stream = body.stream == Some(true);
    if stream && body.prompt_logprobs.is_some() {
        return Err(ApiError::unsupported("prompt_logprobs", "`prompt_logprobs` are not streamed"));
    }
    let count = |count: Option<u32>| count.map(|count| count as usize);
    let wishes = Wishes {
        prompts: vec![body.token_ids.clone()],
        prompt_length: count(body.prompt_length),
        max_tokens: Some(body.max_tokens.unwrap_or(16) as usize),
        samples: body.n.unwrap_or(1) as usize,
        logprobs: count(body.logprobs),
        prompt_logprobs: count(body.prompt_logprobs),
        only_prompt: false,
        text: false,
        stream,
        // Of more than may be the larger is refused.
        names: match body.prompt_logprobs > body.logprobs {
            true => &[("prompt", "token_ids"), ("logprobs", "prompt_logprobs")],
            false => &[("prompt", "token_ids")],
        },
    };
    let listing = Listing {
        id: name("gen"),
        engine: Arc::clone(&engine),
        logprobs: body.logprobs.is_some(),
        prompt_tokens: body.token_ids.len(),
    };
    answered(&state, &engine, &body.common(), &wishes, listing).await
}

impl Telling for Listing {
    fn whole(self, wholes: Vec<Whole>, new_tokens: usize) -> Response {
        let prompt_logprobs = wholes.first().and_then(|whole| whole.prompt_logprobs.as_deref()).map(told);
        let output = |(index, Whole { piece, .. }): (usize, Whole)| GeneratedSequence {
            index,
            logprobs: self.logprobs.then(|| told(&piece.logprobs)),
            token_ids: piece.tokens,
            finish_reason: finish_reason(piece.finish),
        };
        let outputs = wholes.into_iter().enumerate().map(output).collect();
        let usage = Usage::of(self.prompt_tokens, new_tokens);
        let model = self.engine.name.clone();
        ok(&Generated { id: self.id, model, outputs, prompt_logprobs, usage })
    }

    fn begin(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    fn step(&mut self, step: Step) -> Result<Vec<Frame>, ApiError> {
        let Step::Piece(piece) = step else { return Ok(Vec::new()) };
        Ok(vec![Frame::data(&GeneratedSequence {
            index: piece.choice,
            logprobs: self.logprobs.then(|| told(&piece.logprobs)),
            token_ids: piece.tokens,
            finish_reason: finish_reason(piece.finish),
        })])
    }

    fn end(&mut self, new_tokens: usize) -> Vec<Frame> {
        let usage = Usage::of(self.prompt_tokens, new_tokens);
        let last = Last { id: &self.id, model: &self.engine.name, usage };
        vec![Frame::data(&last), Frame::done()]
    }
}
