//! `POST /v1/chat/completions`: messages in, the assistant's answer out. Owns the body, the answer, and the chunks of a stream.
//! Tools are told to the template; what the model writes of them comes as text.

use super::ServerState;
use super::answer::{name, ok, unix_seconds};
use super::body::Json;
use super::engine::Engine;
use super::error::ApiError;
use super::fields::{StreamUsage, StreamWishes, generating_body};
use super::flow::{Step, Whole, finish_reason};
use super::generation::{Wishes, answered};
use super::messages::messages;
use super::openapi::Refusals;
use super::stream::{Frame, Telling};
use super::told::{ChatLogprobs, Names, Usage};
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;

generating_body! {
    /// An answer that is asked for.
    ChatBody {
        /// What was said so far: objects with `role` and `content`.
        #[schema(value_type = Vec<Object>, min_items = 1)]
        messages: Vec<Map<String, Value>>,
        /// Tools that the template tells the model of.
        #[schema(value_type = Option<Vec<Object>>)]
        tools: Option<Vec<Map<String, Value>>>,
        /// `auto`, or `none` without tools; calls are not enforced and come as text.
        #[schema(value_type = Option<Object>)]
        tool_choice: Option<Value>,
        /// Only `true`.
        parallel_tool_calls: Option<bool>,
        /// Only `{"type": "text"}`.
        #[schema(value_type = Option<Object>)]
        response_format: Option<Value>,
        /// New tokens, at most [default: all that there is room for].
        max_completion_tokens: Option<u32>,
        /// The same under its older name.
        max_tokens: Option<u32>,
        /// Answers [default: 1].
        #[schema(minimum = 1)]
        n: Option<u32>,
        /// Whether log-probabilities of tokens are told [default: false].
        logprobs: Option<bool>,
        /// With so many others at each place, 20 at most; needs `logprobs`.
        #[schema(maximum = 20)]
        top_logprobs: Option<u32>,
        /// What a stream has besides.
        #[serde(default, deserialize_with = "crate::body::object")]
        stream_options: Option<StreamWishes>,
        /// Whether ids of tokens are told [default: false].
        return_token_ids: Option<bool>,
        /// Only `false`: nothing is stored.
        store: Option<bool>,
    }
}

/// An answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    id: String,
    /// `chat.completion`, or `chat.completion.chunk` in a stream.
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    choices: Vec<ChatChoice>,
    /// Tokens that were used; in streams with the last chunk, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    /// Ids of the prompt's tokens, if asked for; in streams with the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<i64>>,
}

/// A choice, or what is new of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    index: usize,
    /// The whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Said>,
    /// What is new, in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Said>,
    logprobs: Option<ChatLogprobs>,
    /// `stop` or `length`, with the last of it.
    finish_reason: Option<&'static str>,
    /// Ids of its tokens, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<i64>>,
}

/// What the assistant says.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Said {
    /// `assistant`, at the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// Everything that chunks are made with.
struct Answering {
    id: String,
    created: u64,
    engine: Arc<Engine>,
    prompt: Vec<i64>,
    samples: usize,
    logprobs: bool,
    ids: bool,
    usage: StreamUsage,
    /// New tokens so far, of all choices.
    new_tokens: usize,
}

/// Answer a conversation.
#[utoipa::path(post, path = "/v1/chat/completions", request_body = ChatBody, tag = "openai", responses(
    (status = 200, description = "The answer; with `stream`, server-sent events of the same shape", content(
        (ChatCompletion = "application/json"), (String = "text/event-stream"))),
    Refusals,
))]
pub async fn chat(
    State(state): State<Arc<ServerState>>,
    Json(body): Json<ChatBody>,
) -> Result<Response, ApiError> {
    let engine = state.models.get(body.model.as_deref())?;
    let (answering, wishes) = tokio::task::block_in_place(|| body.asked(&engine))?;
    answered(&state, &engine, &body.common(), &wishes, answering).await
}

impl ChatBody {
    /// Refuses what is not done here.
    ///
    /// # Errors
    /// The first parameter that asks for it.
    pub fn check(&self) -> Result<(), ApiError> {
        let kind = |value: &Value| value.get("type").and_then(Value::as_str).map(str::to_owned);
        if let Some(format) =
            self.response_format.as_ref().filter(|format| kind(format).as_deref() != Some("text"))
        {
            let message = format!("`response_format` is {format}; only {{\"type\": \"text\"}} is done");
            return Err(ApiError::unsupported("response_format", message));
        }
        let with_tools = self.tools.as_ref().is_some_and(|tools| !tools.is_empty());
        match self.tool_choice.as_ref().map(|choice| choice.as_str()) {
            None | Some(Some("auto")) => {}
            Some(Some("none")) if !with_tools => {}
            Some(_) => {
                let message = "`tool_choice` is not enforced: only `auto` is done, or `none` without tools";
                return Err(ApiError::unsupported("tool_choice", message));
            }
        }
        if self.parallel_tool_calls == Some(false) {
            let message = "`parallel_tool_calls: false` is not done: calls are text of the model";
            return Err(ApiError::unsupported("parallel_tool_calls", message));
        }
        if self.store == Some(true) {
            return Err(ApiError::unsupported("store", "nothing is stored here"));
        }
        if self.top_logprobs.is_some() && self.logprobs != Some(true) {
            return Err(ApiError::value("top_logprobs", "`top_logprobs` needs `logprobs: true`"));
        }
        Ok(())
    }

