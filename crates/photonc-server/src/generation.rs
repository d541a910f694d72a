//! From what a client asked to tokens on their way: what all generating endpoints do between their bodies and their answers.
//! Owns the checks of prompts and counts, and the room that a request has.

use super::engine::Engine;
use super::error::ApiError;
use super::fields::{Asked, Common, check_id};
use super::flow::{Flow, Voice, collect};
use super::lifecycle::UnderWay;
use super::options::StreamInterval;
use super::stream::{self, Telling};
use super::{ServerState, StreamPermit};
use axum::response::Response;
use photonc_runtime::request::Request;
use std::sync::Arc;

/// What an endpoint asks for beside the common parameters.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Token ids of each prompt.
    pub prompts: Vec<Vec<i64>>,
    /// Tokens of the prompt that are prompt, where a generation goes on.
    pub prompt_length: Option<usize>,
    /// New tokens of a sequence; `None` is all that there is room for.
    pub max_tokens: Option<usize>,
    /// Sequences of a prompt.
    pub samples: usize,
    /// Log-probabilities of new tokens, with so many others.
    pub logprobs: Option<usize>,
    /// The same of the prompt's tokens.
    pub prompt_logprobs: Option<usize>,
    /// Whether only the prompt's own log-probabilities are wanted, and no new token.
    pub only_prompt: bool,
    /// Whether text is made of tokens.
    pub text: bool,
    /// Whether it is streamed.
    pub stream: bool,
    /// What the endpoint calls parameters that have another name here.
    pub names: &'static [(&'static str, &'static str)],
}

/// Generates what was asked for and answers with it: in events where it is to be streamed.
///
/// # Errors
/// It cannot be met, or not now; behind the first event errors are events.
pub async fn answered(
    state: &ServerState,
    engine: &Engine,
    common: &Common,
    wishes: &Wishes,
    telling: impl Telling,
) -> Result<Response, ApiError> {
    let permit = wishes.stream.then(|| stream_permit(state)).transpose()?;
    let begun = begin(state, engine, common, wishes).map_err(|error| error.renamed(wishes.names));
    let (flow, under_way) = begun?;
    if let Some(permit) = permit {
        return Ok(stream::answer(state, flow, telling, (under_way, permit)));
    }
    let (wholes, new_tokens) = collect(flow).await?;
    let response = telling.whole(wholes, new_tokens);
    drop(under_way);
    Ok(response)
}

/// Puts what was asked for into the queue: what comes of it, and what a drain waits for.
fn begin(
    state: &ServerState,
    engine: &Engine,
    common: &Common,
    wishes: &Wishes,
) -> Result<(Flow, UnderWay), ApiError> {
    let under_way = state.lifecycle.enter()?;
    let limits = &state.options.limits;
    let samples = wishes.samples;
    check_sequences(wishes.prompts.len(), samples, limits.sequences)?;
    let asked = common.asked(engine, limits)?;
    let mut requests = Vec::new();
    for (at, prompt) in wishes.prompts.iter().enumerate() {
        check_prompt(engine, limits.prompt_tokens, prompt)?;
        requests.push(request(engine, &asked, wishes, (at, prompt))?);
    }
    let voice = Voice {
        tokenizer: if wishes.text { engine.language.tokenizer().ok().map(Arc::clone) } else { None },
        stops: asked.stops,
    };
    let interval = if wishes.stream { state.options.streams.interval } else { StreamInterval::Burst };
    let submitted = engine.submit(requests).inspect_err(|error| {
        if error.status == axum::http::StatusCode::TOO_MANY_REQUESTS {
            state.metrics.refused.inc();
        }
    });
    Ok((Flow::new(submitted?, [wishes.prompts.len(), samples], &voice, interval), under_way))
}

/// Refuses a request of more sequences than there may be, `most`: before anything is made for each of them.
///
/// # Errors
/// `n` is 0, or too large for so many prompts.
pub fn check_sequences(prompts: usize, samples: usize, most: usize) -> Result<(), ApiError> {
    if samples == 0 || prompts.saturating_mul(samples) > most {
        let message = format!("{prompts} prompts times n = {samples}, expected 1 to {most} sequences");
        return Err(ApiError::value("n", message));
    }
    Ok(())
}

fn check_prompt(engine: &Engine, most: Option<usize>, prompt: &[i64]) -> Result<(), ApiError> {
    if let Some(most) = most.filter(|most| prompt.len() > *most) {
        let message = format!("the prompt has {} tokens, and this server takes {most} at most", prompt.len());
        return Err(ApiError::value("prompt", message));
    }
    prompt.iter().try_for_each(|id| check_id("prompt", *id, engine.program.vocab_size))
}

fn request(
    engine: &Engine,
    asked: &Asked,
    wishes: &Wishes,
    (at, prompt): (usize, &Vec<i64>),
) -> Result<Request, ApiError> {
    let (mut prompt, mut forced) = (prompt.clone(), Vec::new());
    if wishes.only_prompt && prompt.len() == engine.max_tokens {
        // No room is left behind the prompt, so its last token is what comes next.
        forced.extend(prompt.pop());
    }
    let room = engine.max_tokens.saturating_sub(prompt.len());
    let mut request = Request {
        logprobs: if forced.is_empty() { wishes.logprobs } else { wishes.prompt_logprobs },
        forced,
        prompt: std::mem::take(&mut prompt),
        prompt_length: wishes.prompt_length,
        samples: wishes.samples,
        max_new_tokens: wishes.max_tokens.unwrap_or(room),
        prompt_logprobs: wishes.prompt_logprobs,
        ..asked.request.clone()
    };
    let made = request.prompt_length.map_or(0, |length| request.prompt.len().saturating_sub(length));
    let (least, most) = (request.min_new_tokens, made + request.max_new_tokens);
    if least > most {
        let message = format!("min_tokens is {least}, and there will be {most} behind the prompt");
        return Err(ApiError::value("min_tokens", message));
    }
    if !asked.seeded {
        request.sampling.seed = request.sampling.seed.wrapping_add(at as u64);
    }
    if request.max_new_tokens > room || room == 0 {
        let (tokens, most) = (request.prompt.len(), engine.max_tokens);
        let new = wishes.max_tokens.map_or_else(|| "one".to_owned(), |new| new.to_string());
        let message = format!("{tokens} tokens and {new} new ones exceed the model's {most}");
        let param = if room == 0 { "prompt" } else { "max_tokens" };
        return Err(ApiError::value(param, message).coded("context_length_exceeded"));
    }
    Ok(request)
}

/// Room for a stream, unless as many are open as may be.
fn stream_permit(state: &ServerState) -> Result<StreamPermit, ApiError> {
    Arc::clone(&state.stream_permits).try_acquire_owned().map_err(|_| {
        let most = state.options.limits.streams;
        ApiError::too_many("too_many_streams", format!("{most} streams are open already"))
    })
}
