//! `/v1/trajectories`: a coarse trajectory kept under a name, and any range of it expanded again with another seed or other
//! sampling. RecGen's states read no token, so what follows a range stays as likely as it was.

use super::ServerState;
use super::answer::{json, ok, unix_seconds};
use super::body::Json;
use super::engine::Engine;
use super::error::ApiError;
use super::fields::{Common, generating_body};
use super::flow::finish_reason;
use super::named::Named;
use super::openapi::Refusals;
use super::prompt::Prompt;
use super::told::Usage;
use super::trajectory_store::{Kept, TrajectoryStore, Worker, missing, not_here};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use photonc_runtime::request::{Batch, Cancel, Keep, Request};
use photonc_runtime::sampler::Sampling;
use photonc_text::speech::Speech;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

generating_body! {
    /// A trajectory that is asked for.
    TrajectoryBody {
        /// One prompt: a text or token ids.
        prompt: Prompt,
        /// New tokens, at most [default: 64].
        #[schema(minimum = 1)]
        max_tokens: Option<u32>,
    }
}

/// A range to expand again. What is left out is as it was when the trajectory was made; the seed is another.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpandBody {
    /// First meta-context [default: 0].
    from: Option<u32>,
    /// The one behind the last [default: all].
    to: Option<u32>,
    /// Number of the sample: part of the random numbers' key [default: 0].
    sample: Option<u32>,
    /// Key of the random numbers.
    seed: Option<i64>,
    /// Divides the logits; 0 is greedy.
    #[schema(minimum = 0.0)]
    temperature: Option<f64>,
    /// Keeps the most probable tokens that reach this mass.
    #[schema(minimum = 0.0, maximum = 1.0)]
    top_p: Option<f64>,
    /// Keeps so many of the most probable tokens; 0 or -1 keeps all.
    #[schema(minimum = -1)]
    top_k: Option<i64>,
    /// Keeps tokens at least this probable relative to the most probable one.
    #[schema(minimum = 0.0, maximum = 1.0)]
    min_p: Option<f64>,
}

/// A trajectory.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TrajectoryCard {
    id: String,
    /// `trajectory`
    object: &'static str,
    model: String,
    /// Meta-contexts that are kept.
    meta_contexts: usize,
    /// Tokens of a meta-context.
    meta_tokens: usize,
    /// Position of the first meta-context's first token, prompt included.
    first_position: usize,
    /// Seconds since 1970 until which it is kept, unless it is used.
    expires_at: u64,
    /// What was drawn, when it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    drawn: Option<Drawn>,
}

/// What was drawn behind the prompt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Drawn {
    token_ids: Vec<i64>,
    /// Their text, where the model has a tokenizer.
    text: Option<String>,
    /// `stop` or `length`
    finish_reason: Option<&'static str>,
    usage: Usage,
}

/// A range that was expanded again.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Expanded {
    id: String,
    meta_contexts: Vec<ExpandedMeta>,
}

/// One meta-context.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExpandedMeta {
    index: usize,
    /// Position of its first token, prompt included.
    position: usize,
    token_ids: Vec<i64>,
    /// Their text, where the model has a tokenizer.
    text: Option<String>,
}

/// Meta-contexts that one request expands at most.
const MAX_EXPANDED: usize = 256;

fn text_of(engine: &Engine, tokens: &[i64]) -> Result<Option<String>, ApiError> {
    engine.language.tokenizer().is_ok().then(|| engine.language.decode(tokens)).transpose()
}

