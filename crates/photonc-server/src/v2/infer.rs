//! `POST /v2/models/{model}/infer`: a prompt in a tensor, what is written behind it in tensors. Owns the body and the answer;
//! which tensors there are is [`super::tensors`]'.

use super::error::ProtocolRefusals;
use super::parameters::{InferenceParameters, check_name, only};
use super::tensors::{RequestInput, RequestOutput, ResponseOutput, Wanted, prompt};
use crate::ServerState;
use crate::answer::ok;
use crate::body::{JsonBytes, objects, parse};
use crate::engine::Engine;
use crate::error::ApiError;
use crate::fields::Common;
use crate::flow::{Step, Whole};
use crate::generation::answered;
use crate::named::Named;
use crate::stream::{Frame, Telling};
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;
use utoipa::ToSchema;

/// Tensors in, and which are to come out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InferRequest {
    /// A name of the request, which its answer has too.
    id: Option<String>,
    /// The model's name, as KServe's client says it: that of the path.
    model_name: Option<String>,
    /// Parameters.
    #[schema(value_type = Option<InferenceParameters>)]
    parameters: Option<Box<RawValue>>,
    /// One tensor: `text_input` or `input_ids`.
    #[serde(deserialize_with = "objects")]
    #[schema(min_items = 1, max_items = 1)]
    inputs: Vec<RequestInput>,
    /// Tensors to answer with [default: all].
    #[serde(default, deserialize_with = "objects")]
    outputs: Vec<RequestOutput>,
}

/// Tensors out.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct InferResponse {
    model_name: String,
    /// The name of the request, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<ResponseOutput>,
}

/// A body and its parameters.
#[derive(Debug)]
pub struct Infer {
    request: InferRequest,
    parameters: InferenceParameters,
}

impl Infer {
    /// What all endpoints have in common.
    #[must_use]
    pub fn common(&self) -> Common {
        self.parameters.common()
    }
}

/// Reads a body.
///
/// # Errors
/// No JSON, or none of this shape; the parameter is named.
pub fn read(bytes: &[u8]) -> Result<Infer, ApiError> {
    let request: InferRequest = parse(bytes)?;
    let parameters = InferenceParameters::read(request.parameters.as_deref())?;
    Ok(Infer { request, parameters })
}

/// What an answer is made with.
struct Tensors {
    id: Option<String>,
    engine: Arc<Engine>,
    wanted: Wanted,
}

/// Write on behind a prompt.
#[utoipa::path(post, path = "/v2/models/{model}/infer", tag = "kserve", params(("model" = String, Path)),
    request_body = InferRequest, responses(
    (status = 200, description = "The tensors", body = InferResponse), ProtocolRefusals,
))]
pub async fn infer(
    State(state): State<Arc<ServerState>>,
    Named(model): Named,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    let engine = state.models.get(Some(&model))?;
    let Infer { request, parameters } = body.read(read)?;
    check_name("model_name", request.model_name.as_deref(), &engine.name)?;
    let wanted = Wanted::of(&request.outputs, engine.language.tokenizer().is_ok())?;
    let (prompt, names) = prompt(request.inputs)?;
    let wishes =
        tokio::task::block_in_place(|| parameters.wishes(&engine, &prompt, names, [wanted.text, false]))?;
    let tensors = Tensors { id: request.id, engine: Arc::clone(&engine), wanted };
    answered(&state, &engine, &parameters.common(), &wishes, tensors).await
}

impl Telling for Tensors {
    fn whole(self, wholes: Vec<Whole>, _new_tokens: usize) -> Response {
        let outputs = self.wanted.tensors(only(wholes));
        ok(&InferResponse { model_name: self.engine.name.clone(), id: self.id, outputs })
    }

    fn begin(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    fn step(&mut self, _step: Step) -> Result<Vec<Frame>, ApiError> {
        Ok(Vec::new())
    }

    fn end(&mut self, _new_tokens: usize) -> Vec<Frame> {
        Vec::new()
    }
}
