//! Changes of an input that keep its structure, beside the changes of bytes that the fuzzer makes itself: a document stays
//! a document, a message a message, and what changes is what it says. Owns which structure the input of a target has.

mod json;
mod random;
mod text;
mod wire;

use super::{MARK, parts};
use random::Random;

/// Words that mean something in the inputs of each target, one a line: keys, values as JSON, pieces of templates.
const CONFIG: &str = include_str!("../../words/config");
const GENERATION: &str = include_str!("../../words/generation");
const GRAPH: &str = include_str!("../../words/graph");
const MANIFEST: &str = include_str!("../../words/manifest");
const ONNX: &str = include_str!("../../words/onnx");
const REQUEST: &str = include_str!("../../words/request");
const TEMPLATE: &str = include_str!("../../words/template");
const TOKENIZER: &str = include_str!("../../words/tokenizer");
const WEIGHT_MAP: &str = include_str!("../../words/weight_map");
/// Most changes of one input at a time.
const MOST_CHANGES: usize = 4;

/// What an input is made of.
#[derive(Clone, Copy)]
enum Structure {
    /// One JSON document.
    Json,
    /// JSON documents, one a line.
    JsonLines,
    /// A path, and a JSON document from the second line on.
    Body,
    /// Several files, each behind its name.
    Files,
    /// Words and lines.
    Text,
    /// A protobuf message.
    Wire,
}

/// Longest input that is changed, in bytes: what is wrong beyond is found by its length.
const MOST_BYTES: usize = 256 << 10;

/// An input of the fuzz target of that name with up to four changes, or none where it has not the structure that the
/// target's inputs have. The same seed makes the same changes.
pub fn changed(target: &str, input: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut random = Random::new(seed);
    let (structure, words) = of_target(target)?;
    let changes = 1 + random.below(MOST_CHANGES);
    (0..changes).try_fold(input.to_vec(), |input, _| {
        if input.len() > MOST_BYTES { None } else { change(structure, words, &input, &mut random) }
    })
}

/// The structure of a target's inputs, and words that mean something in them.
fn of_target(target: &str) -> Option<(Structure, &'static str)> {
    Some(match target {
        "bundle" => (Structure::Files, MANIFEST),
        "chat_template" => (Structure::Text, TEMPLATE),
        "checkpoint" => (Structure::Files, CONFIG),
        "generation_config" => (Structure::Json, GENERATION),
        "graph" => (Structure::Text, GRAPH),
        "manifest" => (Structure::Json, MANIFEST),
        "onnx" => (Structure::Wire, ONNX),
        "prompts" => (Structure::JsonLines, REQUEST),
        "request_body" => (Structure::Body, REQUEST),
        "tokenizer" => (Structure::Json, TOKENIZER),
        "weight_map" => (Structure::Text, WEIGHT_MAP),
        _ => return None,
    })
}

fn change(structure: Structure, words: &str, input: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    match structure {
        Structure::Json => json::changed(input, words, random),
        Structure::JsonLines => lines(input, words, random),
        Structure::Body => {
            let end = input.iter().position(|byte| *byte == b'\n')?;
            let body = json::changed(&input[end + 1..], words, random)?;
            Some([&input[..=end], &body].concat())
        }
        Structure::Files => files(input, words, random),
        Structure::Text => Some(text::changed(std::str::from_utf8(input).ok()?, words, random).into_bytes()),
        Structure::Wire => wire::changed(input, words, random),
    }
}

/// Changes one document of several, each on its line, or the order of the lines.
fn lines(input: &[u8], words: &str, random: &mut Random) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(input).ok()?;
    let mut lines: Vec<&str> = text.lines().collect();
    let at = random.index(lines.len())?;
    let Some(changed) = json::changed(lines[at].as_bytes(), words, random) else {
        return Some(text::changed(text, words, random).into_bytes());
    };
    let changed = String::from_utf8(changed).ok()?;
    lines[at] = &changed;
    Some(lines.join("\n").into_bytes())
}

/// Changes one file of several as what it is by its name.
fn files(input: &[u8], words: &str, random: &mut Random) -> Option<Vec<u8>> {
    let files: Vec<(&str, &[u8])> = parts(input).collect();
    let at = random.index(files.len())?;
    let (name, old) = files[at];
    let new = match name.rsplit_once('.')?.1 {
        "json" | "safetensors" => json::changed(old, words, random)?,
        "pho" => text::changed(std::str::from_utf8(old).ok()?, GRAPH, random).into_bytes(),
        "jinja" => text::changed(std::str::from_utf8(old).ok()?, TEMPLATE, random).into_bytes(),
        "onnx" => wire::changed(old, ONNX, random)?,
        _ => return None,
    };
    let mut made = Vec::with_capacity(input.len() + new.len());
    for (index, (name, bytes)) in files.iter().enumerate() {
        made.extend_from_slice(if index == 0 { &MARK[1..] } else { MARK });
        made.extend_from_slice(name.as_bytes());
        made.push(b'\n');
        made.extend_from_slice(if index == at { &new } else { bytes });
    }
    Some(made)
}
