//! `POST /v2/models/{model}/generate` and `/generate_stream`: a text in, the text behind it out. Owns the body, the answer, and
//! the events of a stream, the last of which says that it is `done`.

use super::error::{ProtocolError, ProtocolRefusals};
use super::parameters::{InferenceParameters, only};
use super::tensors::TEXT_NAMES;
use crate::ServerState;
use crate::answer::ok;
use crate::body::{JsonBytes, gathered, parse};
use crate::engine::Engine;
use crate::error::ApiError;
use crate::flow::{Piece, Step, Whole, finish_reason};
use crate::generation::answered;
use crate::named::Named;
use crate::prompt::Prompt;
use crate::stream::{Frame, Telling};
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;
use utoipa::ToSchema;

/// A text to write on behind.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TextRequest {
    /// A name of the request, which its answer has too.
    id: Option<String>,
    /// The text.
    text_input: String,
    /// Parameters; they may stand beside `text_input`, too.
    #[schema(value_type = Option<InferenceParameters>)]
    parameters: Option<Box<RawValue>>,
}

/// A text, or what is new of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TextResponse {
    /// The name of the request, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    model_name: String,
    text_output: String,
    /// `stop` or `length`, with the last of it.
    finish_reason: Option<&'static str>,
    /// In streams: whether this is the last of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<bool>,
}

/// What an answer is made with.
struct Writing {
    id: Option<String>,
    engine: Arc<Engine>,
}

/// Write on behind a text.
#[utoipa::path(post, path = "/v2/models/{model}/generate", tag = "kserve", operation_id = "v2_generate",
    params(("model" = String, Path)), request_body = TextRequest, responses(
    (status = 200, description = "The text", body = TextResponse), ProtocolRefusals,
))]
pub async fn generate(
    State(state): State<Arc<ServerState>>,
    Named(model): Named,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    written(&state, &model, &body, false).await
}

/// Write on behind a text, and send what is there of it.
#[utoipa::path(post, path = "/v2/models/{model}/generate_stream", tag = "kserve", operation_id = "v2_generate_stream",
    params(("model" = String, Path)), request_body = TextRequest, responses(
    (status = 200, description = "Parts of the text, as server-sent events of the shape of `generate`'s answer; an error is \
        the last event", content((String = "text/event-stream"))),
    ProtocolRefusals,
))]
pub async fn generate_stream(
    State(state): State<Arc<ServerState>>,
    Named(model): Named,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    written(&state, &model, &body, true).await
}

async fn written(
    state: &ServerState,
    model: &str,
    body: &JsonBytes,
    stream: bool,
) -> Result<Response, ApiError> {
    let engine = state.models.get(Some(model))?;
    let (request, parameters) = body.read(read)?;
    let prompt = Prompt::Text(request.text_input);
    let wishes =
        tokio::task::block_in_place(|| parameters.wishes(&engine, &prompt, TEXT_NAMES, [true, stream]))?;
    let writing = Writing { id: request.id, engine: Arc::clone(&engine) };
    answered(state, &engine, &parameters.common(), &wishes, writing).await
}

/// A body and its parameters.
///
/// # Errors
/// No JSON, or none of this shape; the parameter is named.
pub fn read(bytes: &[u8]) -> Result<(TextRequest, InferenceParameters), ApiError> {
    let moved = gathered(bytes, &["id", "text_input"], "parameters");
    let request: TextRequest = parse(moved.as_deref().unwrap_or(bytes))?;
    let parameters = InferenceParameters::read(request.parameters.as_deref())?;
    Ok((request, parameters))
}

impl Writing {
    fn document(&self, piece: Piece, done: Option<bool>) -> TextResponse {
        TextResponse {
            id: self.id.clone(),
            model_name: self.engine.name.clone(),
            text_output: piece.text,
            finish_reason: finish_reason(piece.finish),
            done,
        }
    }
}

impl Telling for Writing {
    fn whole(self, wholes: Vec<Whole>, _new_tokens: usize) -> Response {
        ok(&self.document(only(wholes), None))
    }

    fn begin(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    fn step(&mut self, step: Step) -> Result<Vec<Frame>, ApiError> {
        let Step::Piece(piece) = step else { return Ok(Vec::new()) };
        if piece.text.is_empty() && piece.finish.is_none() {
            return Ok(Vec::new());
        }
        let done = piece.finish.is_some();
        Ok(vec![Frame::data(&self.document(piece, Some(done)))])
    }

    fn end(&mut self, _new_tokens: usize) -> Vec<Frame> {
        // Clients of the extension read every event as JSON, so there is no `[DONE]`.
        Vec::new()
    }

    fn failed(&self, error: &ApiError) -> Frame {
        Frame::data(&ProtocolError::from(error))
    }
}
