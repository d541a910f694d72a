//! Templates to tokens, as Jinja2's lexer cuts them with `trim_blocks` and `lstrip_blocks`. Owns white space around tags,
//! comments and raw blocks.

use super::characters::is_space;
use super::error::{Fault, Outcome};
use super::literals::{float_length, integer_parts, unescape};

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub enum Tok {
    /// Text outside tags.
    Data(String),
    /// `{{`
    VariableBegin,
    /// `}}`
    VariableEnd,
    /// `{%`
    BlockBegin,
    /// `%}`
    BlockEnd,
    /// A name or keyword.
    Name(String),
    /// A string, its escapes resolved.
    Str(String),
    /// An integer.
    Int(i128),
    /// A float.
    Float(f64),
    /// Punctuation.
    Op(&'static str),
    /// The end.
    End,
}

/// A token with its line.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it is.
    pub tok: Tok,
    /// Line of the template, from 1.
    pub line: usize,
}

/// Longest first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    /// Place up to which lines have been counted, and the line there.
    counted: (usize, usize),
    line_starting: bool,
    tokens: Vec<Token>,
}

/// The tokens of a template; the last is [`Tok::End`].
pub fn tokens(source: &str) -> Outcome<Vec<Token>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, counted: (0, 1), line_starting: true, tokens: Vec::new() };
    while lexer.at < source.len() {
        lexer.root()?;
    }
    lexer.add(Tok::End);
    Ok(lexer.tokens)
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn line(&mut self) -> usize {
        let (from, line) = self.counted;
        if self.at > from {
            let lines = self.source.as_bytes()[from..self.at].iter().filter(|byte| **byte == b'\n').count();
            self.counted = (self.at, line + lines);
        }
        self.counted.1
    }

    fn add(&mut self, tok: Tok) {
        let line = self.line();
        self.tokens.push(Token { tok, line });
    }

    fn fault<T>(&mut self, message: impl Into<String>) -> Outcome<T> {
        Err(Fault::syntax(self.line(), message))
    }

    /// Skips `text` if it is next.
    fn takes(&mut self, text: &str) -> bool {
        let next = self.rest().starts_with(text);
        if next {
            self.at += text.len();
            self.line_starting = text.ends_with('\n');
        }
        next
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        let skipped = rest.len() - rest.trim_start_matches(is_space).len();
        if skipped > 0 {
            self.line_starting = rest[..skipped].ends_with('\n');
            self.at += skipped;
        }
    }

    /// Text up to the next tag, then the tag.
    fn root(&mut self) -> Outcome<()> {
        let rest = self.rest();
        let begins = |place: &usize| ["{%", "{{", "{#"].iter().any(|tag| rest[*place..].starts_with(tag));
        let Some(begin) = rest.match_indices('{').map(|(place, _)| place).find(begins) else {
            self.add(Tok::Data(rest.to_owned()));
            self.at = self.source.len();
            return Ok(());
        };
        let tag = &rest[begin..begin + 2];
        let sign = rest[begin + 2..].chars().next().filter(|sign| "+-".contains(*sign));
        self.data(&rest[..begin], sign, tag != "{{");
        self.at += begin + 2 + usize::from(sign.is_some());
        self.line_starting = false;
        match tag {
            "{#" => self.comment(),
            "{{" => {
                self.add(Tok::VariableBegin);
                self.inside(false)
            }
            _ if self.raw_begin() => self.raw(),
            _ => {
                self.add(Tok::BlockBegin);
                self.inside(true)
            }
        }
    }

    /// Text before a tag, without the white space that the tag takes away.
    fn data(&mut self, text: &str, sign: Option<char>, lstrip: bool) {
        let mut kept = text;
        if sign == Some('-') {
            kept = text.trim_end_matches(is_space);
        } else if sign.is_none() && lstrip {
            let start = text.rfind('\n').map_or(0, |newline| newline + 1);
            let blank = text[start..].chars().all(is_space);
            if (start > 0 || self.line_starting) && blank && start < text.len() {
                kept = &text[..start];
            }
        }
        if !kept.is_empty() {
            self.add(Tok::Data(kept.to_owned()));
        }
    }

    fn comment(&mut self) -> Outcome<()> {
        let rest = self.rest();
        let Some(end) = rest.find("#}") else { return self.fault("a comment `{#` without its end `#}`") };
        let sign = rest[..end].chars().next_back();
        self.at += end + 2;
        self.line_starting = false;
        self.after_tag(sign);
        Ok(())
    }

    /// White space that the end of a tag takes away.
    fn after_tag(&mut self, sign: Option<char>) {
        match sign {
            Some('-') => self.skip_space(),
            Some('+') => {}
            _ => {
                self.takes("\n");
            }
        }
    }

    /// Skips the rest of `{% raw %}` if that is what this tag is.
    fn raw_begin(&mut self) -> bool {
        let (at, starting) = (self.at, self.line_starting);
        self.skip_space();
        if self.takes("raw") {
            self.skip_space();
            if self.takes("-%}") {
                self.skip_space();
                return true;
            }
            if self.takes("%}") {
                return true;
            }
        }
        (self.at, self.line_starting) = (at, starting);
        false
    }

    fn raw(&mut self) -> Outcome<()> {
        let (start, rest) = (self.at, self.rest());
        for (place, _) in rest.match_indices("{%") {
            let sign = rest[place + 2..].chars().next().filter(|sign| "+-".contains(*sign));
            self.at = start + place + 2 + usize::from(sign.is_some());
            self.skip_space();
            if !self.takes("endraw") {
                continue;
            }
            self.skip_space();
            let end = ["-%}", "+%}", "%}"].into_iter().find(|end| self.rest().starts_with(end));
            if let Some(end) = end {
                let after = self.at + end.len();
                self.at = start;
                self.line_starting = false;
                self.data(&rest[..place], sign, true);
                self.at = after;
                self.after_tag(end.chars().next().filter(|sign| *sign != '%'));
                return Ok(());
            }
        }
        self.at = start;
        self.fault("`{% raw %}` without its `{% endraw %}`")
    }

    /// Everything up to the end of a tag.
    fn inside(&mut self, block: bool) -> Outcome<()> {
        let mut open: Vec<char> = Vec::new();
        loop {
            self.skip_space();
            if self.rest().is_empty() {
                return self.fault("a tag without its end");
            }
            if open.is_empty() && self.tag_end(block) {
                return Ok(());
            }
            self.token(&mut open)?;
        }
    }

    fn tag_end(&mut self, block: bool) -> bool {
        let end = if block { "%}" } else { "}}" };
        let rest = self.rest();
        let sign = rest.chars().next().filter(|sign| *sign == '-' || (*sign == '+' && block));
        if !rest[usize::from(sign.is_some())..].starts_with(end) {
            return false;
        }
        self.add(if block { Tok::BlockEnd } else { Tok::VariableEnd });
        self.at += usize::from(sign.is_some()) + 2;
        self.line_starting = false;
        if block || sign == Some('-') {
            self.after_tag(sign);
        }
        true
    }

    fn token(&mut self, open: &mut Vec<char>) -> Outcome<()> {
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or_default();
        if first.is_ascii_digit() {
            return self.number();
        }
        if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            self.add(Tok::Name(rest[..length].to_owned()));
            self.at += length;
            return Ok(());
        }
        if first == '\'' || first == '"' {
            return self.string(first);
        }
        let Some(operator) = OPERATORS.into_iter().find(|operator| rest.starts_with(operator)) else {
            return self.fault(format!("unexpected character {first:?}"));
        };
        match operator {
            "(" => open.push(')'),
            "[" => open.push(']'),
            "{" => open.push('}'),
            ")" | "]" | "}" if open.pop() != operator.chars().next() => {
                return self.fault(format!("unexpected `{operator}`"));
            }
            _ => {}
        }
        self.add(Tok::Op(operator));
        self.at += operator.len();
        Ok(())
    }

    fn number(&mut self) -> Outcome<()> {
        let rest = self.rest();
        let after_dot = self.source[..self.at].ends_with('.');
        let (length, number) = match float_length(rest) {
            Some(length) if !after_dot => {
                let text = rest[..length].replace('_', "");
                (length, text.parse().ok().map(Tok::Float))
            }
            _ => {
                let (radix, prefix, digits) = integer_parts(rest);
                let text = digits.replace('_', "");
                (prefix + digits.len(), i128::from_str_radix(&text, radix).ok().map(Tok::Int))
            }
        };
        let Some(number) = number else { return self.fault("a number that is too large") };
        self.add(number);
        self.at += length;
        Ok(())
    }

    fn string(&mut self, quote: char) -> Outcome<()> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find(|(_, c)| {
            let closes = !escaped && *c == quote;
            escaped = !escaped && *c == '\\';
            closes
        });
        let Some((end, _)) = end else { return self.fault("a string without its end") };
        match unescape(&rest[1..end]) {
            Ok(text) => self.add(Tok::Str(text)),
            Err(reason) => return self.fault(reason),
        }
        self.at += end + 1;
        Ok(())
    }
}
