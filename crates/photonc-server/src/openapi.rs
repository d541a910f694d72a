//! `/openapi.json`: every route, body and answer, derived from their definitions.

use super::answer::ok;
use super::error::ErrorResponse;
use super::v2::error::ProtocolError;
use super::{ServerState, admin, chat, completions, generate, info, responses, tokens, trajectories, v2};
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{SecurityRequirement, ServerBuilder};
use utoipa::{IntoResponses, OpenApi};

/// Errors that every endpoint may answer with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is read by a macro only")]
pub enum Refusals {
    /// The request cannot be met: `param` says what of it.
    #[response(status = 400)]
    BadRequest(#[to_schema] ErrorResponse),
    /// The key is missing or wrong.
    #[response(status = 401)]
    Unauthorized(#[to_schema] ErrorResponse),
    /// It may not be asked from there.
    #[response(status = 403)]
    Forbidden(#[to_schema] ErrorResponse),
    /// There is no such thing.
    #[response(status = 404)]
    NotFound(#[to_schema] ErrorResponse),
    /// The route has no such method.
    #[response(status = 405)]
    NoMethod(#[to_schema] ErrorResponse),
    /// The request did not come in time.
    #[response(status = 408)]
    TooSlow(#[to_schema] ErrorResponse),
    /// It is being done already.
    #[response(status = 409)]
    Conflict(#[to_schema] ErrorResponse),
    /// The body is too long.
    #[response(status = 413)]
    TooLarge(#[to_schema] ErrorResponse),
    /// The body is said to be no JSON.
    #[response(status = 415)]
    MediaType(#[to_schema] ErrorResponse),
    /// A value is of another type than its parameter.
    #[response(status = 422)]
    Unprocessable(#[to_schema] ErrorResponse),
    /// Too much is asked for at once; `Retry-After` says when to come again.
    #[response(status = 429)]
    TooMany(#[to_schema] ErrorResponse),
    /// The server is to blame.
    #[response(status = 500)]
    Internal(#[to_schema] ErrorResponse),
    /// The backend cannot do it.
    #[response(status = 501)]
    NotHere(#[to_schema] ErrorResponse),
    /// The model is being loaded, or the server shuts down.
    #[response(status = 503)]
    Unavailable(#[to_schema] ErrorResponse),
    /// It took longer than the server allows.
    #[response(status = 504)]
    TooLong(#[to_schema] ErrorResponse),
}

#[derive(OpenApi)]
#[openapi(
    info(title = "photonc", description = "OpenAI's interfaces and KServe's protocol over PHOTON models, and what only they have"),
    paths(
        completions::completions, chat::chat, responses::responses, generate::generate, trajectories::create,
        trajectories::show, trajectories::remove, trajectories::expand, info::models, info::model,
        tokens::tokenize, tokens::detokenize, tokens::tokenizer_info, info::health, info::ready, info::version,
        info::metrics, admin::load, v2::info::server, v2::info::live, v2::info::ready, v2::info::model,
        v2::info::model_ready, v2::infer::infer, v2::generate::generate, v2::generate::generate_stream,
    ),
    components(schemas(ErrorResponse, ProtocolError)),
    tags(
        (name = "openai", description = "As OpenAI has it"), (name = "photonc", description = "Ours"),
        (name = "kserve", description = "KServe's Open Inference Protocol, version 2, and its generate extension"),
        (name = "tokens", description = "Text to tokens and back"), (name = "operation", description = "For those who run it"),
    )
)]
struct Api;

/// The document.
pub async fn document(State(state): State<Arc<ServerState>>) -> Response {
    let mut api = Api::openapi();
    let root = &state.options.root_path;
    api.servers = Some(vec![ServerBuilder::new().url(if root.is_empty() { "/" } else { root }).build()]);
    if !state.options.api_keys.is_empty() {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        api.components.get_or_insert_default().add_security_scheme("key", scheme);
        api.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>("key", [])]);
    }
    ok(&api)
}
