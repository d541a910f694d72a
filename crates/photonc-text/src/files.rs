//! Files that a bundle carries from the checkpoint, as bytes and as JSON.

use super::TextError;
use photonc_bundle::bundle::Bundle;
use serde_json::Value;
use std::path::PathBuf;

/// A carried file: where it stands and its bytes; `None` where the checkpoint had none.
pub(super) fn carried(bundle: &Bundle, name: &str) -> Result<Option<(PathBuf, Vec<u8>)>, TextError> {
    Ok(bundle.carried(name)?)
}

/// A carried JSON file.
pub(super) fn json(bundle: &Bundle, name: &str) -> Result<Option<(PathBuf, Value)>, TextError> {
    let Some((path, bytes)) = carried(bundle, name)? else { return Ok(None) };
    match photonc_bundle::json::parse(&bytes) {
        Ok(value) => Ok(Some((path, value))),
        Err(error) => Err(TextError::File { path, message: format!("not JSON: {error}") }),
    }
}

/// The text of a token as `tokenizer_config.json` names it: a string, or an object with `content`.
pub(super) fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}
