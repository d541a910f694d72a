//! `str` and `repr` of values, as Python writes them.

use super::budget::{self, Buffer};
use super::characters::UNPRINTABLE;
use super::error::{Outcome, fail};
use super::value::Value;

/// Python's `str`.
pub fn push_str(value: &Value, out: &mut Buffer) -> Outcome<()> {
    match value {
        Value::Str(text) => out.push(&text.text),
        Value::Undefined(_) => Ok(()),
        other => push_repr(other, out),
    }
}

/// Python's `str`, as a string of its own.
pub fn to_str(value: &Value) -> Outcome<String> {
    let mut out = Buffer::default();
    push_str(value, &mut out)?;
    Ok(out.into_string())
}

/// Python's `repr`.
pub fn push_repr(value: &Value, out: &mut Buffer) -> Outcome<()> {
    budget::steps(1)?;
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(true) => out.push("True"),
        Value::Bool(false) => out.push("False"),
        Value::Int(number) => out.push(&number.to_string()),
        Value::Float(number) => out.push(&float(*number)),
        Value::Str(text) => quoted(&text.text, out),
        Value::List(items) => several("[", &items.items, "]", out),
        Value::Tuple(items) if items.items.len() == 1 => several("(", &items.items, ",)", out),
        Value::Tuple(items) => several("(", &items.items, ")", out),
        Value::View(kind, items) => {
            out.push(kind)?;
            several("([", &items.items, "])", out)
        }
        Value::Dict(dict) => {
            let mut before = "{";
            for (key, value) in dict.entries.values() {
                out.push(before)?;
                push_repr(key, out)?;
                out.push(": ")?;
                push_repr(value, out)?;
                before = ", ";
            }
            out.push(if dict.entries.is_empty() { "{}" } else { "}" })
        }
        Value::Range(range) => match **range {
            [start, stop, 1] => out.push(&format!("range({start}, {stop})")),
            [start, stop, step] => out.push(&format!("range({start}, {stop}, {step})")),
        },
        Value::Macro(closure) => out.push(&format!("<Macro '{}'>", closure.code.name)),
        other => fail(format!("a text of the type {} is not supported: it means nothing", other.kind())),
    }
}

fn several(begin: &str, items: &[Value], end: &str, out: &mut Buffer) -> Outcome<()> {
    out.push(begin)?;
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(", ")?;
        }
        push_repr(item, out)?;
    }
    out.push(end)
}

fn quoted(text: &str, out: &mut Buffer) -> Outcome<()> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push_char(quote)?;
    for character in text.chars() {
        match character {
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            _ if character == quote => {
                out.push_char('\\')?;
                out.push_char(quote)?;
            }
            ' '..='~' => out.push_char(character)?,
            _ if !character.is_ascii() && !UNPRINTABLE.has(character) => out.push_char(character)?,
            _ => out.push(&escaped(character))?,
        }
    }
    out.push_char(quote)
}

fn escaped(character: char) -> String {
    match u32::from(character) {
        code @ ..0x100 => format!("\\x{code:02x}"),
        code @ ..0x1_0000 => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    }
}

/// Python's `repr` of a float: the shortest digits that read as the same number.
pub fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |small| ("-", small));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{number:?}")
}