/// Generate and keep the coarse trajectory.
#[utoipa::path(post, path = "/v1/trajectories", request_body = TrajectoryBody, tag = "photonc", responses(
    (status = 201, description = "It is kept", body = TrajectoryCard), Refusals,
))]
pub async fn create(
    State(state): State<Arc<ServerState>>,
    Json(body): Json<TrajectoryBody>,
) -> Result<Response, ApiError> {
    let engine = state.models.get(body.model.as_deref())?;
    let _under_way = state.lifecycle.enter()?;
    if body.stream == Some(true) {
        return Err(ApiError::unsupported("stream", "trajectories are not streamed"));
    }
    let mut prompts = tokio::task::block_in_place(|| body.prompt.read(&engine, true, false, 1))?.ids;
    let (Some(prompt), true) = (prompts.pop(), prompts.is_empty()) else {
        return Err(ApiError::value("prompt", "expected one prompt"));
    };
    let prompt_tokens = prompt.len();
    let most = state.options.limits.prompt_tokens.unwrap_or(usize::MAX);
    if prompt_tokens > most {
        return Err(ApiError::value(
            "prompt",
            format!("the prompt has {prompt_tokens} tokens, expected {most} at most"),
        ));
    }
    let max_new_tokens = body.max_tokens.unwrap_or(64) as usize;
    if prompt_tokens + max_new_tokens > engine.max_tokens {
        let message =
            format!("{prompt_tokens} tokens and {max_new_tokens} new ones exceed {}", engine.max_tokens);
        return Err(ApiError::value("max_tokens", message).coded("context_length_exceeded"));
    }
    let asked = body.common().asked(&engine, &state.options.limits)?;
    if body.protocol.is_some() && !asked.request.protocol.may_run_ahead() {
        let message =
            format!("`{}` has no coarse trajectory: its states read the tokens", asked.request.protocol);
        return Err(ApiError::value("protocol", message));
    }
    let cancel = Cancel::default();
    let gone = CancelOnDrop(cancel.clone());
    let keep = Keep { trajectory: true, ..Keep::default() };
    let request = Request { prompt, max_new_tokens, keep, cancel: cancel.clone(), ..asked.request };
    let id = state.trajectories.reserve(&engine.name)?;
    let own = id.clone();
    let made =
        TrajectoryStore::work(&state, &engine, move |worker| made(worker, &own, request, &cancel)).await;
    drop(gone);
    let (trajectory, sequence) = made.inspect_err(|_| state.trajectories.release(&id))?;
    let (meta_contexts, first_position) = trajectory;
    let tokenizer = engine.language.tokenizer().ok();
    let text = tokenizer.map(|tokenizer| Speech::of(tokenizer, &asked.stops, &sequence.tokens));
    let drawn = Drawn {
        text: text.transpose().map_err(|error| ApiError::of_text(&error, "tokens"))?,
        finish_reason: finish_reason(Some(sequence.finish)),
        usage: Usage::of(prompt_tokens, sequence.tokens.len()),
        token_ids: sequence.tokens,
    };
    let card = card(&state, &engine, &id, (meta_contexts, first_position), Some(drawn));
    Ok(json(StatusCode::CREATED, &card))
}

/// Ends a generation whose client has gone.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

type Made = ((usize, usize), photonc_runtime::request::Sequence);

fn made(worker: &mut Worker, id: &str, request: Request, cancel: &Cancel) -> Result<Made, ApiError> {
    let sampling = request.sampling;
    let mut generation = worker.generator.generate(&Batch::new(vec![request]), &mut |_| {}, cancel)?;
    let sequence = generation.sequences.pop().ok_or_else(|| ApiError::internal("nothing was generated"))?;
    let Some(trajectory) = generation.trajectories.pop().flatten() else {
        return Err(not_here("this protocol has no coarse trajectory: its states read the tokens"));
    };
    let told = (trajectory.meta_contexts(), trajectory.encoded_tokens());
    worker.kept.insert(id.to_owned(), Kept { trajectory, sampling });
    Ok((told, sequence))
}

fn card(
    state: &ServerState,
    engine: &Engine,
    id: &str,
    (meta_contexts, first_position): (usize, usize),
    drawn: Option<Drawn>,
) -> TrajectoryCard {
    TrajectoryCard {
        id: id.to_owned(),
        object: "trajectory",
        model: engine.name.clone(),
        meta_contexts,
        meta_tokens: engine.program.meta_tokens,
        first_position,
        expires_at: unix_seconds() + state.trajectories.ttl().as_secs(),
        drawn,
    }
}

fn kept<'w>(worker: &'w Worker, id: &str) -> Result<&'w Kept, ApiError> {
    worker.kept.get(id).ok_or_else(|| missing(id))
}

