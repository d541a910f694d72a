//! What the protocol lets a server say of itself and its models, and the probes of a cluster. Owns what `live` and `ready` mean;
//! how a server is says [`crate::info`].

use super::error::ProtocolRefusals;
use super::tensors::{TensorMetadata, described};
use crate::ServerState;
use crate::answer::{json, ok};
use crate::error::ApiError;
use crate::info::health_of;
use crate::lifecycle::Phase;
use crate::named::Named;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// What runs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ServerMetadata {
    /// `photonc`
    name: &'static str,
    version: &'static str,
    /// What it does beyond the protocol.
    extensions: Vec<&'static str>,
}

/// Whether a server lives.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct ServerLive {
    live: bool,
}

/// Whether a server takes requests.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct ServerReady {
    ready: bool,
}

/// Whether a model takes requests.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelReady {
    name: String,
    ready: bool,
}

/// A model and its tensors.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelMetadata {
    name: String,
    /// `photonc`
    platform: &'static str,
    /// A request has one of them.
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

/// 200 where it is so, else 503.
fn status_of(so: bool) -> StatusCode {
    if so { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// What runs.
#[utoipa::path(get, path = "/v2", tag = "kserve", operation_id = "v2_server", responses(
    (status = 200, description = "The server", body = ServerMetadata),
))]
pub async fn server() -> Response {
    ok(&ServerMetadata { name: "photonc", version: env!("CARGO_PKG_VERSION"), extensions: vec!["generate"] })
}

/// Whether the server lives: also while it loads and while it drains.
#[utoipa::path(get, path = "/v2/health/live", tag = "kserve", operation_id = "v2_live", responses(
    (status = 200, description = "It lives", body = ServerLive),
    (status = 503, description = "An engine has failed", body = ServerLive),
))]
pub async fn live(State(state): State<Arc<ServerState>>) -> Response {
    let live = state.lifecycle.failure().is_none();
    json(status_of(live), &ServerLive { live })
}

/// Whether the server takes requests for every model.
#[utoipa::path(get, path = "/v2/health/ready", tag = "kserve", operation_id = "v2_ready", responses(
    (status = 200, description = "Ready", body = ServerReady),
    (status = 503, description = "Not ready", body = ServerReady),
))]
pub async fn ready(State(state): State<Arc<ServerState>>) -> Response {
    let (status, _) = health_of(&state);
    json(status, &ServerReady { ready: status == StatusCode::OK })
}

/// A model and its tensors.
#[utoipa::path(get, path = "/v2/models/{model}", tag = "kserve", operation_id = "v2_model",
    params(("model" = String, Path)), responses(
    (status = 200, description = "The model", body = ModelMetadata), ProtocolRefusals,
))]
pub async fn model(State(state): State<Arc<ServerState>>, Named(name): Named) -> Result<Response, ApiError> {
    let engine = state.models.get(Some(&name))?;
    let [inputs, outputs] = described(engine.language.tokenizer().is_ok());
    Ok(ok(&ModelMetadata { name, platform: "photonc", inputs, outputs }))
}

/// Whether a model takes requests. Where it does not, the answer says so with 503.
#[utoipa::path(get, path = "/v2/models/{model}/ready", tag = "kserve", operation_id = "v2_model_ready",
    params(("model" = String, Path)), responses(
    (status = 200, description = "It is ready", body = ModelReady), ProtocolRefusals,
))]
pub async fn model_ready(
    State(state): State<Arc<ServerState>>,
    Named(name): Named,
) -> Result<Response, ApiError> {
    state.models.get(Some(&name))?;
    if state.lifecycle.phase() != Phase::Serving || state.lifecycle.failure().is_some() {
        return Err(ApiError::unavailable("draining", format!("`{name}` takes nothing more")));
    }
    Ok(ok(&ModelReady { name, ready: true }))
}

/// Refuses versions, of which the protocol lets a server have none.
pub async fn version(request: Request) -> ApiError {
    let message =
        format!("models have no versions here: leave `/versions/..` out of `{}`", request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, "no_versions", message)
}
