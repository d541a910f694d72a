//! What every request goes through: its id, the log, the count of answers, the key of the client. Owns who may ask what.

use super::ServerState;
use super::answer::name;
use super::error::ApiError;
use super::listen::Peer;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;
use std::time::Instant;

/// The header that names a request, in both directions.
pub const REQUEST_ID: &str = "x-request-id";

/// Longest name that is taken over from a client, in bytes.
const MAX_ID_BYTES: usize = 128;

/// Methods that the log and the counters name.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Routes that need no key: probes, counters and the page, which asks for the key itself.
const OPEN: [&str; 12] = [
    "/",
    "/app.js",
    "/style.css",
    "/favicon.ico",
    "/health",
    "/ready",
    "/metrics",
    "/version",
    "/openapi.json",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
];

/// Names the request and logs its answer.
pub async fn observed(State(state): State<Arc<ServerState>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let visible =
        |id: &&str| !id.is_empty() && id.len() <= MAX_ID_BYTES && id.bytes().all(|b| b.is_ascii_graphic());
    let id = given.filter(visible).map_or_else(|| name("req"), str::to_owned);
    // Of methods that nobody has defined there is no end, nor of paths that no route has.
    let method = request.method().as_str();
    let method = METHODS.iter().find(|known| **known == method).copied().unwrap_or("other");
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.to_string()).unwrap_or_default();
    let value = HeaderValue::from_str(&id).ok();
    if let Some(value) = &value {
        request.headers_mut().insert(REQUEST_ID, value.clone());
    }
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    state.metrics.answers.with_label_values(&[route.as_str(), method, status.to_string().as_str()]).inc();
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(request_id = id, method, route, status, seconds, peer, "answered");
    if let Some(value) = value {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Lets those in that have a key, where keys are asked for.
pub async fn let_in(State(state): State<Arc<ServerState>>, request: Request, next: Next) -> Response {
    let keys = &state.options.api_keys;
    let path = request.uri().path();
    let path = path.strip_prefix(state.options.root_path.as_str()).unwrap_or(path);
    let is_open = OPEN.contains(&path) || path.is_empty();
    if keys.is_empty() || is_open || has_key(request.headers(), keys) {
        return next.run(request).await;
    }
    let message = "the key is missing or wrong; send it as `Authorization: Bearer KEY`";
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message).into_response()
}

fn has_key(headers: &HeaderMap, keys: &[String]) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = given.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let named = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    let Some(given) = bearer.or(named) else { return false };
    // Hashes are compared in constant time, and all of them.
    let given = blake3::hash(given.as_bytes());
    keys.iter().fold(false, |found, key| found | (blake3::hash(key.as_bytes()) == given))
}

/// Lets only those change the server that have a key or, where none is asked for, are on this machine.
pub async fn changes(State(state): State<Arc<ServerState>>, request: Request, next: Next) -> Response {
    let here = request.extensions().get::<Peer>().is_some_and(|peer| peer.0.ip().is_loopback());
    if here || !state.options.api_keys.is_empty() {
        return next.run(request).await;
    }
    let message = "without --api-key only this machine may change the server";
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", message).into_response()
}
