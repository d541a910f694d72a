//! Messages of chats as templates read them: contents that are lists of texts become one text, other parts are refused by name.

use super::error::ApiError;
use photonc_text::chat::Message;
use serde_json::{Map, Value};

/// The messages given as parameter `param`, checked.
///
/// # Errors
/// The place and the part that is none.
pub fn messages(given: &[Map<String, Value>], param: &str) -> Result<Vec<Message>, ApiError> {
    if given.is_empty() {
        return Err(ApiError::value(param, format!("`{param}` is empty, expected at least one message")));
    }
    let one = |(at, message)| message_of(&format!("{param}[{at}]"), message);
    given.iter().enumerate().map(one).collect()
}

fn message_of(place: &str, given: &Map<String, Value>) -> Result<Message, ApiError> {
    let mut message = given.clone();
    let param = format!("{place}.content");
    match given.get("content") {
        Some(Value::Array(parts)) => {
            let texts =
                parts.iter().enumerate().map(|(part, value)| text_of(&format!("{param}[{part}]"), value));
            let texts: Vec<String> = texts.collect::<Result<_, ApiError>>()?;
            message.insert("content".into(), texts.join("\n").into());
        }
        Some(Value::String(_) | Value::Null) => {}
        None if given.contains_key("tool_calls") => {}
        None => return Err(ApiError::value(&param, format!("`{param}` is missing"))),
        Some(other) => {
            return Err(ApiError::value(&param, format!("`{param}` is {other}, expected a text or a list")));
        }
    }
    Message::try_from(message)
        .map_err(|error| ApiError::value(&format!("{place}.role"), format!("`{place}`: {error}")))
}

fn text_of(param: &str, part: &Value) -> Result<String, ApiError> {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or("no type");
    let text = part.get("text").and_then(Value::as_str);
    match (kind, text) {
        ("text" | "input_text" | "output_text", Some(text)) => Ok(text.to_owned()),
        _ => Err(ApiError::unsupported(param, format!("`{param}` is of type `{kind}`; only text is done"))),
    }
}
