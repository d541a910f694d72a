//! Answers that come in events (server-sent events): data, comments that keep the connection open, errors, and the end of a
//! client that has gone. Owns the framing; what stands in an event is the endpoint's.

use super::error::ApiError;
use super::flow::{Flow, Step, Whole};
use super::lifecycle::UnderWay;
use super::{ServerState, StreamPermit};
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Frames that wait for a slow reader at most; more wait as tokens.
const FRAMES: usize = 16;

/// What an endpoint makes of a request's tokens: one document, or events.
pub trait Telling: Send + 'static {
    /// Of all choices, where nothing is streamed; `new_tokens` is the number of all.
    fn whole(self, wholes: Vec<Whole>, new_tokens: usize) -> Response;

    /// Before any tokens.
    fn begin(&mut self) -> Vec<Frame>;

    /// Of a step.
    ///
    /// # Errors
    /// The tokens have no text.
    fn step(&mut self, step: Step) -> Result<Vec<Frame>, ApiError>;

    /// Behind all tokens, of which so many are new.
    fn end(&mut self, new_tokens: usize) -> Vec<Frame>;

    /// In place of everything that would have come.
    fn failed(&self, error: &ApiError) -> Frame {
        Frame::data(&error.response())
    }
}

/// One event, as bytes.
#[derive(Clone, Debug)]
pub struct Frame(Bytes);

impl Frame {
    /// A document.
    #[must_use]
    pub fn data(document: &impl Serialize) -> Self {
        Frame::text(&serde_json::to_string(document).unwrap_or_else(|error| format!("\"{error}\"")))
    }

    /// A document with a name.
    #[must_use]
    pub fn named(event: &str, document: &impl Serialize) -> Self {
        let data = Frame::data(document);
        Frame([format!("event: {event}\n").as_bytes(), &data.0].concat().into())
    }

    /// What ends streams that are whole.
    #[must_use]
    pub fn done() -> Self {
        Frame::text("[DONE]")
    }

    fn text(text: &str) -> Self {
        Frame(format!("data: {text}\n\n").into())
    }
}

/// The answer that streams a flow. A client that goes ends its requests.
#[must_use]
pub fn answer(
    state: &ServerState,
    flow: Flow,
    mut telling: impl Telling,
    held: (UnderWay, StreamPermit),
) -> Response {
    let (send, receive) = mpsc::channel::<Bytes>(FRAMES);
    let keep_alive = state.options.streams.keep_alive;
    let metrics = Arc::clone(&state.metrics);
    tokio::spawn(async move {
        let open = metrics.streams.clone();
        open.inc();
        tokio::select! {
            () = send.closed() => {}
            () = run(flow, &mut telling, &send, keep_alive) => {}
        }
        open.dec();
        drop(held);
    });
    let frames = futures_util::stream::unfold(receive, |mut receive| async {
        receive.recv().await.map(|frame| (Ok::<Bytes, Infallible>(frame), receive))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that collect answers would undo the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Sends until the end, an error, or nobody listens.
async fn run(
    mut flow: Flow,
    telling: &mut impl Telling,
    send: &mpsc::Sender<Bytes>,
    keep_alive: std::time::Duration,
) {
    for Frame(bytes) in telling.begin() {
        if send.send(bytes).await.is_err() {
            return;
        }
    }
    loop {
        let frames = match timeout(keep_alive, flow.next()).await {
            Err(_) => vec![Frame(Bytes::from_static(b": keep-alive\n\n"))],
            Ok(Ok(Some(step))) => match telling.step(step) {
                Ok(frames) => frames,
                Err(error) => return fail(send, telling.failed(&error), &error).await,
            },
            Ok(Ok(None)) => break,
            Ok(Err(error)) => return fail(send, telling.failed(&error), &error).await,
        };
        for Frame(bytes) in frames {
            if send.send(bytes).await.is_err() {
                return;
            }
        }
    }
    for Frame(bytes) in telling.end(flow.new_tokens) {
        if send.send(bytes).await.is_err() {
            return;
        }
    }
}

/// An error is the last event: without the mark of the end nobody takes what came for the whole.
async fn fail(send: &mpsc::Sender<Bytes>, Frame(told): Frame, error: &ApiError) {
    tracing::warn!(error = error.response().error.message, "a stream ends with an error");
    // Where nobody listens there is nobody to tell.
    let _unheard = send.send(told).await;
}
