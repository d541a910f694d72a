//! Bodies of requests: bounded in bytes and time, JSON, and every key known. Owns the errors of those that are not.

use super::ServerState;
use super::error::ApiError;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A body of JSON.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<ServerState>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<ServerState>) -> Result<Self, ApiError> {
        check_type(request.headers())?;
        let limits = &state.options.limits;
        let reading = read(request.into_body(), limits.body_bytes);
        let bytes = tokio::time::timeout(limits.read_timeout, reading).await.map_err(|_| {
            let seconds = limits.read_timeout.as_secs();
            let message = format!("the body did not come within {seconds} s");
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "read_timeout", message)
        })??;
        parse(&bytes).map(Json)
    }
}

/// A browser sends other pages' JSON only where the server has allowed it; anything else it sends without asking.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).and_then(|found| found.to_str().ok()).unwrap_or("none");
    let essence = found.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" {
        return Ok(());
    }
    let message = format!("the content type is {found}, expected application/json");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
}

/// The whole body, of `limit` bytes at most.
async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut pieces = body.into_data_stream();
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            let message = format!("the body did not come whole: {error}");
            ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", message)
        })?;
        if all.len() + piece.len() > limit {
            let message = format!("the body is longer than {limit} bytes");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

/// A document, or what is wrong with it and where.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut reader);
    let parsed = parsed.map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let message = inner.to_string();
        let quoted = |start: &str| message.strip_prefix(start)?.split('`').next().map(str::to_owned);
        if !inner.is_data() {
            let message = format!("the body is no JSON: {message}");
            return ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message);
        }
        if let Some(key) = quoted("unknown field `") {
            let param = if path == "." || path == key { key.clone() } else { path };
            return ApiError::unsupported(&param, format!("`{key}` is not known here; {message}"));
        }
        if let Some(key) = quoted("missing field `") {
            let message = format!("`{key}` is missing");
            return ApiError::new(StatusCode::BAD_REQUEST, "missing_parameter", message).of(&key);
        }
        let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_type", &message);
        if path == "." { error } else { error.of(&path) }
    })?;
    reader.end().map_err(|error| {
        let message = format!("the body is no JSON: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message)
    })?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        #[expect(dead_code, reason = "it is only read")]
        count: u32,
    }

    /// The parameter is named, whatever is wrong with it.
    #[test]
    fn errors_name_the_parameter() {
        let cases = [
            ("{\"count\": \"x\"}", 422, "count"),
            ("{\"count\": 1, \"best\": 2}", 400, "best"),
            ("{}", 400, "count"),
        ];
        for (text, status, param) in cases {
            let error = parse::<Asked>(text.as_bytes()).expect_err("is refused");
            assert_eq!(error.status.as_u16(), status, "{text}");
            assert_eq!(error.response().error.param.as_deref(), Some(param), "{text}");
        }
        for text in ["", "{", "{\"count\": 1} 2", "{\"count\": 1e999}"] {
            assert!(parse::<Asked>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