/// A trajectory that is kept.
#[utoipa::path(get, path = "/v1/trajectories/{id}", tag = "photonc", params(("id" = String, Path)), responses(
    (status = 200, description = "The trajectory", body = TrajectoryCard), Refusals,
))]
pub async fn show(State(state): State<Arc<ServerState>>, Named(id): Named) -> Result<Response, ApiError> {
    let owner = state.trajectories.touch(&id)?;
    let engine = state.models.get(Some(&owner.model))?;
    let own = id.clone();
    let told = TrajectoryStore::work(&state, &engine, move |worker| {
        let trajectory = &kept(worker, &own)?.trajectory;
        Ok((trajectory.meta_contexts(), trajectory.encoded_tokens()))
    });
    Ok(ok(&card(&state, &engine, &id, told.await?, None)))
}

/// Forget a trajectory.
#[utoipa::path(delete, path = "/v1/trajectories/{id}", tag = "photonc", params(("id" = String, Path)), responses(
    (status = 204, description = "It is forgotten"), Refusals,
))]
pub async fn remove(State(state): State<Arc<ServerState>>, Named(id): Named) -> Result<StatusCode, ApiError> {
    state.trajectories.touch(&id)?;
    state.trajectories.release(&id);
    Ok(StatusCode::NO_CONTENT)
}

/// Draw the tokens of a range again.
#[utoipa::path(post, path = "/v1/trajectories/{id}/expand", request_body = ExpandBody, tag = "photonc",
    params(("id" = String, Path)), responses(
    (status = 200, description = "The tokens of each meta-context", body = Expanded), Refusals,
))]
pub async fn expand(
    State(state): State<Arc<ServerState>>,
    Named(id): Named,
    Json(body): Json<ExpandBody>,
) -> Result<Response, ApiError> {
    let owner = state.trajectories.touch(&id)?;
    let engine = state.models.get(Some(&owner.model))?;
    let _under_way = state.lifecycle.enter()?;
    let own = id.clone();
    let meta_tokens = engine.program.meta_tokens;
    let drawn =
        TrajectoryStore::work(&state, &engine, move |worker| body.drawn(worker, &own, meta_tokens)).await?;
    let meta_contexts = drawn.into_iter().map(|(index, position, token_ids)| {
        let text = text_of(&engine, &token_ids)?;
        Ok(ExpandedMeta { index, position, token_ids, text })
    });
    Ok(ok(&Expanded { id, meta_contexts: meta_contexts.collect::<Result<_, ApiError>>()? }))
}

impl ExpandBody {
    fn drawn(
        &self,
        worker: &mut Worker,
        id: &str,
        meta_tokens: usize,
    ) -> Result<Vec<(usize, usize, Vec<i64>)>, ApiError> {
        let Worker { generator, kept } = worker;
        let Kept { trajectory, sampling } = kept.get(id).ok_or_else(|| missing(id))?;
        let all = trajectory.meta_contexts();
        let (from, to) = (self.from.unwrap_or(0) as usize, self.to.map_or(all, |to| to as usize));
        if from >= to || to > all {
            let message = format!("meta-contexts {from} to {to} are asked for, and there are {all}");
            return Err(ApiError::value(if to > all { "to" } else { "from" }, message));
        }
        if to - from > MAX_EXPANDED {
            let message =
                format!("{} meta-contexts are asked for, expected {MAX_EXPANDED} at most", to - from);
            return Err(ApiError::value("to", message));
        }
        let sampling = self.sampling(*sampling)?;
        let sample = u64::from(self.sample.unwrap_or(0));
        let drawn = (from..to).map(|meta| {
            let tokens = generator.expand_again(trajectory, meta, sample, &sampling)?;
            Ok((meta, trajectory.encoded_tokens() + meta * meta_tokens, tokens))
        });
        drawn.collect()
    }

    fn sampling(&self, before: Sampling) -> Result<Sampling, ApiError> {
        let common = Common {
            temperature: self.temperature.or(Some(before.temperature)),
            top_p: self.top_p.or(Some(before.top_p)),
            top_k: self.top_k.or(i64::try_from(before.top_k).ok()),
            min_p: self.min_p.or(Some(before.min_p)),
            seed: self.seed,
            ..Common::default()
        };
        common.sampling()
    }
}
