//! Errors as clients see them: `{"error": {message, type, param, code}}` with a status. Owns which status a refusal of the
//! runtime has, and who is to blame. The error itself goes with its answer, for routes whose errors have another form.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use photonc_runtime::error::RuntimeError;
use photonc_runtime::prompt::PromptError;
use photonc_runtime::schedule::Refusal;
use photonc_text::TextError;
use serde::Serialize;
use std::borrow::Cow;
use utoipa::ToSchema;

/// Seconds after which a client that met a full queue may try again.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Longest text of an error, about: what a client sent and is shown in it may be as long as a body.
const MAX_SHOWN_BYTES: usize = 2048;

/// Why a request was not answered.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The status of the answer; inside a stream, which has begun, only `code` tells it.
    pub status: StatusCode,
    body: ErrorBody,
    retry_after: Option<u64>,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// In words: what was found, what was expected.
    pub message: String,
    /// Who is to blame: `invalid_request_error`, `authentication_error`, `not_found_error`, `rate_limit_error`,
    /// `service_unavailable_error`, `timeout_error`, `server_error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The parameter that is to blame, if one is.
    pub param: Option<String>,
    /// A word for programs.
    pub code: &'static str,
}

/// An error, as the body of an answer and as an event of a stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ErrorResponse {
    /// What went wrong.
    pub error: ErrorBody,
}

impl ApiError {
    /// An error of a status, with a word for programs.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let kind = match status.as_u16() {
            401 | 403 => "authentication_error",
            404 | 405 => "not_found_error",
            408 | 504 => "timeout_error",
            429 => "rate_limit_error",
            503 => "service_unavailable_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        };
        let message = shown(&message.into(), MAX_SHOWN_BYTES);
        let body = ErrorBody { message, kind, param: None, code };
        ApiError { status, body, retry_after: None }
    }

    /// A parameter whose value cannot be met.
    #[must_use]
    pub fn value(param: &str, message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message).of(param)
    }

    /// A parameter that is not done here.
    #[must_use]
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "unsupported_parameter", message).of(param)
    }

    /// With the parameter that is to blame.
    #[must_use]
    pub fn of(mut self, param: &str) -> Self {
        self.body.param = Some(shown(param, MAX_SHOWN_BYTES));
        self
    }

    /// With the endpoint's own name for the parameter, where it has one: pairs of ours and its own.
    #[must_use]
    pub fn renamed(self, names: &[(&str, &str)]) -> Self {
        let own = names.iter().find(|(ours, _)| self.body.param.as_deref() == Some(*ours));
        match own {
            Some((_, own)) => self.of(own),
            None => self,
        }
    }

    /// Not now; later perhaps.
    #[must_use]
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        let later = Some(RETRY_AFTER_SECONDS);
        ApiError { retry_after: later, ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message) }
    }

    /// Too much is asked for at once.
    #[must_use]
    pub fn too_many(code: &'static str, message: impl Into<String>) -> Self {
        let later = Some(RETRY_AFTER_SECONDS);
        ApiError { retry_after: later, ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, message) }
    }

    /// Ours.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// The body, as an event of a stream has it too.
    #[must_use]
    pub fn response(&self) -> ErrorResponse {
        ErrorResponse { error: self.body.clone() }
    }
}

/// What somebody sent, as errors and the log show it: of what is long the beginning and the end, and characters that steer
/// a terminal by their numbers.
#[must_use]
pub fn shown(text: &str, most_bytes: usize) -> String {
    let mut told = String::new();
    for character in ends(text, most_bytes).chars() {
        match steers(character) {
            true => told.extend(character.escape_unicode()),
            false => told.push(character),
        }
    }
    ends(&told, most_bytes).into_owned()
}

/// A text, or where it is longer its beginning and its end.
fn ends(text: &str, most_bytes: usize) -> Cow<'_, str> {
    if text.len() <= most_bytes {
        return Cow::Borrowed(text);
    }
    let (mut head, mut tail) = (most_bytes / 2, text.len() - most_bytes / 2);
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    Cow::Owned(format!("{} .. {}", &text[..head], &text[tail..]))
}

/// Whether a terminal takes a character as a command, or shows what follows in another order.
fn steers(character: char) -> bool {
    let order =
        matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    order || character.is_control() && character != '\n' && character != '\t'
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let param = match &refusal {
            Refusal::QueueFull { .. } => return ApiError::too_many("queue_full", message),
            Refusal::Closed => return ApiError::unavailable("draining", "the server takes nothing more"),
            Refusal::TooLong { .. } | Refusal::NoRoom { .. } => {
                return ApiError {
                    status: StatusCode::BAD_REQUEST,
                    ..ApiError::value("max_tokens", message)
                }
                .coded("context_length_exceeded");
            }
            Refusal::Prompt(PromptError::Length { .. }) => "prompt_length",
            Refusal::Prompt(_) => "prompt",
            Refusal::Sampling(error) => &error.name.replace('-', "_"),
            Refusal::Logprobs { .. } => "logprobs",
            Refusal::Forced { .. } => "prompt",
            Refusal::Empty { .. } => "max_tokens",
            Refusal::Protocol { .. } => "protocol",
            Refusal::Draws { .. } => "temperature",
        };
        ApiError::value(param, message)
    }
}

impl ApiError {
    /// With another word for programs.
    #[must_use]
    pub fn coded(mut self, code: &'static str) -> Self {
        self.body.code = code;
        self
    }
}

impl From<RuntimeError> for ApiError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Refused(refusal) => refusal.into(),
            RuntimeError::Prompt(error) => ApiError::value("prompt", error.to_string()),
            RuntimeError::Sampling(error) => {
                ApiError::value(&error.name.replace('-', "_"), error.to_string())
            }
            RuntimeError::NoProtocol { .. } => ApiError::value("protocol", error.to_string()),
            RuntimeError::GraphSamplerOnly { .. } => ApiError::value("top_k", error.to_string()),
            RuntimeError::Lost { .. } => ApiError::internal(error.to_string()).coded("engine_failed"),
            error => ApiError::internal(error.to_string()),
        }
    }
}

impl ApiError {
    /// A text that cannot be used, given as parameter `param`.
    #[must_use]
    pub fn of_text(error: &TextError, param: &str) -> Self {
        match error {
            TextError::Encode { .. } | TextError::Refused { .. } | TextError::Absent { .. } => {
                ApiError::value(param, error.to_string())
            }
            _ => ApiError::internal(error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = super::answer::json(self.status, &self.response());
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn what_is_shown_is_short_and_steers_nothing() {
        assert_eq!(shown("zwei Zeilen\n\tÄ 日本", 64), "zwei Zeilen\n\tÄ 日本");
        assert_eq!(shown("a\u{1b}[2J\u{202e}b", 64), "a\\u{1b}[2J\\u{202e}b");
        assert_eq!(shown(&"y".repeat(100), 8), "yyyy .. yyyy");
        for text in ["Ä".repeat(100), "\u{1b}".repeat(100), "🦀".repeat(100)] {
            let short = shown(&text, 15);
            assert!(short.len() <= 15 + " .. ".len() && short.contains(" .. "), "{short}");
        }
    }
}
