//! `POST /v1/responses` in its plain text form: a text or messages in, one message out. Owns the body, the answer, and the
//! named events of a stream; nothing is stored.

use super::ServerState;
use super::answer::{name, ok, unix_seconds};
use super::body::Json;
use super::engine::Engine;
use super::error::ApiError;
use super::fields::generating_body;
use super::flow::{Step, Whole};
use super::generation::{Wishes, answered};
use super::messages::messages;
use super::openapi::Refusals;
use super::stream::{Frame, Telling};
use axum::extract::State;
use axum::response::Response;
use photonc_runtime::request::Finish;
use photonc_text::chat::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// A text or messages.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of messages")]
pub enum Input {
    /// What the user says.
    Text(String),
    /// What was said so far.
    #[schema(value_type = Vec<Object>)]
    Messages(Vec<Map<String, Value>>),
}

generating_body! {
    /// A response that is asked for.
    ResponsesBody {
        /// A text or messages.
        input: Input,
        /// What the system says before them.
        instructions: Option<String>,
        /// New tokens, at most [default: all that there is room for].
        #[schema(minimum = 1)]
        max_output_tokens: Option<u32>,
        /// Only `{"format": {"type": "text"}}`.
        #[schema(value_type = Option<Object>)]
        text: Option<Value>,
        /// Only `false`: nothing is stored.
        store: Option<bool>,
    }
}

/// A response.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResponseDocument {
    id: String,
    /// `response`
    object: &'static str,
    /// Seconds since 1970.
    created_at: u64,
    /// `in_progress`, `completed` or `incomplete`
    status: &'static str,
    model: String,
    #[schema(value_type = Vec<Object>)]
    output: Vec<Value>,
    #[schema(value_type = Option<Object>)]
    incomplete_details: Option<Value>,
    #[schema(value_type = Option<Object>)]
    usage: Option<Value>,
    error: Option<String>,
    instructions: Option<String>,
    /// `false`
    store: bool,
    parallel_tool_calls: bool,
    tool_choice: &'static str,
    #[schema(value_type = Vec<Object>)]
    tools: Vec<Value>,
}

/// What events are made with.
struct Responding {
    id: String,
    item: String,
    created: u64,
    engine: Arc<Engine>,
    instructions: Option<String>,
    prompt_tokens: usize,
    text: String,
    finish: Option<Finish>,
    sequence: u64,
}

/// Answer a text or a conversation.
#[utoipa::path(post, path = "/v1/responses", request_body = ResponsesBody, tag = "openai", responses(
    (status = 200, description = "The response; with `stream`, its named events", content(
        (ResponseDocument = "application/json"), (String = "text/event-stream"))),
    Refusals,
))]
pub async fn responses(
    State(state): State<Arc<ServerState>>,
    Json(body): Json<ResponsesBody>,
) -> Result<Response, ApiError> {
    let engine = state.models.get(body.model.as_deref())?;
    let prompt = tokio::task::block_in_place(|| body.prompt(&engine))?;
    let responding = Responding {
        id: name("resp"),
        item: name("msg"),
        created: unix_seconds(),
        engine: Arc::clone(&engine),
        instructions: body.instructions.clone(),
        prompt_tokens: prompt.len(),
        text: String::new(),
        finish: None,
        sequence: 0,
    };
    let wishes = Wishes {
        prompts: vec![prompt],
        max_tokens: body.max_output_tokens.map(|count| count as usize),
        samples: 1,
        text: true,
        stream: body.stream == Some(true),
        names: &[("prompt", "input"), ("max_tokens", "max_output_tokens")],
        ..Wishes::default()
    };
    answered(&state, &engine, &body.common(), &wishes, responding).await
}

impl ResponsesBody {
    fn prompt(&self, engine: &Engine) -> Result<Vec<i64>, ApiError> {
        if self.store == Some(true) {
            return Err(ApiError::unsupported("store", "nothing is stored here"));
        }
        let plain = |text: &Value| {
            let known = text.as_object().is_some_and(|text| text.keys().all(|key| key == "format"));
            known && text.get("format").is_none_or(|format| format == &json!({"type": "text"}))
        };
        if let Some(text) = self.text.as_ref().filter(|text| !plain(text)) {
            let message = format!("`text` is {text}; only {{\"format\": {{\"type\": \"text\"}}}} is done");
            return Err(ApiError::unsupported("text", message));
        }
        let said = |role: &str, content: &str| {
            Map::from_iter([
                ("role".to_owned(), Value::from(role)),
                ("content".to_owned(), Value::from(content)),
            ])
        };
        let given = match &self.input {
            Input::Text(text) => vec![said("user", text)],
            Input::Messages(given) => {
                given.iter().cloned().map(without_type).collect::<Result<_, ApiError>>()?
            }
        };
        let mut all = messages(&given, "input")?;
        if let Some(instructions) = &self.instructions {
            all.insert(0, Message::new("system", instructions));
        }
        engine.language.encode_chat(&all, Value::Null, "input")
    }
}

