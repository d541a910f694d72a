//! Chat templates against Jinja2 set up as transformers does (`tests/python/chat_check.py`): templates in the style of
//! published models, one piece of the language after the other, and random ones. What is rendered is what Python renders;
//! what Python renders and photonc does not says that it is not supported.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod pieces;
mod random;

use photonc::text::chat::{ChatOptions, ChatTemplate, Message};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// 2026-03-04T05:06:07
const DATE: (&str, i64) = ("2026-03-04T05:06:07", 1_772_600_767);

/// A template and what it is given.
#[derive(Clone)]
pub struct Case {
    /// Its source.
    pub template: String,
    /// The conversation.
    pub messages: Value,
    /// The tools, or `null`.
    pub tools: Value,
}

impl Case {
    fn ours(&self) -> Result<String, String> {
        let template = ChatTemplate::new(Path::new("t"), &self.template, tokens());
        let messages: Vec<Message> = serde_json::from_value(self.messages.clone()).unwrap();
        let options = ChatOptions { tools: self.tools.clone(), date: Some(DATE.0.parse().unwrap()) };
        template.render(&messages, &options).map_err(|error| error.to_string())
    }

    fn line(&self) -> Value {
        let mut variables = tokens();
        variables.insert("messages".into(), self.messages.clone());
        variables.insert("tools".into(), self.tools.clone());
        variables.insert("documents".into(), Value::Null);
        variables.insert("add_generation_prompt".into(), true.into());
        json!({"template": self.template, "variables": variables, "date": DATE.1})
    }
}

fn tokens() -> Map<String, Value> {
    let tokens = [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>")];
    tokens.into_iter().map(|(name, text)| (name.to_owned(), json!(text))).collect()
}

fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let deps = std::env::var_os("PHOTONC_DEPS").map_or_else(|| root.join(".deps"), |deps| root.join(deps));
    let python = deps.join("py/bin/python");
    let has_jinja = Command::new(&python).args(["-c", "import jinja2"]).output();
    has_jinja.is_ok_and(|output| output.status.success()).then_some(python)
}

/// Cases at which both part, and how many each renders: ours, then Python.
fn compare(name: &str, cases: &[Case]) -> Option<(Vec<String>, [usize; 2])> {
    let Some(python) = python() else {
        // Past the capture of passing tests.
        let told = format!("SKIPPED {name}: needs scripts/setup-test-deps.sh\n");
        std::io::Write::write_all(&mut std::io::stderr(), told.as_bytes()).unwrap();
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let (given, results) = (folder.path().join("cases"), folder.path().join("results"));
    let mut lines = String::new();
    for case in cases {
        writeln!(lines, "{}", case.line()).unwrap();
    }
    std::fs::write(&given, lines).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/chat_check.py");
    let status = Command::new(python).arg(script).args([&given, &results]).status().unwrap();
    assert!(status.success());
    let results = std::fs::read_to_string(results).unwrap();
    let (mut parted, mut rendered) = (Vec::new(), [0, 0]);
    assert_eq!(results.lines().count(), cases.len());
    for (case, theirs) in cases.iter().zip(results.lines()) {
        let theirs: Value = serde_json::from_str(theirs).unwrap();
        let ours = case.ours();
        let same = match (&ours, theirs["text"].as_str()) {
            (Ok(ours), Some(theirs)) => ours == theirs,
            (Ok(_), None) => false,
            (Err(_), None) => true,
            (Err(reason), Some(_)) => reason.contains("not supported"),
        };
        rendered[0] += usize::from(ours.is_ok());
        rendered[1] += usize::from(theirs["text"].is_string());
        if !same {
            parted.push(format!("{}\n  ours:   {ours:?}\n  theirs: {theirs}", case.template));
        }
    }
    Some((parted, rendered))
}

fn conversation() -> Value {
    json!([
        {"role": "system", "content": "  Be brief.\n"},
        {"role": "user", "content": "What is 2 < 3 & \"x\"? Ünïcödé 🦀"},
        {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "id": "abc", "function":
            {"name": "look", "arguments": {"where": "Köln <Altstadt>", "n": 3, "f": 1.5, "deep": {"b": [true, null], "a": {}}}}}]},
        {"role": "tool", "name": "look", "tool_call_id": "abc", "content": "{\"found\": [1, 2]}"},
        {"role": "assistant", "content": "<think>\nwell\n</think>\n\nYes. ", "reasoning_content": "well"},
        {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "image"}, {"type": "text", "text": "now?"}]},
    ])
}

