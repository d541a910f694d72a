//! Errors as clients see them: `{"error": {message, type, param, code}}` with a status. Owns which status a refusal of the
//! runtime has, and who is to blame.

use crate::runtime::error::RuntimeError;
use crate::runtime::schedule::Refusal;
use crate::text::TextError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Seconds after which a client that met a full queue may try again.
const RETRY_AFTER_SECONDS: u64 = 1;

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
        let body = ErrorBody { message: message.into(), kind, param: None, code };
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
        self.body.param = Some(param.to_owned());
        self
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
        response
    }
}
