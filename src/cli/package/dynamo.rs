//! A package for NVIDIA Dynamo: the worker, and the card that the frontend makes tokens and text by.

use super::{Facts, PackageFile};
use crate::bundle::Bundle;
use crate::cli::{Failure, input_file};
use crate::text::chat::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use std::path::Path;

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";

pub fn files(facts: &Facts, bundle: &Bundle, template: Option<&Path>) -> Result<Vec<PackageFile>, Failure> {
    let tokenizer = Tokenizer::needed(bundle)?;
    let text = |name: &'static str| -> Result<Option<String>, Failure> {
        let unusable = |error: std::string::FromUtf8Error| {
            Failure::input("the bundle cannot be used", &format_args!("{name}: {error}"))
        };
        bundle.carried(name)?.map(|(_, bytes)| String::from_utf8(bytes).map_err(unusable)).transpose()
    };
    let config = json!({
        "model_type": "photon",
        "architectures": ["PhotonForCausalLM"],
        "vocab_size": facts.vocab_size,
        "max_position_embeddings": facts.max_tokens,
        "eos_token_id": facts.eos_token_ids,
    });
    let carried = text(CONFIG)?.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
    let mut spoken = carried.unwrap_or_default();
    spoken.entry("tokenizer_class").or_insert_with(|| "PreTrainedTokenizerFast".into());
    if let (false, Some(text)) =
        (spoken.contains_key("eos_token"), facts.eos_token_ids.first().and_then(|id| tokenizer.token(*id)))
    {
        spoken.insert("eos_token".to_owned(), text.into());
    }
    let source = match template {
        Some(path) => Some(input_file::text(path).map_err(|error| {
            Failure::input("the chat template cannot be used", &format_args!("{}: {error}", path.display()))
        })?),
        None => ChatTemplate::needed(bundle).ok().map(|template| template.source().to_owned()),
    };
    // Without one the worker offers completions alone.
    match source {
        Some(source) => spoken.insert("chat_template".to_owned(), source.into()),
        None => spoken.shift_remove("chat_template"),
    };
    let pretty = |value: &Value| {
        serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| Failure::bug(&error))
    };
    Ok(vec![
        ("README.md", facts.filled(include_str!("dynamo.md"))),
        ("photonc_worker.py", include_str!("../../../examples/cluster/dynamo/photonc_worker.py").to_owned()),
        ("prompt_lengths.py", include_str!("../../../examples/cluster/dynamo/prompt_lengths.py").to_owned()),
        ("requirements.txt", include_str!("../../../examples/cluster/dynamo/requirements.txt").to_owned()),
        ("card/tokenizer.json", text(TOKENIZER)?.unwrap_or_default()),
        ("card/tokenizer_config.json", pretty(&Value::Object(spoken))?),
        ("card/config.json", pretty(&config)?),
    ])
}
