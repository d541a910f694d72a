//! Text to token ids and back: `/tokenize`, `/detokenize`, `/tokenizer_info`, in vLLM's shapes.

use super::ServerState;
use super::answer::ok;
use super::body::Json;
use super::error::ApiError;
use super::fields::check_id;
use super::messages::messages;
use super::openapi::Refusals;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// A text or a conversation.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizeBody {
    /// Name of the model; may be left out where there is one.
    model: Option<String>,
    /// A text; or `messages`.
    prompt: Option<String>,
    /// A conversation; or `prompt`.
    #[schema(value_type = Option<Vec<Object>>)]
    messages: Option<Vec<Map<String, Value>>>,
    /// Tools that the template is told of.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Map<String, Value>>>,
    /// Whether a text gets the marks that the tokenizer puts around one [default: true].
    add_special_tokens: Option<bool>,
    /// Whether the texts of the tokens are told [default: false].
    return_token_strs: Option<bool>,
}

/// Token ids of a text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Tokenized {
    count: usize,
    max_model_len: usize,
    tokens: Vec<i64>,
    token_strs: Option<Vec<String>>,
}

/// Token ids.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DetokenizeBody {
    /// Name of the model; may be left out where there is one.
    model: Option<String>,
    /// The ids.
    tokens: Vec<i64>,
}

/// Their text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Detokenized {
    prompt: String,
}

/// Which tokenizer is meant.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WhichModel {
    /// Name of the model; may be left out where there is one.
    model: Option<String>,
}

/// A tokenizer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TokenizerInfo {
    model: String,
    /// `tokenizers`
    library: &'static str,
    /// Number of its tokens.
    tokens: usize,
    /// Number of the model's token ids.
    vocab_size: usize,
    /// Ids that end a sequence.
    eos_token_ids: Vec<i64>,
    /// `PreTrainedTokenizerFast`: what reads its file in transformers.
    tokenizer_class: &'static str,
    /// Text of the mark before a sequence, if the bundle names one.
    bos_token: Option<String>,
    /// Text of the token that ends a sequence.
    eos_token: Option<String>,
    /// Text of the token that fills up, if the bundle names one.
    pad_token: Option<String>,
    /// Text of the token for what is unknown, if the bundle names one.
    unk_token: Option<String>,
    /// Whether there is a chat template.
    chat: bool,
    /// The template.
    chat_template: Option<String>,
    max_model_len: usize,
}

/// Token ids of a text or a conversation.
#[utoipa::path(post, path = "/tokenize", request_body = TokenizeBody, tag = "tokens", responses(
    (status = 200, description = "The ids", body = Tokenized), Refusals,
))]
pub async fn tokenize(
    State(state): State<Arc<ServerState>>,
    Json(body): Json<TokenizeBody>,
) -> Result<Response, ApiError> {
    let engine = state.models.get(body.model.as_deref())?;
    let language = &engine.language;
    let tokens = tokio::task::block_in_place(|| match (&body.prompt, &body.messages) {
        (Some(prompt), None) if body.tools.is_none() => {
            language.encode(prompt, body.add_special_tokens.unwrap_or(true), "prompt")
        }
        (None, Some(given)) if body.add_special_tokens.is_none() => {
            let tools = body.tools.clone().map(|tools| tools.into_iter().map(Value::Object).collect());
            language.encode_chat(&messages(given, "messages")?, tools.unwrap_or(Value::Null), "messages")
        }
        (None, Some(_)) => {
            let message = "`add_special_tokens` is for `prompt`: a chat template writes its marks itself";
            Err(ApiError::value("add_special_tokens", message))
        }
        _ => Err(ApiError::value("prompt", "give `prompt`, or `messages` with `tools` if there are any")),
    })?;
    let texts = || tokens.iter().map(|token| language.decode(&[*token])).collect::<Result<_, ApiError>>();
    let told = body.return_token_strs == Some(true);
    let token_strs = told.then(|| tokio::task::block_in_place(texts)).transpose()?;
    let (count, max_model_len) = (tokens.len(), engine.max_tokens);
    Ok(ok(&Tokenized { count, max_model_len, tokens, token_strs }))
}

/// Text of token ids.
#[utoipa::path(post, path = "/detokenize", request_body = DetokenizeBody, tag = "tokens", responses(
    (status = 200, description = "The text", body = Detokenized), Refusals,
))]
pub async fn detokenize(
    State(state): State<Arc<ServerState>>,
    Json(body): Json<DetokenizeBody>,
) -> Result<Response, ApiError> {
    let engine = state.models.get(body.model.as_deref())?;
    body.tokens.iter().try_for_each(|id| check_id("tokens", *id, engine.program.vocab_size))?;
    let prompt = tokio::task::block_in_place(|| engine.language.decode(&body.tokens))?;
    Ok(ok(&Detokenized { prompt }))
}

/// What is known of a tokenizer.
#[utoipa::path(get, path = "/tokenizer_info", params(WhichModel), tag = "tokens", responses(
    (status = 200, description = "The tokenizer", body = TokenizerInfo), Refusals,
))]
pub async fn tokenizer_info(
    State(state): State<Arc<ServerState>>,
    query: Result<Query<WhichModel>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(which) = query.map_err(|error| ApiError::value("model", error.body_text()))?;
    let engine = state.models.get(which.model.as_deref())?;
    let tokenizer = engine.language.tokenizer()?;
    let language = &engine.language;
    Ok(ok(&TokenizerInfo {
        model: engine.name.clone(),
        library: "tokenizers",
        tokens: tokenizer.size(),
        vocab_size: engine.program.vocab_size,
        eos_token_ids: language.eos.clone(),
        tokenizer_class: "PreTrainedTokenizerFast",
        bos_token: language.named_token("bos_token"),
        eos_token: language.named_token("eos_token"),
        pad_token: language.named_token("pad_token"),
        unk_token: language.named_token("unk_token"),
        chat: language.chats(),
        chat_template: language.template().map(str::to_owned),
        max_model_len: engine.max_tokens,
    }))
}
