//! What a checkpoint's `generation_config.json` asks for, and its ids for the end of a sequence. Owns the reading of both;
//! what a caller's own choices leave of it is the caller's.

use super::TextError;
use super::files::{json, token_text};
use super::tokenizer::Tokenizer;
use crate::bundle::Bundle;
use serde_json::Value;
use std::path::Path;

const FILE: &str = "generation_config.json";

/// Generation as the makers of a checkpoint mean it; `None` where they say nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// Ids that end a sequence.
    pub eos: Vec<i64>,
    /// False: the most probable token every time.
    pub do_sample: Option<bool>,
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// Candidates kept; 0 keeps all.
    pub top_k: Option<usize>,
    /// Mass kept.
    pub top_p: Option<f64>,
    /// Candidates kept by their probability relative to the first.
    pub min_p: Option<f64>,
    /// Divides the logits of tokens that occurred.
    pub repetition_penalty: Option<f64>,
    /// New tokens, at most.
    pub max_new_tokens: Option<usize>,
}

impl GenerationDefaults {
    /// Those of a bundle. Where `generation_config.json` names no end of a sequence, the `eos_token` of
    /// `tokenizer_config.json` is it.
    ///
    /// # Errors
    /// A file that cannot be read, or a value of another kind than its key asks for.
    pub fn of_bundle(bundle: &Bundle, tokenizer: Option<&Tokenizer>) -> Result<Self, TextError> {
        let mut defaults = match json(bundle, FILE)? {
            Some((path, config)) => read(&path, &config)?,
            None => GenerationDefaults::default(),
        };
        if let (true, Some(tokenizer)) = (defaults.eos.is_empty(), tokenizer) {
            let config = json(bundle, "tokenizer_config.json")?;
            let named = config.as_ref().and_then(|(_, config)| token_text(config.get("eos_token")?));
            defaults.eos.extend(named.and_then(|token| tokenizer.id(token)));
        }
        Ok(defaults)
    }
}

fn read(path: &Path, config: &Value) -> Result<GenerationDefaults, TextError> {
    let Value::Object(keys) = config else {
        return Err(expected(path, "the file", config, "an object"));
    };
    let value = |key: &str| keys.get(key).filter(|value| !value.is_null());
    let number = |key: &str| {
        let read = |value: &Value| value.as_f64().ok_or_else(|| expected(path, key, value, "a number"));
        value(key).map(read).transpose()
    };
    let count = |key: &str| {
        let read = |value: &Value| {
            let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
            count.ok_or_else(|| expected(path, key, value, "a whole number from 0"))
        };
        value(key).map(read).transpose()
    };
    let flag = |key: &str| {
        let read = |value: &Value| value.as_bool().ok_or_else(|| expected(path, key, value, "true or false"));
        value(key).map(read).transpose()
    };
    Ok(GenerationDefaults {
        eos: value("eos_token_id").map_or(Ok(Vec::new()), |value| ids(path, "eos_token_id", value))?,
        do_sample: flag("do_sample")?,
        temperature: number("temperature")?,
        top_k: count("top_k")?,
        top_p: number("top_p")?,
        min_p: number("min_p")?,
        repetition_penalty: number("repetition_penalty")?,
        max_new_tokens: count("max_new_tokens")?,
    })
}

/// One id or a list of them.
fn ids(path: &Path, key: &str, value: &Value) -> Result<Vec<i64>, TextError> {
    let listed = match value {
        Value::Array(ids) => ids.as_slice(),
        one => std::slice::from_ref(one),
    };
    let id =
        |id: &Value| id.as_i64().filter(|id| *id >= 0).ok_or_else(|| expected(path, key, id, "a token id"));
    listed.iter().map(id).collect()
}

fn expected(path: &Path, key: &str, found: &Value, expected: &str) -> TextError {
    TextError::File { path: path.to_owned(), message: format!("{key} is {found}, expected {expected}") }
}

#[cfg(test)]
mod tests {
    use super::{GenerationDefaults, read};
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn several_ends_and_every_default_are_read() {
        let config = json!({
            "eos_token_id": [2, 7], "do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": null,
            "repetition_penalty": 1.05, "max_new_tokens": 300, "transformers_version": "4.51.0",
        });
        let expected = GenerationDefaults {
            eos: vec![2, 7],
            do_sample: Some(true),
            temperature: Some(0.7),
            top_k: Some(20),
            top_p: Some(0.8),
            min_p: None,
            repetition_penalty: Some(1.05),
            max_new_tokens: Some(300),
        };
        assert_eq!(read(Path::new("g.json"), &config).expect("reads"), expected);
        let one = read(Path::new("g.json"), &json!({"eos_token_id": 3})).expect("reads");
        assert_eq!(one.eos, [3]);
    }

    #[test]
    fn values_of_another_kind_are_refused_with_their_key() {
        for (config, message) in [
            (json!({"eos_token_id": [1, "two"]}), "g.json: eos_token_id is \"two\", expected a token id"),
            (json!({"top_k": 1.5}), "g.json: top_k is 1.5, expected a whole number from 0"),
            (json!({"temperature": "hot"}), "g.json: temperature is \"hot\", expected a number"),
            (json!([1]), "g.json: the file is [1], expected an object"),
        ] {
            assert_eq!(read(Path::new("g.json"), &config).expect_err("refused").to_string(), message);
        }
    }
}
