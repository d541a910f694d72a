//! Errors in the protocol's form, `{"error": TEXT}`. Owns how the parameter that is to blame gets into the text; which errors
//! there are is [`crate::error`]'s.

use crate::ServerState;
use crate::answer::json;
use crate::error::ApiError;
use crate::openapi::Refusals;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::openapi::{Ref, RefOr, Response as Described};
use utoipa::{IntoResponses, ToSchema};

/// An error, as the body of an answer and as an event of a stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProtocolError {
    /// What went wrong, with the name of the parameter that is to blame.
    error: String,
}

impl From<&ApiError> for ProtocolError {
    fn from(error: &ApiError) -> Self {
        let told = error.response().error;
        let error = match told.param {
            Some(param) if !told.message.contains(&param) => format!("`{param}`: {}", told.message),
            _ => told.message,
        };
        ProtocolError { error }
    }
}

/// Gives errors of paths below `/v2` the protocol's form, wherever they come from: handlers, routing, keys that are missing.
pub async fn in_form(State(state): State<Arc<ServerState>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let path = path.strip_prefix(state.options.root_path.as_str()).unwrap_or(path);
    let own = path == "/v2" || path.starts_with("/v2/");
    let mut response = next.run(request).await;
    let Some(error) = response.extensions_mut().remove::<ApiError>().filter(|_| own) else { return response };
    let body = json(error.status, &ProtocolError::from(&error)).into_body();
    // The length of the body that it replaces.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = body;
    response
}

/// Errors that every endpoint of the protocol may answer with: those of the others, in another form.
pub struct ProtocolRefusals;

impl IntoResponses for ProtocolRefusals {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let mut all = Refusals::responses();
        for described in all.values_mut() {
            if let RefOr::T(described) = described {
                for content in described.content.values_mut() {
                    content.schema = Some(Ref::from_schema_name(ProtocolError::name()).into());
                }
            }
        }
        all
    }
}
