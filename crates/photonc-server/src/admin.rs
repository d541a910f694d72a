//! `POST /admin/load`: another bundle under a name, while requests run on.

use super::ServerState;
use super::answer::ok;
use super::body::Json;
use super::error::ApiError;
use super::models::{ModelStatus, load as load_model};
use super::openapi::Refusals;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use utoipa::ToSchema;

/// Longest path of a bundle, in bytes: no system opens longer ones, and errors and the log would show it.
const MAX_PATH_BYTES: usize = 4096;

/// What to load.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadBody {
    /// Name of the model; may be left out where there is one.
    model: Option<String>,
    /// Directory of the bundle on the server [default: where it was].
    path: Option<String>,
}

/// Load a model again or another in its place; answers once requests get the new one. Requests of the old one run on to their
/// ends; both are in memory until then.
#[utoipa::path(post, path = "/admin/load", request_body = LoadBody, tag = "operation", responses(
    (status = 200, description = "It is loaded", body = ModelStatus), Refusals,
))]
pub async fn load(
    State(state): State<Arc<ServerState>>,
    Json(body): Json<LoadBody>,
) -> Result<Response, ApiError> {
    let _under_way = state.lifecycle.enter()?;
    let paths = state.models.paths();
    let name = body.model.or_else(|| paths.first().map(|(name, _)| name.clone())).unwrap_or_default();
    let Some((_, before)) = paths.into_iter().find(|(known, _)| *known == name) else {
        // The error of a name that is none says which there are.
        state.models.get(Some(&name))?;
        return Err(ApiError::internal("the model is gone"));
    };
    if let Some(found) = body.path.as_ref().map(String::len).filter(|found| *found > MAX_PATH_BYTES) {
        let message = format!("the path has {found} bytes, expected {MAX_PATH_BYTES} at most");
        return Err(ApiError::value("path", message));
    }
    let path = body.path.map_or(before, PathBuf::from);
    let loading = Arc::clone(&state);
    let own = name.clone();
    let loaded = tokio::task::spawn_blocking(move || load_model(&loading, &own, &path)).await;
    loaded.map_err(|error| ApiError::internal(error.to_string()))??;
    let statuses = state.models.statuses();
    let status = statuses.into_iter().find(|status| status.name == name);
    status.map(|status| ok(&status)).ok_or_else(|| ApiError::internal("the model is gone"))
}
