//! Chat templates as transformers reads them: Jinja2 in its immutable sandbox, with `trim_blocks`, `lstrip_blocks`, loop
//! controls, the tag `generation` and Python's values. Owns the language and its limits; refuses what Jinja2 has and chat
//! templates do not need, and never guesses: what is rendered is what Python renders.

mod arguments;
mod ast;
mod attributes;
mod budget;
mod calls;
mod characters;
mod checks;
mod cutting;
mod date;
mod definitions;
mod error;
mod evaluate;
mod expressions;
mod filters;
mod formatting;
mod given;
mod interpreter;
mod json;
mod lexer;
mod literals;
mod numbers;
mod ops;
mod parser;
mod percent;
mod printing;
mod sequences;
mod strings;
mod symbols;
mod value;
mod walking;

pub use date::Date;
pub use error::{Fault, Kind};

use error::Outcome;
use interpreter::Interpreter;
use serde_json::{Map, Value};

/// Stack of the thread that renders, in bytes: enough for every depth that the parser and the interpreter allow.
const STACK_BYTES: usize = 128 << 20;

/// The longest template, in bytes.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;

/// What `template` writes with `variables`.
///
/// # Errors
/// A template that does not parse, that fails in Python too, that uses what is not supported, or that would take more time
/// or memory than a template may.
pub fn render(template: &str, variables: &Map<String, Value>, date: Option<Date>) -> Result<String, Fault> {
    if template.len() > MAX_TEMPLATE_BYTES {
        let (found, most) = (template.len(), MAX_TEMPLATE_BYTES);
        return Err(Fault::syntax(1, format!("the template has {found} bytes, expected at most {most}")));
    }
    let input_bytes = size(&Value::Null) + variables.values().map(size).sum::<usize>();
    let work = || {
        budget::start(input_bytes);
        let template = parser::parse(template)?;
        let values = variables.iter().map(|(name, json)| Ok((name.clone(), value::Value::of_json(json)?)));
        Interpreter::new(values.collect::<Outcome<_>>()?, date).render(&template)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat template".to_owned()).stack_size(STACK_BYTES);
        let spawned = thread.spawn_scoped(scope, work);
        let thread = spawned.map_err(|error| Fault::new(format!("no thread to render in: {error}")))?;
        thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    })
}

/// Bytes of a value as text, about.
fn size(json: &Value) -> usize {
    match json {
        Value::String(text) => text.len() + 8,
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 8,
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + size(value) + 8).sum::<usize>() + 8,
        _ => 8,
    }
}

#[cfg(test)]
mod tests;
