//! Why a template does not render: what it means is wrong, unsupported, or too much.

use std::fmt;

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The template does not parse.
    Syntax,
    /// It fails while it renders, as it would in Python, or asks for what is not supported.
    Runtime,
    /// It would take more time or memory than it may.
    Limit,
    /// It calls for a date, and none was given.
    NoDate,
}

/// A refusal with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub kind: Kind,
    /// Line of the template, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// What rendering yields.
pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// A failure while rendering.
    pub fn new(message: impl Into<String>) -> Self {
        Fault { kind: Kind::Runtime, line: None, message: message.into() }
    }

    /// A failure of the syntax.
    pub fn syntax(line: usize, message: impl Into<String>) -> Self {
        Fault { kind: Kind::Syntax, line: Some(line), message: message.into() }
    }

    /// With its line, unless it has one.
    #[must_use]
    pub fn at(self, line: usize) -> Self {
        Fault { line: self.line.or(Some(line)), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// A refusal of what would take too much.
pub fn exceeds<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Fault { kind: Kind::Limit, ..Fault::new(message) })
}

/// Whatever is formatted, as an error.
pub fn fail<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Fault::new(message))
}