    fn asked(&self, engine: &Arc<Engine>) -> Result<(Answering, Wishes), ApiError> {
        self.check()?;
        let max_tokens = match (self.max_completion_tokens, self.max_tokens) {
            (Some(new), Some(old)) if new != old => {
                let message = format!("`max_tokens` is {old} and `max_completion_tokens` {new}: give one");
                return Err(ApiError::value("max_tokens", message));
            }
            (new, old) => new.or(old).map(|count| count as usize),
        };
        let newer = self.max_completion_tokens.is_some();
        if max_tokens == Some(0) {
            let name = if newer { "max_completion_tokens" } else { "max_tokens" };
            return Err(ApiError::value(name, format!("{name} is 0, expected at least 1")));
        }
        let tools = self.tools.clone().map(|tools| tools.into_iter().map(Value::Object).collect());
        let prompt = engine.language.encode_chat(
            &messages(&self.messages, "messages")?,
            tools.unwrap_or(Value::Null),
            "messages",
        )?;
        let samples = self.n.unwrap_or(1) as usize;
        let logprobs = self.logprobs == Some(true);
        let wishes = Wishes {
            prompts: vec![prompt.clone()],
            max_tokens,
            samples,
            logprobs: logprobs.then_some(self.top_logprobs.unwrap_or(0) as usize),
            text: true,
            stream: self.stream == Some(true),
            names: match newer {
                true => &[
                    ("prompt", "messages"),
                    ("logprobs", "top_logprobs"),
                    ("max_tokens", "max_completion_tokens"),
                ],
                false => &[("prompt", "messages"), ("logprobs", "top_logprobs")],
            },
            ..Wishes::default()
        };
        let answering = Answering {
            id: name("chatcmpl"),
            created: unix_seconds(),
            engine: Arc::clone(engine),
            prompt,
            samples,
            logprobs,
            ids: self.return_token_ids == Some(true),
            usage: StreamUsage::of(self.stream_options, self.stream == Some(true))?,
            new_tokens: 0,
        };
        Ok((answering, wishes))
    }
}

impl Answering {
    fn document(
        &self,
        object: &'static str,
        choices: Vec<ChatChoice>,
        usage: Option<Usage>,
    ) -> ChatCompletion {
        ChatCompletion {
            id: self.id.clone(),
            object,
            created: self.created,
            model: self.engine.name.clone(),
            choices,
            usage,
            prompt_token_ids: None,
        }
    }

    fn chunk(&self, choices: Vec<ChatChoice>, usage: Option<Usage>) -> ChatCompletion {
        self.document("chat.completion.chunk", choices, usage)
    }

    fn usage(&self, new_tokens: usize) -> Usage {
        Usage::of(self.prompt.len(), new_tokens)
    }

    fn names(&self) -> Names<'_> {
        Names { language: &self.engine.language, by_id: false }
    }
}

impl Telling for Answering {
    fn whole(self, wholes: Vec<Whole>, new_tokens: usize) -> Response {
        let choice = |(index, Whole { piece, .. }): (usize, Whole)| ChatChoice {
            index,
            message: Some(Said { role: Some("assistant"), content: Some(piece.text) }),
            delta: None,
            logprobs: self.logprobs.then(|| self.names().chat(&piece.logprobs)),
            finish_reason: finish_reason(piece.finish),
            token_ids: self.ids.then_some(piece.tokens),
        };
        let choices = wholes.into_iter().enumerate().map(choice).collect();
        let usage = self.usage(new_tokens);
        let mut document = self.document("chat.completion", choices, Some(usage));
        document.prompt_token_ids = self.ids.then(|| self.prompt.clone());
        ok(&document)
    }

    fn begin(&mut self) -> Vec<Frame> {
        let first = |index: usize| {
            let choice = ChatChoice {
                index,
                message: None,
                delta: Some(Said { role: Some("assistant"), content: Some(String::new()) }),
                logprobs: None,
                finish_reason: None,
                token_ids: None,
            };
            let mut document = self.chunk(vec![choice], self.usage.always.then(|| self.usage(0)));
            document.prompt_token_ids = (self.ids && index == 0).then(|| self.prompt.clone());
            Frame::data(&document)
        };
        (0..self.samples).map(first).collect()
    }

    fn step(&mut self, step: Step) -> Result<Vec<Frame>, ApiError> {
        let Step::Piece(piece) = step else { return Ok(Vec::new()) };
        self.new_tokens += piece.tokens.len();
        if piece.text.is_empty() && piece.finish.is_none() && !self.logprobs && !self.ids {
            return Ok(Vec::new());
        }
        let said = !(piece.text.is_empty() && piece.finish.is_some());
        let choice = ChatChoice {
            index: piece.choice,
            message: None,
            delta: Some(Said { role: None, content: said.then_some(piece.text) }),
            logprobs: self.logprobs.then(|| self.names().chat(&piece.logprobs)),
            finish_reason: finish_reason(piece.finish),
            token_ids: self.ids.then_some(piece.tokens),
        };
        let usage = self.usage.always.then(|| self.usage(self.new_tokens));
        Ok(vec![Frame::data(&self.chunk(vec![choice], usage))])
    }

    fn end(&mut self, new_tokens: usize) -> Vec<Frame> {
        let usage =
            self.usage.last.then(|| Frame::data(&self.chunk(Vec::new(), Some(self.usage(new_tokens)))));
        usage.into_iter().chain([Frame::done()]).collect()
    }
}
