//! The filter `tojson`: `json.dumps` of Python, with its keywords, as transformers gives it to templates.

use super::budget::{self, Buffer};
use super::error::{Outcome, fail};
use super::printing;
use super::value::Value;

/// How JSON is written.
pub struct Style {
    /// Whether every character beyond ASCII is escaped.
    pub ascii: bool,
    /// What a level is indented by; `None` keeps everything on one line.
    pub indent: Option<String>,
    /// Between elements, and between a key and its value.
    pub separators: (String, String),
    /// Whether keys are sorted.
    pub sorted: bool,
}

impl Style {
    /// Writes a value.
    pub fn push(&self, value: &Value, level: usize, out: &mut Buffer) -> Outcome<()> {
        budget::steps(1)?;
        match value {
            Value::None => out.push("null"),
            Value::Bool(truth) => out.push(if *truth { "true" } else { "false" }),
            Value::Int(number) => out.push(&number.to_string()),
            Value::Float(number) => out.push(&float(*number)),
            Value::Str(text) => self.string(&text.text, out),
            Value::List(items) | Value::Tuple(items) => {
                self.several(["[", "]"], items.items.len(), level, out, |at, out| {
                    self.push(&items.items[at], level + 1, out)
                })
            }
            Value::Dict(dict) => {
                let mut entries: Vec<(String, &Value)> = Vec::new();
                for (key, value) in dict.entries.values() {
                    entries.push((key_text(key)?, value));
                }
                if self.sorted {
                    if dict.entries.values().any(|(key, _)| key.as_str().is_none()) {
                        return fail("tojson: a sort of keys that are not all strings is not supported");
                    }
                    budget::steps(entries.len() * 4)?;
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.several(["{", "}"], entries.len(), level, out, |at, out| {
                    self.string(&entries[at].0, out)?;
                    out.push(&self.separators.1)?;
                    self.push(entries[at].1, level + 1, out)
                })
            }
            other => fail(format!("Object of type {} is not JSON serializable", other.kind())),
        }
    }

    fn several(
        &self,
        [begin, end]: [&str; 2],
        count: usize,
        level: usize,
        out: &mut Buffer,
        mut push: impl FnMut(usize, &mut Buffer) -> Outcome<()>,
    ) -> Outcome<()> {
        out.push(begin)?;
        for at in 0..count {
            if at > 0 {
                out.push(&self.separators.0)?;
            }
            self.line(level + 1, out)?;
            push(at, out)?;
        }
        if count > 0 {
            self.line(level, out)?;
        }
        out.push(end)
    }

    fn line(&self, level: usize, out: &mut Buffer) -> Outcome<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.push("\n")?;
        out.push_times(indent, level)
    }

    fn string(&self, text: &str, out: &mut Buffer) -> Outcome<()> {
        out.push("\"")?;
        for character in text.chars() {
            match character {
                '"' => out.push("\\\"")?,
                '\\' => out.push("\\\\")?,
                '\n' => out.push("\\n")?,
                '\r' => out.push("\\r")?,
                '\t' => out.push("\\t")?,
                '\x08' => out.push("\\b")?,
                '\x0c' => out.push("\\f")?,
                '\0'..='\x1f' => out.push(&format!("\\u{:04x}", u32::from(character)))?,
                _ if self.ascii && !(' '..='~').contains(&character) => {
                    let mut units = [0; 2];
                    for unit in character.encode_utf16(&mut units) {
                        out.push(&format!("\\u{unit:04x}"))?;
                    }
                }
                _ => out.push_char(character)?,
            }
        }
        out.push("\"")
    }
}

fn key_text(key: &Value) -> Outcome<String> {
    match key {
        Value::Str(text) => {
            budget::bytes(text.text.len())?;
            Ok(text.text.clone())
        }
        Value::None => Ok("null".to_owned()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Int(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(float(*number)),
        other => fail(format!("keys must be str, int, float, bool or None, not {}", other.kind())),
    }
}

fn float(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => printing::float(number),
    }
}
