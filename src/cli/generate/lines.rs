//! Lines of a file of prompts. Owns their syntax and that a line which cannot be used is one bad line: it has an error in place
//! of a result, and the others go on.

use crate::cli::language::Language;
use crate::cli::prompts::ChatArgs;
use crate::cli::{Failure, input_file};
use crate::text::chat::Message;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::path::Path;

/// Lines after which a file without a prompt is one of something else altogether.
const MOST_BAD_FIRST: usize = 10_000;

const SYNTAX: &str = "a line is {\"prompt\": TEXT}, {\"messages\": [..]} or {\"prompt_ids\": [..]}, with \"id\", \"max_new_tokens\" and \"seed\" if wanted";

/// One line, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Whatever tells the caller which one it is: it comes back letter by letter.
    id: Option<Box<RawValue>>,
    prompt: Option<String>,
    messages: Option<Value>,
    /// The tools of a conversation, in place of those of the command line.
    tools: Option<Value>,
    prompt_ids: Option<Vec<i64>>,
    max_new_tokens: Option<usize>,
    seed: Option<u64>,
}

/// One line, as far as it could be understood.
#[derive(Debug)]
pub struct Line {
    /// What the caller knows it by.
    pub id: Option<Box<RawValue>>,
    /// Its tokens, or why it has none.
    pub tokens: Result<Vec<i64>, String>,
    /// Longest answer, where the line says.
    pub max_new_tokens: Option<usize>,
    /// Seed, where the line says.
    pub seed: Option<u64>,
    /// The line itself.
    pub text: Vec<u8>,
}

/// Reads the lines of `file` that are not blank.
///
/// # Errors
/// The file cannot be read, no line of it is a prompt (or none of the first 10 000), or the bundle lacks what prompts of their kind need.
pub fn read(file: &Path, chat: &ChatArgs, language: &Language) -> Result<Vec<Line>, Failure> {
    let bytes = input_file::bytes(file).map_err(|error| {
        Failure::input("the file cannot be read", &format_args!("{}: {error}", file.display()))
            .help("name a file of JSON lines")
    })?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let numbered = text.split(|byte| *byte == b'\n').enumerate();
    let numbered = numbered.filter(|(_, line)| !line.trim_ascii().is_empty());
    let mut lines = Vec::new();
    let (mut first_bad, mut understood) = (None, false);
    for (number, text) in numbered {
        match written(text) {
            Ok(written) => {
                understood = true;
                lines.push(Line::of(written, text, chat, language)?);
            }
            Err(error) => {
                let place = format!("line {}: {error}", number + 1);
                first_bad.get_or_insert_with(|| format!("{}: {place}", file.display()));
                lines.push(Line::bad(None, place, text));
                if !understood && lines.len() == MOST_BAD_FIRST {
                    break;
                }
            }
        }
    }
    match first_bad {
        // A file of something else altogether.
        Some(place) if !understood => Err(Failure::input("the prompts cannot be read", &place).help(SYNTAX)),
        _ => Ok(lines),
    }
}

fn written(line: &[u8]) -> Result<Written, String> {
    let written: Written = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let given = [written.prompt.is_some(), written.messages.is_some(), written.prompt_ids.is_some()];
    match given.iter().filter(|given| **given).count() {
        1 => Ok(written),
        _ => Err("expected one of prompt, messages and prompt_ids".to_owned()),
    }
}

impl Line {
    fn of(written: Written, text: &[u8], chat: &ChatArgs, language: &Language) -> Result<Self, Failure> {
        let Written { id, prompt, messages, tools, prompt_ids, max_new_tokens, seed } = written;
        let tokens = match (prompt, messages, prompt_ids) {
            (Some(prompt), ..) => chat.of_text(&prompt, language),
            (_, Some(messages), _) => match serde_json::from_value::<Vec<Message>>(messages) {
                Ok(messages) => language.encode_chat(&messages, tools.as_ref()).map(|encoded| encoded.ids),
                Err(error) => Err(Failure::prompt(&format_args!("messages: {error}"))),
            },
            (.., ids) => Ok(ids.unwrap_or_default()),
        };
        match tokens {
            Ok(tokens) => Ok(Line { id, tokens: Ok(tokens), max_new_tokens, seed, text: text.to_owned() }),
            Err(failure) => Ok(Line::bad(id, failure.into_prompt()?, text)),
        }
    }

    fn bad(id: Option<Box<RawValue>>, cause: String, text: &[u8]) -> Self {
        Line { id, tokens: Err(cause), max_new_tokens: None, seed: None, text: text.to_owned() }
    }
}
