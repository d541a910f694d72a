//! What is looked at in a `tokenizer.json` before the `tokenizers` library sees it. Owns what is written anew so that it means
//! what it means elsewhere (regular expressions, `Strip`), and the refusal of what would let a text grow without bound or
//! draw tokens at random.

use super::oniguruma;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The longest file, in bytes: the largest that are published have 34 million.
const MAX_FILE_BYTES: usize = 40 << 20;

/// How often longer a text may become by all that is put in place of parts of it.
const MAX_GROWTH: f64 = 1000.0;

/// Characters that a `Strip` takes away, at most.
const MAX_STRIPPED: u64 = 500;

/// The longest name that stands in front of or behind parts of words.
const MAX_AFFIX_BYTES: usize = 1000;

/// The parts of the file that hold patterns.
const PARTS: [&str; 3] = ["normalizer", "pre_tokenizer", "decoder"];

#[derive(Deserialize)]
struct Model {
    dropout: Option<f64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

/// The file as the library is to read it.
///
/// # Errors
/// What is no JSON or not supported, in words, with its place.
pub fn prepared(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if bytes.len() > MAX_FILE_BYTES {
        let (found, most) = (bytes.len(), MAX_FILE_BYTES);
        return Err(format!("the file has {found} bytes, expected at most {most}"));
    }
    let plain = photonc_bundle::json::plain(bytes);
    let not_json = |error: serde_json::Error| format!("not JSON: {error}");
    let mut parts: IndexMap<String, Box<RawValue>> = serde_json::from_slice(&plain).map_err(not_json)?;
    if let Some(model) = parts.get("model") {
        // What the library makes of another form is its own affair.
        if let Ok(model) = serde_json::from_str::<Model>(model.get()) {
            check(&model)?;
        }
    }
    for name in PARTS {
        let Some(raw) = parts.get_mut(name) else { continue };
        let mut part: Value = serde_json::from_str(raw.get()).map_err(not_json)?;
        let growth = rewrite(&mut part, name)?;
        if growth > MAX_GROWTH {
            return Err(format!("{name}: may make a text more than {MAX_GROWTH} times as long"));
        }
        *raw = serde_json::value::to_raw_value(&part).map_err(not_json)?;
    }
    serde_json::to_vec(&parts).map_err(not_json)
}

fn check(model: &Model) -> Result<(), String> {
    if let Some(dropout) = model.dropout.filter(|dropout| *dropout != 0.0) {
        return Err(format!("model: dropout is {dropout}, and tokens would be random; expected none or 0"));
    }
    for (key, affix) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if let Some(affix) = affix.as_ref().filter(|affix| affix.len() > MAX_AFFIX_BYTES) {
            let (found, most) = (affix.len(), MAX_AFFIX_BYTES);
            return Err(format!("model: {key} has {found} bytes, expected at most {most}"));
        }
    }
    Ok(())
}

/// Writes patterns anew; how many times longer a text may become.
fn rewrite(part: &mut Value, place: &str) -> Result<f64, String> {
    for list in ["normalizers", "pretokenizers", "decoders"] {
        if let Some(Value::Array(parts)) = part.get_mut(list) {
            let mut growth = 1.0;
            for (at, part) in parts.iter_mut().enumerate() {
                growth *= rewrite(part, &format!("{place}.{list}[{at}]"))?;
            }
            return Ok(growth);
        }
    }
    let mut shortest = 1;
    match part.get_mut("pattern") {
        Some(Value::Object(pattern)) => {
            if let Some(Value::String(regex)) = pattern.get_mut("Regex") {
                let known = oniguruma::translate(regex);
                *regex = known
                    .map_err(|reason| format!("{place}: the pattern {:?}: {reason}", shortened(regex)))?;
            } else if let Some(Value::String(string)) = pattern.get("String") {
                shortest = string.len().max(1);
            }
        }
        Some(Value::String(string)) => shortest = string.len().max(1),
        _ => {}
    }
    let is = |kind: &str| part.get("type").and_then(Value::as_str) == Some(kind);
    if is("Replace") {
        let content = part.get("content").and_then(Value::as_str).map_or(0, str::len);
        return Ok((content as f64 / shortest as f64).max(1.0));
    }
    if is("Prepend") {
        let more = part.get("prepend").and_then(Value::as_str).map_or(0, str::len);
        return Ok(1.0 + more as f64);
    }
    if is("Strip") && place.starts_with("decoder") {
        *part = strip(part, place)?;
    }
    Ok(1.0)
}

/// The decoder `Strip` by patterns: the library's own fails on texts that are shorter than what is to go.
fn strip(part: &Value, place: &str) -> Result<Value, String> {
    let content = part.get("content").and_then(Value::as_str).filter(|content| content.chars().count() == 1);
    let Some(content) = content else { return Err(format!("{place}: content is one character")) };
    let count = |key: &str| {
        let count = part.get(key).and_then(Value::as_u64).filter(|count| *count <= MAX_STRIPPED);
        count.ok_or_else(|| format!("{place}: {key} is a whole number up to {MAX_STRIPPED}"))
    };
    let content = regex::escape(content);
    let replace = |pattern: String| json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": ""});
    let mut decoders = Vec::new();
    let (start, stop) = (count("start")?, count("stop")?);
    if start > 0 {
        decoders.push(replace(format!(r"\A(?:{content}){{1,{start}}}")));
    }
    if stop > 0 {
        // From the left the longest run would be found; of a longer one only its end goes.
        decoders.push(replace(format!(r"(?:{content}){{1,{stop}}}\z")));
    }
    Ok(json!({"type": "Sequence", "decoders": decoders}))
}

fn shortened(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::prepared;
    use serde_json::{Value, json};

    fn parts(file: &Value) -> Result<Value, String> {
        prepared(file.to_string().as_bytes()).map(|bytes| serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[test]
    fn patterns_are_written_anew_and_the_rest_stays() {
        let split =
            json!({"type": "Split", "pattern": {"Regex": "a$"}, "behavior": "Isolated", "invert": false});
        let file = json!({"version": "1.0", "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split]}, "model": {"vocab": {"b": 0, "a": 1}}});
        let found = parts(&file).expect("prepares");
        assert_eq!(found["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"], "a(?=\\n|\\z)");
        assert_eq!(found["model"], file["model"]);
    }

    #[test]
    fn what_would_harm_is_refused_with_its_place() {
        let grows = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"});
        let bomb = json!({"normalizer": {"type": "Sequence", "normalizers": vec![grows; 8]}});
        assert!(parts(&bomb).is_err_and(|error| error.starts_with("normalizer: may make a text")));
        let random = json!({"model": {"type": "BPE", "dropout": 0.1}});
        assert!(parts(&random).is_err_and(|error| error.contains("dropout is 0.1")));
        let pattern = json!({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\X"}}});
        assert!(parts(&pattern).is_err_and(|error| error.starts_with("pre_tokenizer: the pattern")));
    }
}
