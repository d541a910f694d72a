//! Names in the paths of routes: models, trajectories. Owns the error of those that are no text.

use super::error::ApiError;
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;

/// What the last part of a route's path that may be anything is.
#[derive(Debug)]
pub struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) =
            path.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "invalid_path", error.body_text()))?;
        Ok(Named(name))
    }
}
