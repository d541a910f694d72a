//! What each fuzz target does with its input: files of strangers and bodies of requests go to the library's own readers,
//! which may refuse them and may not break. Owns how an input becomes files; `tests/fuzz_seeds.rs` runs every seed through
//! the same functions. `structured` changes inputs for the fuzzer.

pub mod structured;

use photonc::bundle::{Bundle, hash_file};
use photonc::graph::{Graph, text};
use photonc::model::checkpoint::Checkpoint;
use photonc::model::dialect::DialectChoice;
use photonc::onnx::target::Target;
use photonc::runtime::plan::Program;
use photonc::text::chat::{ChatOptions, ChatTemplate, Message};
use photonc::text::defaults::{GenerationDefaults, Wanted};
use photonc::text::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Component, Path};
use std::sync::LazyLock;
use tempfile::TempDir;

/// A small sound bundle; the others are this one with one file changed.
const BUNDLE: &[u8] = include_bytes!("../seeds/bundle/golden");
/// The same, open, and where it lies: for targets whose input is no file of it.
static SOUND_BUNDLE: LazyLock<(TempDir, Bundle)> = LazyLock::new(|| {
    let folder = folder();
    parts(BUNDLE).for_each(|(name, bytes)| put(folder.path(), name, bytes));
    let bundle = sealed(folder.path()).expect(SOUND);
    (folder, bundle)
});
/// What is wrong where it does not open, whatever it carries.
const SOUND: &str = "the seed of a bundle is sound: fuzz/make_seeds.py makes it anew";
/// What begins each file of an input that is several; the rest of the line is its name.
const MARK: &[u8] = b"\n=== ";
/// Longest weights file that is made, in bytes: it takes no room, as nothing is written behind its header.
const MAX_WEIGHTS_BYTES: u64 = 4 << 20;

/// A checkpoint: `config.json` and the header of `model.safetensors`.
pub fn checkpoint(input: &[u8]) {
    let folder = folder();
    parts(input).for_each(|(name, bytes)| put(folder.path(), name, bytes));
    let _refused = Checkpoint::open(folder.path(), &DialectChoice::Recognise);
}

/// A dialect's data file, as `--weight-map` takes it, for a golden checkpoint.
pub fn weight_map(input: &[u8]) {
    let folder = folder();
    let file = folder.path().join("map.toml");
    fs::write(&file, input).expect("a temporary folder can be written");
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/paper-golden");
    let within = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/paper-golden");
    let golden = if Path::new(golden).is_dir() { golden } else { within };
    let _refused = Checkpoint::open(Path::new(golden), &DialectChoice::File(file));
}

/// The text of a graph. What parses and is valid has one text, and becomes an ONNX model or is refused.
pub fn graph(input: &[u8]) {
    let Some(graph) = std::str::from_utf8(input).ok().and_then(|text| text::parse(text).ok()) else { return };
    let Ok(verified) = graph.verify() else { return };
    let printed = text::print(&graph);
    let again = text::parse(&printed).expect("a printed graph parses");
    assert_eq!(text::print(&again), printed);
    let _refused = photonc::onnx::export(verified, Target::Portable, "", &|_| None);
}

/// A bundle of several files; its hashes are made anew.
pub fn bundle(input: &[u8]) {
    let folder = folder();
    parts(input).for_each(|(name, bytes)| put(folder.path(), name, bytes));
    open(folder.path());
}

/// The manifest of a sound bundle.
pub fn manifest(input: &[u8]) {
    with("photon.json", input, |folder| drop(open(folder)));
}

/// The `generation_config.json` of a sound bundle.
pub fn generation_config(input: &[u8]) {
    with("generation_config.json", input, |folder| {
        let bundle = sealed(folder).expect(SOUND);
        let _refused = GenerationDefaults::of_bundle(&bundle, None, Wanted::ALL);
    });
}

/// A chat template, with a conversation and tools.
pub fn chat_template(input: &[u8]) {
    let Ok(source) = std::str::from_utf8(input) else { return };
    let tokens =
        Map::from_iter([("bos_token".to_owned(), json!("<s>")), ("eos_token".to_owned(), json!("</s>"))]);
    let template = ChatTemplate::new(Path::new("chat_template.jinja"), source, tokens);
    let said = [
        Message::new("system", "Be brief."),
        Message::new("user", " Why? "),
        Message::new("assistant", "So.\n"),
    ];
    let tools = json!([{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]);
    let _refused = template.render(&said, &ChatOptions { tools, date: None });
}

/// A tokenizer, and a text through it and back.
pub fn tokenizer(input: &[u8]) {
    let Ok(tokenizer) = Tokenizer::parse("tokenizer.json", input) else { return };
    if let Ok(encoded) = tokenizer.encode("A text, ein Wört \u{1f980}\n", true) {
        let _refused = tokenizer.decode(&encoded.ids);
    }
}

/// A file of prompts.
pub fn prompts(input: &[u8]) {
    let folder = folder();
    let file = folder.path().join("prompts.jsonl");
    fs::write(&file, input).expect("a temporary folder can be written");
    let _refused = photonc::fuzzing::read_prompts(&SOUND_BUNDLE.1, &file);
}

/// An ONNX model, in place of that of a graph.
pub fn onnx(input: &[u8]) {
    let _refused = photonc::onnx::from_bytes(input);
    let text = std::str::from_utf8(part(BUNDLE, "graphs/expand_prepare.pho")).expect("the seed is text");
    let graph: Graph = text::parse(text).expect("the seed parses");
    let verified = graph.verify().expect("the seed is valid");
    let _refused = photonc::onnx::check(input, verified, Target::Portable);
}

/// A line with a path of the server, and a body.
pub fn request_body(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (path, body) = input.split_at(end);
    let Ok(path) = std::str::from_utf8(path) else { return };
    let _refused = photonc::fuzzing::read_body(path, body);
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// The files of an input, each behind a line `=== NAME`.
fn parts(input: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    let mut rest = input.strip_prefix(&MARK[1..]);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = text.windows(MARK.len()).position(|window| window == MARK);
        let part = &text[..end.unwrap_or(text.len())];
        rest = end.map(|end| &text[end + MARK.len()..]);
        let line = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        let name = std::str::from_utf8(&part[..line]).unwrap_or_default();
        Some((name, part.get(line + 1..).unwrap_or_default()))
    })
}

