//! The table of routes, and what answers where there is none.

use super::error::ApiError;
use super::{
    ServerState, admin, chat, completions, generate, guard, info, openapi, page, responses, tokens,
    trajectories, v2,
};
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{any, get, post};
use std::any::Any;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Every route, with what all requests go through.
pub fn router(state: &Arc<ServerState>) -> Router {
    let changes = from_fn_with_state(Arc::clone(state), guard::changes);
    let routes = Router::new()
        .route("/", get(page::index))
        .route("/app.js", get(page::script))
        .route("/style.css", get(page::style))
        .route("/favicon.ico", get(page::icon))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/responses", post(responses::responses))
        .route("/v1/generate", post(generate::generate))
        .route("/v1/trajectories", post(trajectories::create))
        .route("/v1/trajectories/{id}", get(trajectories::show).delete(trajectories::remove))
        .route("/v1/trajectories/{id}/expand", post(trajectories::expand))
        .route("/v1/models", get(info::models))
        .route("/v1/models/{model}", get(info::model))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::tokenizer_info))
        .route("/health", get(info::health))
        .route("/ready", get(info::ready))
        .route("/metrics", get(info::metrics))
        .route("/version", get(info::version))
        .route("/openapi.json", get(openapi::document))
        .route("/v2", get(v2::info::server))
        .route("/v2/health/live", get(v2::info::live))
        .route("/v2/health/ready", get(v2::info::ready))
        .route("/v2/models/{model}", get(v2::info::model))
        .route("/v2/models/{model}/ready", get(v2::info::model_ready))
        .route("/v2/models/{model}/infer", post(v2::infer::infer))
        .route("/v2/models/{model}/generate", post(v2::generate::generate))
        .route("/v2/models/{model}/generate_stream", post(v2::generate::generate_stream))
        .route("/v2/models/{model}/versions/{*version}", any(v2::info::version))
        .route("/admin/load", post(admin::load).layer(changes))
        .method_not_allowed_fallback(no_method)
        .fallback(no_route)
        .with_state(Arc::clone(state));
    let root = &state.options.root_path;
    let routes = match root.is_empty() {
        true => routes,
        false => {
            // Addresses in the page are relative to the slash.
            let slash = format!("{root}/");
            let inside = slash.clone();
            Router::new()
                .nest(root, routes)
                .route(&slash, get(page::index))
                .method_not_allowed_fallback(no_method)
                .fallback(no_route)
                .layer(from_fn(move |request: Request, next: Next| {
                    let bare = (format!("{}/", request.uri().path()) == inside)
                        .then(|| Redirect::permanent(&inside));
                    async move {
                        match bare {
                            Some(redirect) => redirect.into_response(),
                            None => next.run(request).await,
                        }
                    }
                }))
        }
    };
    routes
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(state), guard::let_in))
        .layer(from_fn_with_state(Arc::clone(state), v2::error::in_form))
        .layer(cors(&state.options.cors_origins))
        .layer(from_fn_with_state(Arc::clone(state), guard::observed))
}

async fn no_route(request: Request) -> ApiError {
    let message = format!("there is no `{}`; /openapi.json lists what there is", request.uri().path());
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn no_method(request: Request) -> ApiError {
    let message = format!("`{}` is not done with {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

fn panicked(_payload: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked: this is a bug of photonc");
    ApiError::internal("this is a bug of photonc; please report it").into_response()
}

/// Pages of these origins may ask; without any, none but the server's own.
fn cors(origins: &[String]) -> CorsLayer {
    let allowed = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())),
    };
    let headers = [header::AUTHORIZATION, header::CONTENT_TYPE, HeaderName::from_static(guard::REQUEST_ID)];
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(headers)
        .expose_headers([HeaderName::from_static(guard::REQUEST_ID), header::RETRY_AFTER])
}
