//! The models of a server by name: loading, loaded, replaced while requests run. Owns which engine a request gets, and what
//! is said while there is none.

use super::ServerState;
use super::engine::{Engine, Loading};
use super::error::ApiError;
use axum::http::StatusCode;
use indexmap::IndexMap;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use utoipa::ToSchema;

/// A name and what it stands for.
#[derive(Debug)]
struct Slot {
    path: PathBuf,
    engine: Option<Loaded>,
    /// What is being done to load one, since when.
    loading: Option<(String, Instant)>,
    error: Option<String>,
}

/// An engine, whose threads nobody prints.
struct Loaded(Arc<Engine>);

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.name)
    }
}

/// The models by name, in the order in which they were given.
#[derive(Debug)]
pub struct Models(Mutex<IndexMap<String, Slot>>);

/// How far a model is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ModelStatus {
    /// Its name.
    pub name: String,
    /// `loading`, `ready` or `failed`.
    pub status: &'static str,
    /// What is being done, while it loads.
    pub stage: Option<String>,
    /// Seconds since loading began.
    pub seconds: Option<f64>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Models {
    /// Names without engines.
    #[must_use]
    pub fn new(bundles: &[(String, PathBuf)]) -> Self {
        let slot = |(name, path): &(String, PathBuf)| {
            (name.clone(), Slot { path: path.clone(), engine: None, loading: None, error: None })
        };
        Models(Mutex::new(bundles.iter().map(slot).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, IndexMap<String, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine of a name, or of the first.
    ///
    /// # Errors
    /// No such name, or no engine yet.
    pub fn get(&self, name: Option<&str>) -> Result<Arc<Engine>, ApiError> {
        let slots = self.lock();
        let found = match name {
            None => slots.first(),
            Some(name) => slots.get_key_value(name),
        };
        let Some((own, slot)) = found else {
            let names: Vec<&str> = slots.keys().map(String::as_str).collect();
            let message =
                format!("there is no model `{}`; there is {}", name.unwrap_or_default(), names.join(", "));
            return Err(ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).of("model"));
        };
        match &slot.engine {
            Some(Loaded(engine)) => Ok(Arc::clone(engine)),
            None => Err(ApiError::unavailable("loading", format!("the model `{own}` is not loaded yet"))),
        }
    }

    /// The engines that are there.
    #[must_use]
    pub fn engines(&self) -> Vec<Arc<Engine>> {
        self.lock().values().filter_map(|slot| Some(Arc::clone(&slot.engine.as_ref()?.0))).collect()
    }

    /// How far each model is.
    #[must_use]
    pub fn statuses(&self) -> Vec<ModelStatus> {
        let status = |(name, slot): (&String, &Slot)| {
            let failed = slot.engine.as_ref().and_then(|engine| engine.0.failure().map(str::to_owned));
            let error = failed.or_else(|| slot.error.clone());
            let status = match (&slot.engine, &error) {
                (Some(Loaded(engine)), _) if engine.failure().is_none() => "ready",
                (_, Some(_)) => "failed",
                _ => "loading",
            };
            let stage = slot.loading.as_ref().map(|(stage, _)| stage.clone());
            let seconds = slot.loading.as_ref().map(|(_, since)| since.elapsed().as_secs_f64());
            ModelStatus { name: name.clone(), status, stage, seconds, error }
        };
        self.lock().iter().map(status).collect()
    }

    /// Names and where their bundles are.
    #[must_use]
    pub fn paths(&self) -> Vec<(String, PathBuf)> {
        self.lock().iter().map(|(name, slot)| (name.clone(), slot.path.clone())).collect()
    }

    fn stage(&self, name: &str, stage: &str) {
        tracing::info!(model = name, stage, "loading");
        if let Some(slot) = self.lock().get_mut(name) {
            let since = slot.loading.as_ref().map_or_else(Instant::now, |(_, since)| *since);
            slot.loading = Some((stage.to_owned(), since));
        }
    }

    /// Begins to load; false where that name is being loaded already, or is none.
    fn begin(&self, name: &str) -> bool {
        match self.lock().get_mut(name) {
            Some(slot) if slot.loading.is_none() => {
                slot.loading = Some(("waiting".to_owned(), Instant::now()));
                slot.error = None;
                true
            }
            _ => false,
        }
    }
}

/// Loads the bundle at `path` under a name, on the thread that calls. What ran before goes on to its end.
///
/// # Errors
/// It cannot be loaded, or that name is being loaded already; what ran before runs on.
pub fn load(state: &Arc<ServerState>, name: &str, path: &Path) -> Result<(), ApiError> {
    let models = &state.models;
    if !models.begin(name) {
        let message = format!("the model `{name}` is not there, or is being loaded already");
        return Err(ApiError::new(StatusCode::CONFLICT, "not_now", message).of("model"));
    }
    let failing = Arc::downgrade(state);
    let on_failure = Arc::new(move |message: &str| {
        tracing::error!(message, "the engine failed");
        if let Some(state) = failing.upgrade() {
            state.engine_failed(message);
        }
    });
    let stage = |stage: &str| models.stage(name, stage);
    let told = Loading { stage: &stage, on_failure, stop: state.lifecycle.phases() };
    let loaded = Engine::load(name, path, &state.backends, &state.options, &state.metrics, told);
    let mut slots = models.lock();
    let Some(slot) = slots.get_mut(name) else { return Ok(()) };
    slot.loading = None;
    match loaded {
        Ok(engine) => {
            slot.path = path.to_owned();
            let before = slot.engine.replace(Loaded(engine));
            drop(slots);
            state.trajectories.forget(name);
            tracing::info!(model = name, "ready");
            if let Some(Loaded(before)) = before {
                before.close();
            }
            Ok(())
        }
        Err(message) => {
            slot.error = Some(message.clone());
            tracing::error!(model = name, message, "cannot be loaded");
            Err(ApiError::value("path", message))
        }
    }
}