/// A message of the list, whose kind need not be said.
fn without_type(mut message: Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    match message.remove("type") {
        None => Ok(message),
        Some(Value::String(kind)) if kind == "message" => {
            // Of messages that came from here.
            message.remove("id");
            message.remove("status");
            Ok(message)
        }
        Some(kind) => Err(ApiError::unsupported(
            "input",
            format!("`input` has an item of type {kind}; only messages are done"),
        )),
    }
}

impl Responding {
    fn part(&self) -> Value {
        json!({"type": "output_text", "text": self.text, "annotations": []})
    }

    fn message(&self, status: &str, content: Vec<Value>) -> Value {
        json!({"type": "message", "id": self.item, "status": status, "role": "assistant", "content": content})
    }

    fn document(&self, status: &'static str, output: Vec<Value>, usage: Option<Value>) -> ResponseDocument {
        let cut = status == "incomplete";
        ResponseDocument {
            id: self.id.clone(),
            object: "response",
            created_at: self.created,
            status,
            model: self.engine.name.clone(),
            output,
            incomplete_details: cut.then(|| json!({"reason": "max_output_tokens"})),
            usage,
            error: None,
            instructions: self.instructions.clone(),
            store: false,
            parallel_tool_calls: true,
            tool_choice: "auto",
            tools: Vec::new(),
        }
    }

    fn status(&self) -> &'static str {
        if self.finish == Some(Finish::Length) { "incomplete" } else { "completed" }
    }

    fn ended(&self, new_tokens: usize) -> ResponseDocument {
        let usage = json!({
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": new_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.prompt_tokens + new_tokens,
        });
        let message = self.message(self.status(), vec![self.part()]);
        self.document(self.status(), vec![message], Some(usage))
    }

    /// An event with its name, its number and where in the output it belongs.
    fn event(&mut self, kind: &str, more: Value) -> Frame {
        let mut event = json!({"type": kind, "sequence_number": self.sequence});
        self.sequence += 1;
        if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
            event.extend(more);
        }
        Frame::named(kind, &event)
    }
}

impl Telling for Responding {
    fn whole(mut self, wholes: Vec<Whole>, new_tokens: usize) -> Response {
        let whole = wholes.into_iter().next().unwrap_or_default();
        (self.text, self.finish) = (whole.piece.text, whole.piece.finish);
        ok(&self.ended(new_tokens))
    }

    fn begin(&mut self) -> Vec<Frame> {
        let document = json!({"response": self.document("in_progress", Vec::new(), None)});
        let item = json!({"output_index": 0, "item": self.message("in_progress", Vec::new())});
        let part = json!({"item_id": self.item, "output_index": 0, "content_index": 0, "part": self.part()});
        vec![
            self.event("response.created", document.clone()),
            self.event("response.in_progress", document),
            self.event("response.output_item.added", item),
            self.event("response.content_part.added", part),
        ]
    }

    fn step(&mut self, step: Step) -> Result<Vec<Frame>, ApiError> {
        let Step::Piece(piece) = step else { return Ok(Vec::new()) };
        self.finish = piece.finish.or(self.finish);
        if piece.text.is_empty() {
            return Ok(Vec::new());
        }
        self.text.push_str(&piece.text);
        let more = json!({
            "item_id": self.item, "output_index": 0, "content_index": 0, "delta": piece.text, "logprobs": [],
        });
        Ok(vec![self.event("response.output_text.delta", more)])
    }

    fn end(&mut self, new_tokens: usize) -> Vec<Frame> {
        let place = |more: Value| {
            let mut place = json!({"item_id": self.item, "output_index": 0, "content_index": 0});
            if let (Some(place), Value::Object(more)) = (place.as_object_mut(), more) {
                place.extend(more);
            }
            place
        };
        let text = place(json!({"text": self.text, "logprobs": []}));
        let part = place(json!({"part": self.part()}));
        let item = json!({"output_index": 0, "item": self.message(self.status(), vec![self.part()])});
        let document = json!({"response": self.ended(new_tokens)});
        let last = if self.status() == "incomplete" { "response.incomplete" } else { "response.completed" };
        vec![
            self.event("response.output_text.done", text),
            self.event("response.content_part.done", part),
            self.event("response.output_item.done", item),
            self.event(last, document),
        ]
    }
}
