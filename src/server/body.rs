//! Bodies of requests: bounded in bytes and time, JSON, and every key known. Owns the errors of those that are not.

use super::ServerState;
use super::error::ApiError;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::borrow::Cow;
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
    let refused = |message: String| {
        Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
    };
    if essence != "application/json" {
        return refused(format!("the content type is {found}, expected application/json"));
    }
    match headers.get(header::CONTENT_ENCODING).map(|coding| coding.as_bytes()) {
        None | Some(b"identity") => Ok(()),
        Some(coding) => {
            let coding = String::from_utf8_lossy(coding);
            refused(format!("the content encoding is {coding}; send the body as it is"))
        }
    }
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

/// Parameters of other servers at the values that ask for nothing: what a client sends to say so is taken.
const NEUTRAL: [(&str, &str); 18] = [
    ("add_generation_prompt", "true"),
    ("background", "false"),
    ("best_of", "1"),
    ("continue_final_message", "false"),
    ("echo", "false"),
    ("include", "[]"),
    ("include_stop_str_in_output", "false"),
    ("length_penalty", "1.0"),
    ("logprobs", "false"),
    ("metadata", "{}"),
    ("modalities", "[\"text\"]"),
    ("service_tier", "\"auto\""),
    ("skip_special_tokens", "true"),
    ("spaces_between_special_tokens", "true"),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("truncation", "\"disabled\""),
    ("use_beam_search", "false"),
];

/// A document, or what is wrong with it and where. Unknown keys that ask for nothing are as if they were not there.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut bytes = Cow::Borrowed(bytes);
    loop {
        match document(&bytes) {
            Ok(parsed) => return Ok(parsed),
            Err(Unread { error, unknown }) => match unknown.and_then(|key| without(&bytes, &key)) {
                Some(rest) => bytes = Cow::Owned(rest),
                None => return Err(*error),
            },
        }
    }
}

/// The document without a key, if its value asks for nothing.
fn without(bytes: &[u8], key: &str) -> Option<Vec<u8>> {
    let mut given: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    let value = given.shift_remove(key)?;
    let neutral = NEUTRAL.iter().find(|(known, _)| *known == key);
    let neutral = neutral.and_then(|(_, text)| serde_json::from_str::<Value>(text).ok());
    let same = neutral.is_some_and(|neutral| {
        neutral == value || value.as_f64().is_some_and(|value| neutral.as_f64() == Some(value))
    });
    (value.is_null() || same).then(|| serde_json::to_vec(&given).ok()).flatten()
}

/// Why a document cannot be used, and the key at its top that is not known.
struct Unread {
    error: Box<ApiError>,
    unknown: Option<String>,
}

impl From<ApiError> for Unread {
    fn from(error: ApiError) -> Self {
        Unread { error: Box::new(error), unknown: None }
    }
}

fn document<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unread> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut reader);
    let parsed = parsed.map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let message = inner.to_string();
        let quoted = |start: &str| message.strip_prefix(start)?.split('`').next().map(str::to_owned);
        if !inner.is_data() {
            return no_json(&message).into();
        }
        if let Some(key) = quoted("unknown field `") {
            let at_top = path == "." || path == key;
            let error = ApiError::unsupported(
                if at_top { &key } else { &path },
                format!("`{key}` is not known here; {message}"),
            );
            return Unread { error: Box::new(error), unknown: at_top.then_some(key) };
        }
        if let Some(key) = quoted("missing field `") {
            let message = format!("`{key}` is missing");
            return ApiError::new(StatusCode::BAD_REQUEST, "missing_parameter", message).of(&key).into();
        }
        if let Some(key) = quoted("duplicate field `") {
            let message = format!("`{key}` is given twice");
            return ApiError::new(StatusCode::BAD_REQUEST, "duplicate_parameter", message).of(&key).into();
        }
        let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_type", &message);
        Unread::from(if path == "." { error } else { error.of(&path) })
    })?;
    reader.end().map_err(|error| no_json(&error.to_string()))?;
    Ok(parsed)
}

fn no_json(message: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is no JSON: {message}"))
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
            ("{\"count\": 1, \"count\": 2}", 400, "count"),
            ("{\"count\": 1, \"length_penalty\": 2}", 400, "length_penalty"),
        ];
        for (text, status, param) in cases {
            let error = parse::<Asked>(text.as_bytes()).expect_err("is refused");
            assert_eq!(error.status.as_u16(), status, "{text}");
            assert_eq!(error.response().error.param.as_deref(), Some(param), "{text}");
        }
        for text in ["{\"count\": 1, \"best\": null, \"length_penalty\": 1}", "{\"count\": 1, \"tools\": []}"]
        {
            assert!(parse::<Asked>(text.as_bytes()).is_ok(), "{text}");
        }
        for text in ["", "{", "{\"count\": 1} 2", "{\"count\": 1e999}"] {
            assert!(parse::<Asked>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
