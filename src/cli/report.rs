//! What reaches the user besides errors: results on stdout, notes and progress on stderr. Owns `--json`, `--quiet` and
//! `--verbose`; refuses progress where stderr is no terminal.

use super::visible::{visible, visible_json};
use super::{Failure, Global, stdout};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

/// Prints as the global options say.
#[derive(Clone, Copy, Debug)]
pub struct Reporter {
    global: Global,
    terminal: bool,
}

/// Bytes or steps of a long piece of work; may be told from several threads.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Reporter {
    pub(super) fn new(global: Global) -> Self {
        Reporter { global, terminal: std::io::stderr().is_terminal() && !is_plain() }
    }

    /// Whether results are JSON.
    pub fn json(self) -> bool {
        self.global.json
    }

    /// Whether more detail was asked for.
    pub fn verbose(self) -> bool {
        self.global.verbose
    }

    /// Whether stderr is a terminal that takes colours and a line that changes.
    pub fn terminal(self) -> bool {
        self.terminal
    }

    /// Prints the one JSON document of a run.
    pub fn document(self, document: &impl Serialize) -> Result<(), Failure> {
        let value = serde_json::to_value(document).map_err(|error| Failure::bug(&error))?;
        let mut text = String::new();
        pretty(&value, 0, &mut text);
        text.push('\n');
        self.text(&visible_json(&text))
    }

    /// Prints a result. A reader that went away (`photonc .. | head`) is no error.
    pub fn text(self, text: &str) -> Result<(), Failure> {
        stdout::print(text).map_err(|error| Failure::output(&error))
    }

    /// Prints what a model says, or a part of a result that is still being made. A reader that went away ends the run.
    pub fn stream(self, text: &str) -> Result<(), Failure> {
        stdout::stream(text).map_err(|error| Failure::output(&error))
    }

    /// Tells what the user should know and may ignore.
    pub fn note(self, note: &str) {
        if !self.global.quiet && !self.global.json {
            to_stderr(&format!("note: {}\n", visible(note)));
        }
    }

    /// Tells more, for `--verbose`.
    pub fn detail(self, detail: &str) {
        if self.global.verbose {
            to_stderr(&format!("{}\n", visible(detail)));
        }
    }

    /// Starts to show the progress of work counted in bytes.
    pub fn progress(self, title: &str) -> Progress {
        self.bar(title, "{msg:<24} {wide_bar} {bytes:>10}/{total_bytes} {bytes_per_sec:>12}")
    }

    /// Starts to show the progress of work counted in steps, told by others.
    pub fn phases(self, title: &str) -> Arc<Progress> {
        Arc::new(self.bar(title, "{msg:<48} {wide_bar} {pos:>5}/{len} {elapsed:>5}"))
    }

    fn bar(self, title: &str, template: &str) -> Progress {
        let shown = self.terminal && !self.global.quiet && !self.global.json;
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target).with_message(title.to_owned());
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Progress(bar)
    }
}

impl Reporter {
    /// Starts to show the progress of work that takes `steps` steps.
    pub fn steps(self, title: &str, steps: u64) -> Progress {
        let shown = self.progress(title);
        shown.0.set_length(steps);
        let template = "{msg:<24} {wide_bar} {pos:>10}/{len} {eta:>8}";
        let style = ProgressStyle::with_template(template);
        shown.0.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        shown
    }
}

impl Progress {
    /// Names the part of the work at hand.
    pub fn stage(&self, title: &'static str) {
        if self.0.message() != title {
            self.0.set_message(title);
        }
    }

    /// Names the part of the work at hand, and begins to count anew.
    pub fn name(&self, title: &str) {
        if self.0.message() != title {
            self.0.set_message(title.to_owned());
            self.0.set_position(0);
        }
    }

    /// Work done and in all; calls may come out of order.
    pub fn set(&self, done: u64, total: u64) {
        self.0.set_length(total);
        if done > self.0.position() || done == 0 {
            self.0.set_position(done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Whether the user wants neither colours nor lines that change: <https://no-color.org>, or a terminal that has neither.
fn is_plain() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// A path in JSON, which has no form for bytes that are no text.
pub(super) fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Indented JSON in which a list of plain values, such as token ids, takes one line.
pub(super) fn pretty(value: &Value, depth: usize, text: &mut String) {
    let plain = |value: &Value| !matches!(value, Value::Array(_) | Value::Object(_));
    let items: Vec<(Option<&String>, &Value)> = match value {
        Value::Array(items) if !items.iter().all(plain) => items.iter().map(|item| (None, item)).collect(),
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().map(|(key, field)| (Some(key), field)).collect()
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(Value::to_string).collect();
            text.push_str(&format!("[{}]", items.join(", ")));
            return;
        }
        _ => {
            text.push_str(&value.to_string());
            return;
        }
    };
    let (open, close) = if value.is_array() { ("[", "]") } else { ("{", "}") };
    text.push_str(open);
    for (at, (key, item)) in items.into_iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let key = key.map(|key| format!("{}: ", Value::from(key.as_str()))).unwrap_or_default();
        text.push_str(&format!("{comma}\n{}{key}", "  ".repeat(depth + 1)));
        pretty(item, depth + 1, text);
    }
    text.push_str(&format!("\n{}{close}", "  ".repeat(depth)));
}

/// Writes to stderr; where that fails there is nobody left to tell.
pub(super) fn to_stderr(text: &str) {
    let _unheard = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::pretty;
    use serde_json::{Value, json};

    /// Whatever the layout, it is the same JSON.
    #[test]
    fn lists_of_plain_values_take_one_line() {
        let value = json!({"tokens": [1, 2, null], "none": {}, "samples": [{"a \"b\"": [[1], []]}]});
        let mut text = String::new();
        pretty(&value, 0, &mut text);
        assert!(text.contains("\"tokens\": [1, 2, null],\n"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
    }
}