/// One file of an input.
fn part<'i>(input: &'i [u8], wanted: &str) -> &'i [u8] {
    parts(input).find(|(name, _)| *name == wanted).map(|(_, bytes)| bytes).expect("the seed has the file")
}

/// Whether a name stays inside the folder that it is looked for in.
fn is_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Writes a file where its name stays inside `folder`. Of weights only the header is given.
fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    if !is_inside(name) || path.parent().is_none_or(|parent| fs::create_dir_all(parent).is_err()) {
        return;
    }
    // A name that is too long, or a folder already.
    let Ok(mut file) = File::create(&path) else { return };
    if name.ends_with(".safetensors") {
        let written =
            file.write_all(&(bytes.len() as u64).to_le_bytes()).and_then(|()| file.write_all(bytes));
        written.expect("a temporary folder can be written");
        let length = 8 + bytes.len() as u64 + data_bytes(bytes);
        file.set_len(length.min(MAX_WEIGHTS_BYTES)).expect("a file can be made longer");
    } else {
        file.write_all(bytes).expect("a temporary folder can be written");
    }
}

/// Bytes behind a header, as it says itself.
fn data_bytes(header: &[u8]) -> u64 {
    let header: Map<String, Value> = serde_json::from_slice(header).unwrap_or_default();
    let ends = header.values().filter_map(|entry| entry.get("data_offsets")?.get(1)?.as_u64());
    ends.max().unwrap_or(0).min(MAX_WEIGHTS_BYTES)
}

/// Does `work` on the sound bundle with one file changed.
fn with(changed: &str, input: &[u8], work: impl FnOnce(&Path)) {
    let folder = folder();
    for (name, bytes) in parts(BUNDLE) {
        put(folder.path(), name, if name == changed { input } else { bytes });
    }
    work(folder.path());
}

/// Opens a bundle whose hashes are made anew.
fn sealed(folder: &Path) -> Option<Bundle> {
    let path = folder.join("photon.json");
    let text = fs::read_to_string(&path).ok()?;
    let sealed = match serde_json::from_str::<Value>(&text) {
        Ok(mut manifest) => {
            rehash(folder, &mut manifest);
            photonc::bundle::seal(&serde_json::to_string_pretty(&manifest).expect("JSON has a text"))
        }
        Err(_) => photonc::bundle::seal(&text),
    };
    fs::write(&path, sealed).expect("a temporary folder can be written");
    Bundle::open(folder).ok()
}

/// Opens a bundle in the same way, and reads what a run of it would.
fn open(folder: &Path) -> Option<Bundle> {
    let bundle = sealed(folder)?;
    let _refused = Program::from_bundle(&bundle);
    let _refused = ChatTemplate::needed(&bundle);
    let _refused = photonc::text::chat::named_tokens(&bundle);
    for name in bundle.manifest().graphs.keys() {
        let _refused = photonc::onnx::of_bundle(&bundle, Target::Portable, name);
    }
    Some(bundle)
}

/// Has every record of a file name the size and hash of what stands there.
fn rehash(folder: &Path, value: &mut Value) {
    match value {
        Value::Object(record) => {
            let named = record.get("file").and_then(Value::as_str).filter(|name| is_inside(name));
            let named = named.map(|name| folder.join(name));
            let there = named.filter(|path| record.contains_key("blake3") && path.is_file());
            if let Some((hash, bytes)) = there.and_then(|path| hash_file(&path).ok()) {
                record.insert("blake3".to_owned(), hash.as_str().into());
                record.insert("bytes".to_owned(), bytes.into());
            }
            record.values_mut().for_each(|value| rehash(folder, value));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rehash(folder, value)),
        _ => {}
    }
}

/// Has the fuzzer change inputs by their structure every other time.
#[macro_export]
macro_rules! structured_mutator {
    ($target:literal) => {
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            let by_structure =
                if seed % 2 == 0 { None } else { $crate::structured::changed($target, &data[..size], seed) };
            match by_structure.filter(|made| made.len() <= max_size.min(data.len())) {
                Some(made) => {
                    data[..made.len()].copy_from_slice(&made);
                    made.len()
                }
                None => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
            }
        });
    };
}
