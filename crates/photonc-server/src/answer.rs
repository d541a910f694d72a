//! Answers that are one JSON document, and names of what is answered.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A JSON document with a status.
#[must_use]
pub fn json(status: StatusCode, document: &impl Serialize) -> Response {
    let (status, text) = match serde_json::to_vec(document) {
        Ok(text) => (status, text),
        // Numbers that JSON has not are `null`, so that nothing is left that could fail.
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, b"{\"error\": null}".to_vec()),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A JSON document.
#[must_use]
pub fn ok(document: &impl Serialize) -> Response {
    json(StatusCode::OK, document)
}

/// A number that nobody can foresee and that does not come again.
#[must_use]
pub fn random_number() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    hasher.finish()
}

/// A name that does not come again: `cmpl-1f00...`.
#[must_use]
pub fn name(kind: &str) -> String {
    format!("{kind}-{:016x}{:016x}", random_number(), random_number())
}

/// Seconds since 1970.
#[must_use]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
