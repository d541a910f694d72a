//! What a server says of itself: its models, its health, its version, its counters.

use super::ServerState;
use super::answer::{json, ok};
use super::error::ApiError;
use super::lifecycle::Phase;
use super::models::ModelStatus;
use super::named::Named;
use super::openapi::Refusals;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A list of models.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// `list`
    object: &'static str,
    data: Vec<ModelCard>,
}

/// A model.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelCard {
    id: String,
    /// `model`
    object: &'static str,
    /// Seconds since 1970 when it was loaded.
    created: u64,
    /// `photonc`
    owned_by: &'static str,
    /// Most tokens of a sequence, prompt included.
    max_model_len: usize,
    /// Number of token ids.
    vocab_size: usize,
    /// Tokens of a meta-context.
    meta_tokens: usize,
    /// How states may advance.
    protocols: Vec<&'static str>,
    /// Whether there is a chat template.
    chat: bool,
}

/// How a server is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ready`, `loading`, `draining` or `failed`.
    status: &'static str,
    models: Vec<ModelStatus>,
    /// Requests under way.
    under_way: usize,
}

/// What runs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Version {
    /// Version of photonc.
    version: &'static str,
    /// Name of the backend.
    backend: &'static str,
}

/// The protocols of a model, first the one of requests that name none.
fn protocols(engine: &super::engine::Engine) -> Vec<&'static str> {
    let first = engine.language.first_protocol(&engine.program);
    let others = engine.program.protocols.keys().copied().filter(|other| Some(*other) != first);
    first.into_iter().chain(others).map(|protocol| protocol.name()).collect()
}

fn cards(state: &ServerState) -> Vec<ModelCard> {
    let card = |engine: Arc<super::engine::Engine>| ModelCard {
        id: engine.name.clone(),
        object: "model",
        created: engine.loaded_at,
        owned_by: "photonc",
        max_model_len: engine.max_tokens,
        vocab_size: engine.program.vocab_size,
        meta_tokens: engine.program.meta_tokens,
        protocols: protocols(&engine),
        chat: engine.language.chats(),
    };
    state.models.engines().into_iter().map(card).collect()
}

/// The models that are loaded.
#[utoipa::path(get, path = "/v1/models", tag = "openai", responses(
    (status = 200, description = "The models", body = ModelList), Refusals,
))]
pub async fn models(State(state): State<Arc<ServerState>>) -> Response {
    ok(&ModelList { object: "list", data: cards(&state) })
}

/// One of them.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "openai", params(("model" = String, Path)), responses(
    (status = 200, description = "The model", body = ModelCard), Refusals,
))]
pub async fn model(State(state): State<Arc<ServerState>>, Named(name): Named) -> Result<Response, ApiError> {
    state.models.get(Some(&name))?;
    let card = cards(&state).into_iter().find(|card| card.id == name);
    card.map(|card| ok(&card)).ok_or_else(|| ApiError::unavailable("loading", "the model is not loaded yet"))
}

/// How the server is, and the status that says so.
pub fn health_of(state: &ServerState) -> (StatusCode, Health) {
    let models = state.models.statuses();
    let all = |wanted: &str| models.iter().all(|model| model.status == wanted);
    let failed = state.lifecycle.failure().is_some() || models.iter().any(|model| model.status == "failed");
    let status = match state.lifecycle.phase() {
        _ if failed => "failed",
        Phase::Draining | Phase::Stopped => "draining",
        Phase::Serving if all("ready") => "ready",
        Phase::Serving => "loading",
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Health { status, models, under_way: state.lifecycle.under_way() })
}

/// How the server is: 200 once every model is loaded.
#[utoipa::path(get, path = "/health", tag = "operation", responses(
    (status = 200, description = "Ready", body = Health), (status = 503, description = "Not ready", body = Health),
))]
pub async fn health(State(state): State<Arc<ServerState>>) -> Response {
    let (code, health) = health_of(&state);
    json(code, &health)
}

/// Whether it takes requests.
#[utoipa::path(get, path = "/ready", tag = "operation", responses(
    (status = 200, description = "Ready", body = Health), (status = 503, description = "Not ready", body = Health),
))]
pub async fn ready(state: State<Arc<ServerState>>) -> Response {
    health(state).await
}

/// What runs.
#[utoipa::path(get, path = "/version", tag = "operation", responses(
    (status = 200, description = "The version", body = Version),
))]
pub async fn version(State(state): State<Arc<ServerState>>) -> Response {
    ok(&Version { version: env!("CARGO_PKG_VERSION"), backend: state.backends.name() })
}

/// Counters, as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", tag = "operation", responses(
    (status = 200, description = "The counters", body = String, content_type = "text/plain"),
))]
pub async fn metrics(State(state): State<Arc<ServerState>>) -> Result<Response, ApiError> {
    let text = state.metrics.text(&state.models.engines());
    let text = text.map_err(|error| ApiError::internal(error.to_string()))?;
    let mut response = Response::new(Body::from(text));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