fn simple() -> Value {
    json!([{"role": "user", "content": "good morning"}, {"role": "assistant", "content": "hello\r\n"},
        {"role": "user", "content": "bye\u{a0}"}])
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "look", "description": "Looks 'around' \"there\" <b>",
        "parameters": {"type": "object", "properties": {"where": {"type": "string", "description": "a place"},
        "n": {"type": "integer", "enum": [1, 2]}}, "required": ["where"]}}}])
}

fn assert_same(name: &str, cases: &[Case], least: usize) {
    let Some((parted, rendered)) = compare(name, cases) else { return };
    assert!(parted.is_empty(), "{} of {}\n{}", parted.len(), cases.len(), parted.join("\n"));
    let [ours, theirs] = rendered;
    assert!(theirs >= least, "Python renders {theirs} of {}: too few to say much", cases.len());
    // The others are refused by name: they are parts of Python that no template of a model uses.
    assert!(ours * 10 >= theirs * 9, "{ours} of the {theirs} that Python renders were rendered");
}

/// Templates in the style of the most used families of models, with and without tools.
#[test]
fn templates_of_published_models_render_as_in_python() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat/templates");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut cases = Vec::new();
    for path in &paths {
        let template = std::fs::read_to_string(path).unwrap();
        for (messages, tools) in [
            (conversation(), Value::Null),
            (conversation(), tools()),
            (simple(), Value::Null),
            (simple(), tools()),
        ] {
            let windows = template.replace('\n', "\r\n");
            cases.push(Case { template: template.clone(), messages: messages.clone(), tools: tools.clone() });
            cases.push(Case { template: windows, messages, tools });
        }
    }
    assert!(paths.len() >= 20);
    // A few refuse conversations by intent.
    assert_same("templates", &cases, cases.len() * 3 / 4);
}

/// One piece of the language after the other.
#[test]
fn every_piece_of_the_language_means_what_it_means_in_python() {
    let cases: Vec<Case> = pieces::templates()
        .into_iter()
        .map(|template| Case { template, messages: conversation(), tools: tools() })
        .collect();
    // Most operators and filters fit few values.
    assert_same("pieces", &cases, cases.len() * 2 / 5);
}

/// Random cases: more in the long run.
fn random_cases() -> usize {
    let given = std::env::var("PHOTONC_CHAT_CASES").ok().and_then(|count| count.parse().ok());
    given.unwrap_or(if std::env::var_os("PHOTONC_FULL").is_some() { 6000 } else { 1000 })
}

/// Random templates over random values.
#[test]
fn random_templates_render_as_in_python() {
    let count = random_cases();
    let seed = std::env::var("PHOTONC_CHAT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = random::Random::new(seed);
    let cases: Vec<Case> = (0..count)
        .map(|_| Case { template: random.template(), messages: random.messages(), tools: tools() })
        .collect();
    assert_same("random templates", &cases, count / 10);
}

/// Where a name lives is decided before a template runs: what it is given may be out of sight before an assignment.
#[test]
fn names_are_seen_where_python_sees_them() {
    let mut random = random::Random::new(7);
    let cases: Vec<Case> = (0..random_cases())
        .map(|_| Case { template: random.scopes(3), messages: simple(), tools: Value::Null })
        .collect();
    assert_same("scopes", &cases, cases.len() / 2);
}
